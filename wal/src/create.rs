//! Makes a file of pages where there is none.

use std::ffi::OsStr;
use std::io::{ErrorKind, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use wal_core::protocol::{DatabaseKind, WalConfig, first_page};
use wal_core::storage::{File, FileSyncType, Naming, NewFile};
use wal_core::{Error, PageSize, Result};

use crate::options::Options;

impl Options {
    /// The kind of the file that is made where there is none, if one is.
    pub(crate) fn makes(&self) -> Option<DatabaseKind> {
        let is_pages = |kind: &DatabaseKind| *kind != DatabaseKind::Sqlite;
        self.kind
            .filter(|kind| self.create && !self.only_reads() && is_pages(kind))
    }

    /// Makes the file at `path`, if none is there and one of pages is to be made. It gets its
    /// name once it is whole and durable, so peers and a crash find all of it or nothing.
    ///
    /// # Errors
    /// [`Error::Io`], of the kind `NotFound` if no file is there and none is made.
    pub(crate) fn make_missing(&self, path: &Path) -> Result<()> {
        match path.symlink_metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // What else is wrong shows itself when the file is opened.
            _ => return Ok(()),
        }
        let Some(kind) = self.makes() else {
            let advice = "No such file; `Database::open_pages` creates a page store, and stock \
                SQLite a SQLite database";
            let missing = std::io::Error::new(ErrorKind::NotFound, advice);
            return Err(Error::io(path, "open", missing));
        };
        refuse_name_of_side_file(path)?;
        let page_size = self.page_size.unwrap_or(PageSize::DEFAULT);
        let page = first_page(&WalConfig::new(kind, page_size));
        let mut new = NewFile::beside(path, None)?;
        new.file()?.write_all_at(&mut [IoSlice::new(&page)], 0)?;
        new.file()?.sync(FileSyncType::Full)?;
        match new.name(path, Naming::Keep) {
            // A peer was faster; or the file system cannot do that, and the file is made in
            // place, under EXCLUSIVE.
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    ErrorKind::AlreadyExists | ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            named => named,
        }
    }
}

/// Refuses to give a new file the name of a file that belongs to a database: processes that
/// use that would write to it, or remove it.
///
/// # Errors
/// [`Error::CannotOpen`].
pub(crate) fn refuse_name_of_side_file(path: &Path) -> Result<()> {
    let name = path.as_os_str().as_bytes();
    if name.ends_with(b"/") {
        return Err(Error::cannot_open(path, "it is the name of a directory"));
    }
    for suffix in ["-wal", "-shm", "-coord", "-journal"] {
        let of = name.strip_suffix(suffix.as_bytes()).map(OsStr::from_bytes);
        if let Some(of) = of.map(Path::new)
            && of.is_file()
        {
            let of = of.display();
            let reason = format!("it is the name of a file that belongs to {of}; choose another");
            return Err(Error::cannot_open(path, reason));
        }
    }
    Ok(())
}
