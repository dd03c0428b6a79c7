//! Opening a database: which file its path means, and how long its owner is waited for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal_core::protocol::{Wal, refuse_leftovers};
use wal_core::storage::OsFile;
use wal_core::wait::POLL_INTERVAL;
use wal_core::{Error, Result};

use crate::backend::Backend;
use crate::database::Database;
use crate::options::Options;

impl Options {
    /// Opens the database at `path` with the default backend: the shared one,
    /// if it is compiled in.
    ///
    /// # Errors
    /// [`crate::Error::Locked`] if another connection owns the database,
    /// [`crate::Error::NotWalMode`], [`crate::Error::HotJournal`],
    /// [`crate::Error::CannotOpen`] for a file of another kind or page size, or an empty one
    /// that pages were not asked for, [`crate::Error::Io`] of the kind
    /// [`NotFound`](std::io::ErrorKind::NotFound) if there is no file and none is created,
    /// [`crate::Error::Corrupt`], and other [`crate::Error::Io`]. A database, page store
    /// or log that was there is not changed then. A file of pages that was created stays, and so
    /// may `-shm` and `-coord` files, which the next opener resets.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<crate::Database> {
        Database::open_with(path, self)
    }

    /// Opens the database at `path` for this process and others.
    ///
    /// # Errors
    /// As [`Options::open`].
    #[cfg(feature = "shm")]
    pub fn open_shm(&self, path: impl AsRef<Path>) -> Result<crate::shm::Database> {
        Database::open_with(path, self)
    }

    /// Opens the database at `path` for this process alone.
    ///
    /// # Errors
    /// As [`Options::open`].
    #[cfg(feature = "inproc")]
    pub fn open_inproc(&self, path: impl AsRef<Path>) -> Result<crate::inproc::Database> {
        Database::open_with(path, self)
    }
}

/// Attaches to the database at `path`, once its owner lets go of it.
pub(crate) fn attach<B: Backend>(
    path: &Path,
    options: &Options,
    timeout: Duration,
) -> Result<(Arc<Wal<B>>, Arc<OsFile>)> {
    let started = Instant::now();
    loop {
        match B::attach(path, options) {
            Err(Error::Locked { .. }) if started.elapsed() < timeout => {
                std::thread::sleep(POLL_INTERVAL);
            }
            attached => return attached?.open_log(options),
        }
    }
}

/// The path without symbolic links, as SQLite resolves it: the log lies
/// beside the file, not beside a link to it.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let io = |e| Error::io(path, "resolve", e);
    match path.canonicalize() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        resolved => return resolved.map_err(io),
    }
    // A file made through the link would have its log beside the link. Once the link leads
    // somewhere, users look for the log there.
    if path.is_symlink() {
        let reason = "it is a symbolic link to a file that is not there; make that file first";
        return Err(Error::cannot_open(path, reason));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return Err(Error::cannot_open(path, "it names no file"));
    };
    let resolved = parent.canonicalize().map_err(io)?.join(name);
    refuse_leftovers(&resolved)?;
    Ok(resolved)
}
