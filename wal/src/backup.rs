//! Copies a database while it is in use.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use wal_core::protocol::{BackupProgress, refuse_leftovers};
use wal_core::storage::{
    ByteLocks, FileId, LockKind, Naming, NewFile, OpenMode, OsFile, beside, database_bytes,
};
use wal_core::{Error, Result};

use crate::backend::Backend;
use crate::create::refuse_name_of_side_file;
use crate::database::Database;

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
    /// [`Database::begin_read`] give. No file is left then. If the process dies, the copy may be
    /// left under a name that ends in `-new-by-wal-` and two numbers; the next backup to
    /// that directory removes it.
    pub fn backup(
        &self,
        path: impl AsRef<Path>,
        progress: impl FnMut(BackupProgress) -> Result<()>,
    ) -> Result<()> {
        let path = path.as_ref();
        refuse_name_of_side_file(path)?;
        let exists = || Error::io(path, "name the backup", ErrorKind::AlreadyExists.into());
        if path.symlink_metadata().is_ok() {
            return Err(exists());
        }
        refuse_leftovers(path)?;
        let mut copy = self.copy_beside(path, progress)?;
        copy.name_new(path)
    }

    /// As [`Database::backup`], and replaces the file at `path`, if there is one, in one call:
    /// at every moment, and after a crash, the old or the new one is there as a whole. No
    /// program may open the old one meanwhile: a log that it makes would be taken for that of
    /// the new one.
    ///
    /// # Errors
    /// [`Error::Locked`] if a program has a database at `path` open, [`Error::CannotOpen`] if it
    /// is this one or has a log or a journal, and those of [`Database::backup`], but that a file
    /// is there.
    pub fn replace_backup(
        &self,
        path: impl AsRef<Path>,
        progress: impl FnMut(BackupProgress) -> Result<()>,
    ) -> Result<()> {
        let path = path.as_ref();
        refuse_name_of_side_file(path)?;
        self.refuse_to_replace(path)?;
        let mut copy = self.copy_beside(path, progress)?;
        // It may have been opened while it was copied.
        self.refuse_to_replace(path)?;
        copy.name(path, Naming::Replace)
    }

    /// Refuses to replace what is no old backup: this database, one that is open, or a file
    /// beside which a log or a journal lies.
    fn refuse_to_replace(&self, path: &Path) -> Result<()> {
        let there = match path.symlink_metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => return refuse_leftovers(path),
            there => FileId::of(&there.map_err(|e| Error::io(path, "stat", e))?),
        };
        for suffix in ["-wal", "-journal"] {
            let beside = beside(path, suffix);
            // A connection of stock SQLite that only reads leaves an empty log.
            if fs::metadata(&beside).is_ok_and(|metadata| metadata.len() > 0) {
                let reason = "it would be taken for that of the backup; close the database that \
                    it belongs to, or remove both";
                return Err(Error::cannot_open(&beside, reason));
            }
        }
        if there == self.file().id()? {
            return Err(Error::cannot_open(path, "it is the database itself"));
        }
        // Parked, because closing it would drop the locks of a stock SQLite in this process.
        let file = OsFile::open_for_locks(path, OpenMode::ReadOnly)?;
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let conflict = locks.conflict(file.as_file()?, database_bytes::ALL);
        match conflict.map_err(|e| Error::io(path, "query the lock of", e))? {
            Some(_) => Err(Error::Locked {
                path: path.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// A copy of the newest state, durable and not yet at its name.
    fn copy_beside(
        &self,
        path: &Path,
        progress: impl FnMut(BackupProgress) -> Result<()>,
    ) -> Result<NewFile> {
        let mut copy = NewFile::beside(path, Some(self.file()))?;
        self.begin_read()?.copy_to(copy.file()?, progress)?;
        copy.close();
        Ok(copy)
    }
}
