//! The database file of an attachment: opened and locked here, or by an engine
//! above that has it open anyway.
//!
//! # Protocol
//! An engine holds SHARED on the file, by whatever locks it uses, from before
//! it attaches until after it has left. Its file is never opened here, because
//! closing a descriptor of it would drop the engine's locks, and its lock bytes
//! are not touched. The last user of a process asks the engine for EXCLUSIVE.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use wal_core::storage::{FileId, HeldPath, OpenMode, OsFile};
use wal_core::{Error, Result};

/// An engine that has the database file open, and holds SHARED on it.
pub trait DatabaseOwner: Send + Sync + fmt::Debug + 'static {
    /// Turns SHARED into EXCLUSIVE without waiting; false if anybody else has
    /// the database open. EXCLUSIVE is kept until the log is removed at least.
    ///
    /// # Errors
    /// What the engine says but that others are there.
    fn try_lock_exclusive(&self) -> Result<bool>;

    /// Where the engine has found the file, if it holds the directory open. Else the path
    /// is used, which may lead elsewhere by then.
    fn held_path(&self) -> Option<HeldPath> {
        None
    }
}

/// The database file of an attachment.
#[derive(Clone, Debug)]
pub(crate) enum MainFile {
    /// It is opened and locked by the attachment.
    Own(Arc<OsFile>),
    /// It is opened and locked by an engine.
    OfEngine(Engines),
}

/// Where and what a file of an engine is.
#[derive(Clone, Debug)]
pub(crate) struct Engines {
    place: HeldPath,
    id: FileId,
}

impl MainFile {
    /// The file at `place`, which an engine has open.
    pub(crate) fn of_engine(place: HeldPath) -> Result<Self> {
        let io = |e| Error::io(place.path(), "stat", e);
        let found = place.find().and_then(|found| found.ok_or_else(missing));
        let id = found.map_err(io)?.id;
        Ok(MainFile::OfEngine(Engines { place, id }))
    }

    pub(crate) fn held_path(&self) -> &HeldPath {
        match self {
            MainFile::Own(file) => file.held_path(),
            MainFile::OfEngine(engines) => &engines.place,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.held_path().path()
    }

    /// How long the file is, and when it was written last.
    pub(crate) fn written(&self) -> Result<(u64, SystemTime)> {
        let written = match self {
            MainFile::Own(file) => {
                let metadata = file.as_file()?.metadata();
                metadata.and_then(|metadata| Ok((metadata.len(), metadata.modified()?)))
            }
            MainFile::OfEngine(engines) => {
                let found = engines.place.find();
                let found = found.and_then(|found| found.ok_or_else(missing));
                found.map(|found| (found.len, found.modified))
            }
        };
        written.map_err(|e| Error::io(self.path(), "stat", e))
    }

    /// Our own descriptor of it.
    pub(crate) fn own(&self) -> Option<&Arc<OsFile>> {
        match self {
            MainFile::Own(file) => Some(file),
            MainFile::OfEngine(_) => None,
        }
    }

    /// How files beside it are made.
    pub(crate) fn create_like(&self) -> OpenMode<'_> {
        match self {
            MainFile::Own(file) => OpenMode::CreateLike(file),
            MainFile::OfEngine(engines) => OpenMode::CreateLikeAt(&engines.place),
        }
    }

    /// Which file it is.
    pub(crate) fn id(&self) -> Result<FileId> {
        match self {
            MainFile::Own(file) => file.id(),
            MainFile::OfEngine(engines) => Ok(engines.id),
        }
    }

    pub(crate) fn is_still_at_its_path(&self) -> Result<bool> {
        match self {
            MainFile::Own(file) => file.is_still_at_its_path(),
            MainFile::OfEngine(engines) => match engines.place.find() {
                Ok(found) => Ok(found.is_some_and(|found| found.id == engines.id)),
                // Nothing says that it is not.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(true),
                Err(e) => Err(Error::io(self.path(), "stat", e)),
            },
        }
    }
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}
