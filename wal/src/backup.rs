//! Copies a database while it is in use.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use wal_core::io::{OpenMode, OsFile, sync_directory};
use wal_core::protocol::{BackupProgress, refuse_leftovers};
use wal_core::{Error, Result};

use crate::backend::Backend;
use crate::database::Database;

/// The file that a backup is written to before it gets its name. Dropped, it
/// is removed.
struct Unnamed(PathBuf);

impl Unnamed {
    /// A new file beside `path`, with the owner and permissions of `like`. Another
    /// process may have the name, one of the same number in another container.
    fn beside(path: &Path, like: &OsFile) -> Result<(Self, OsFile)> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut name = OsString::from(path);
            name.push(format!("-backup-{}-{number}", std::process::id()));
            let name = PathBuf::from(name);
            match OsFile::open(&name, OpenMode::NewLike(like)) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    // Another one's, if it was not made.
                    let file = made?;
                    return Ok((Unnamed(name), file));
                }
            }
        }
    }

    /// Gives the file its name, at which nothing may be yet.
    fn become_named(self, path: &Path) -> Result<()> {
        // Unlike a renaming, a link never replaces what is there.
        fs::hard_link(&self.0, path).map_err(|e| Error::io(path, "name the backup", e))?;
        drop(self);
        sync_directory(path)
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl<B: Backend> Database<B> {
    /// Copies the newest state of the database to a new file at `path`: one
    /// snapshot, however much is written meanwhile. The copy has no log, is
    /// durable, and appears under its name only when it is whole. Of a SQLite
    /// database it is one too.
    ///
    /// `progress` is called about once a megabyte; an error of its ends the
    /// backup.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (dir.path().join("pages"), dir.path().join("copy"));
    /// # let db = wal::Database::open_pages(&path)?;
    /// db.backup(&copy, |progress| {
    ///     println!("{} of {} pages", progress.copied, progress.pages);
    ///     Ok(())
    /// })?;
    /// assert!(wal::Database::open(&copy).is_ok());
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if something is at `path` already, or the disk is full;
    /// [`Error::CannotOpen`] and [`Error::HotJournal`] if a log or a journal
    /// lies there, which would be taken for the copy's; what `progress` and
    /// [`Database::begin_read`] give. No file is left then.
    pub fn backup(
        &self,
        path: impl AsRef<Path>,
        progress: impl FnMut(BackupProgress) -> Result<()>,
    ) -> Result<()> {
        let path = path.as_ref();
        if path.symlink_metadata().is_ok() {
            let exists = ErrorKind::AlreadyExists.into();
            return Err(Error::io(path, "name the backup", exists));
        }
        refuse_leftovers(path)?;
        let (unnamed, file) = Unnamed::beside(path, self.file())?;
        self.begin_read()?.copy_to(&file, progress)?;
        drop(file);
        unnamed.become_named(path)
    }
}
