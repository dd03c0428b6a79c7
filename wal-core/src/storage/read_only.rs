//! The files of a database that may not be written.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::{File, FileSyncType, HeldPath, MappedFile, OpenMode, OsFile, Storage};
use crate::error::{Error, Result};

/// A log that is only read. Where there is none it is empty, until another
/// process makes it: it is opened when it is first found.
///
/// The user holds SHARED on the database file, so nobody removes a log that
/// was found.
#[derive(Debug)]
pub struct ReadOnlyLog {
    place: HeldPath,
    found: OnceLock<OsFile>,
    mapped: bool,
    ignored: bool,
}

impl ReadOnlyLog {
    /// The log beside the database at `place`. `mapped` says whether its pages
    /// are read from a mapping.
    pub fn beside(place: &HeldPath, mapped: bool) -> Self {
        ReadOnlyLog {
            place: place.beside("-wal"),
            found: OnceLock::new(),
            mapped,
            ignored: false,
        }
    }

    /// The log of a database that is read without it: it is empty, whatever
    /// the file says.
    #[must_use]
    pub fn ignored(mut self) -> Self {
        self.ignored = true;
        self
    }

    fn file(&self) -> Result<Option<&OsFile>> {
        if self.ignored {
            return Ok(None);
        }
        if let Some(file) = self.found.get() {
            return Ok(Some(file));
        }
        match OsFile::open_at(self.place.clone(), OpenMode::ReadOnly) {
            Ok(file) => {
                let file = file.with_mapping(self.mapped);
                Ok(Some(self.found.get_or_init(|| file)))
            }
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn refuse(&self) -> Result<()> {
        Err(Error::ReadOnly {
            path: self.place.path().to_owned(),
        })
    }
}

impl File for ReadOnlyLog {
    fn path(&self) -> &Path {
        self.place.path()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match self.file()? {
            Some(file) => file.read_at(buffer, offset),
            None => Ok(0),
        }
    }

    fn write_all_at(&self, _buffers: &mut [IoSlice<'_>], _offset: u64) -> Result<()> {
        self.refuse()
    }

    fn sync(&self, _kind: FileSyncType) -> Result<()> {
        self.refuse()
    }

    fn len(&self) -> Result<u64> {
        self.file()?.map_or(Ok(0), File::len)
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        self.refuse()
    }

    fn mapped(&self) -> Option<&MappedFile> {
        self.file().ok().flatten().and_then(File::mapped)
    }
}

/// A database file that is only read, and its log.
#[derive(Debug)]
pub struct ReadOnlyStorage {
    database: Arc<OsFile>,
    log: ReadOnlyLog,
}

impl ReadOnlyStorage {
    /// The storage of `database` and `log`.
    pub fn new(database: Arc<OsFile>, log: ReadOnlyLog) -> Self {
        ReadOnlyStorage { database, log }
    }
}

impl Storage for ReadOnlyStorage {
    fn database(&self) -> &dyn File {
        &*self.database
    }

    fn log(&self) -> &dyn File {
        &self.log
    }

    fn remove_log(&self) -> Result<()> {
        self.log.refuse()
    }
}
