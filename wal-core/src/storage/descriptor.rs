//! The descriptor of a file: in which process it is usable, and whether it is closed.
//!
//! A descriptor of a file that carries locks is closed in children of the process. There its
//! number may belong to any other file, so no system call is made with it. Its last user
//! parks it ([`parking`]). A descriptor of a file that carries no locks is closed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use super::file_id::FileId;
use super::parking::{self, Parkable, Reach};
use crate::error::{Error, Result};
use crate::fork::ProcessGeneration;

/// An open descriptor.
#[derive(Debug)]
pub(super) struct Descriptor {
    /// Emptied only by `drop`.
    open: Option<Open>,
    process: ProcessGeneration,
    /// Whether a descriptor that carries locks may be closed.
    may_close: AtomicBool,
}

#[derive(Debug)]
enum Open {
    Plain(fs::File),
    WithLocks(Parkable),
}

impl Open {
    fn file(&self) -> &fs::File {
        match self {
            Open::Plain(file) => file,
            Open::WithLocks(parkable) => parkable.file(),
        }
    }
}

impl Descriptor {
    /// The descriptor of a file that carries no locks.
    pub(super) fn plain(file: fs::File) -> Self {
        Self::of(Open::Plain(file))
    }

    /// The descriptor of a file that carries locks and was just opened.
    pub(super) fn with_locks(file: fs::File, reach: Reach) -> io::Result<Self> {
        Ok(Self::of(Open::WithLocks(parking::adopt(file, reach)?)))
    }

    /// Reuses a parked descriptor of the file `id`.
    pub(super) fn reuse(id: FileId, reach: Reach) -> Option<Self> {
        let parked = parking::reuse(id, reach);
        parked.map(|parkable| Self::of(Open::WithLocks(parkable)))
    }

    fn of(open: Open) -> Self {
        Descriptor {
            open: Some(open),
            process: ProcessGeneration::current(),
            may_close: AtomicBool::new(false),
        }
    }

    /// The open file.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`] in a child.
    #[inline]
    pub(super) fn file(&self) -> Result<&fs::File> {
        match &self.open {
            Some(open) if !self.process.is_over() => Ok(open.file()),
            _ => Err(Error::UsedAfterFork),
        }
    }

    /// Which file it is of.
    ///
    /// # Errors
    /// [`Error::Io`] of the file at `path` if the system does not identify it.
    pub(super) fn id(&self, path: &Path) -> Result<FileId> {
        if let Some(Open::WithLocks(parkable)) = &self.open {
            return Ok(parkable.id());
        }
        let metadata = self.file()?.metadata();
        let metadata = metadata.map_err(|e| Error::io(path, "fstat", e))?;
        Ok(FileId::of(&metadata))
    }

    /// Sets whether a descriptor that carries locks may be closed when it is dropped.
    pub(super) fn allow_close(&self, may_close: bool) {
        self.may_close.store(may_close, Ordering::Relaxed);
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        match self.open.take() {
            Some(Open::WithLocks(parkable)) if self.process.is_over() => {
                parkable.forget_in_child();
            }
            Some(Open::WithLocks(parkable)) => {
                parking::park(parkable, *self.may_close.get_mut());
            }
            Some(Open::Plain(file)) => drop(file),
            None => {}
        }
    }
}
