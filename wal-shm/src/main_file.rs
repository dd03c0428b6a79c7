//! The database file of an attachment: opened and locked here, or by an engine
//! above that has it open anyway.
//!
//! # Protocol
//! An engine holds SHARED on the file, by whatever locks it uses, from before
//! it attaches until after it has left. Its file is never opened here, because
//! closing a descriptor of it would drop the engine's locks, and its lock bytes
//! are not touched. The last user of a process asks the engine for EXCLUSIVE.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal_core::io::{File, FileId, OpenMode, OsFile};
use wal_core::{Error, Result};

/// An engine that has the database file open, and holds SHARED on it.
pub trait DatabaseOwner: Send + Sync + fmt::Debug + 'static {
    /// Turns SHARED into EXCLUSIVE without waiting; false if anybody else has
    /// the database open. EXCLUSIVE is kept until the log is removed at least.
    ///
    /// # Errors
    /// What the engine says but that others are there.
    fn try_lock_exclusive(&self) -> Result<bool>;
}

/// The database file of an attachment.
#[derive(Debug)]
pub(crate) enum MainFile {
    /// It is opened and locked by the attachment.
    Own(Arc<OsFile>),
    /// It is opened and locked by an engine.
    OfEngine(Found),
}

/// Where and what a file of an engine is.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    id: FileId,
}

impl MainFile {
    /// The file at `path`, which an engine has open.
    pub(crate) fn of_engine(path: &Path) -> Result<Self> {
        Ok(MainFile::OfEngine(Found {
            path: path.to_owned(),
            id: identity_of(path)?,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            MainFile::Own(file) => file.path(),
            MainFile::OfEngine(found) => &found.path,
        }
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
            MainFile::OfEngine(found) => OpenMode::CreateLikeAt(&found.path),
        }
    }

    /// Which file it is.
    pub(crate) fn id(&self) -> Result<FileId> {
        match self {
            MainFile::Own(file) => file.id(),
            MainFile::OfEngine(found) => Ok(found.id),
        }
    }

    pub(crate) fn is_still_at_its_path(&self) -> Result<bool> {
        match self {
            MainFile::Own(file) => file.is_still_at_its_path(),
            MainFile::OfEngine(found) => match identity_of(&found.path) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    Ok(false)
                }
                there => Ok(there? == found.id),
            },
        }
    }
}

fn identity_of(path: &Path) -> Result<FileId> {
    let there = std::fs::metadata(path).map_err(|e| Error::io(path, "stat", e))?;
    Ok(FileId::of(&there))
}
