//! A database, shared by the threads of a process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal_core::io::OsStorage;
use wal_core::protocol::{CheckpointMode, CheckpointReport, DatabaseKind, Wal};
use wal_core::{Error, PageSize, Result};

use crate::backend::Backend;
use crate::options::{Options, ReadStrategy};
use crate::transaction::{ReadTx, WriteTx};

/// How long an opener sleeps before it looks again at a locked database. Who
/// has it locked may be a stock SQLite, which wakes nobody.
const OPEN_AGAIN: Duration = Duration::from_millis(2);

/// An open database. Clones are cheap and are the same database; the last one
/// to go closes it. A last closer of all processes moves the log into the
/// database file and removes it.
#[derive(Debug)]
pub struct Database<B: Backend> {
    opened: Arc<Opened<B>>,
}

/// What the clones of a database share.
#[derive(Debug)]
struct Opened<B: Backend> {
    wal: Arc<Wal<B>>,
    busy_timeout: Duration,
    auto_checkpoint: u32,
}

impl<B: Backend> Clone for Database<B> {
    fn clone(&self) -> Self {
        Database {
            opened: self.opened.clone(),
        }
    }
}

impl<B: Backend> Database<B> {
    /// Opens the database at `path` with the default [`Options`]; makes a page
    /// store if there is no file.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), &Options::new())
    }

    pub(crate) fn open_with(path: &Path, options: &Options) -> Result<Self> {
        let path = resolve(path)?;
        let deadline = Instant::now() + options.busy_timeout;
        let (coordination, file, config) = loop {
            match B::attach(&path, options) {
                Err(Error::Locked { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(OPEN_AGAIN);
                }
                attached => break attached?,
            }
        };
        let storage = OsStorage::open(file, options.read_strategy == ReadStrategy::Mapped)?;
        let opened = Opened {
            wal: Wal::new(coordination, Box::new(storage), config),
            busy_timeout: options.busy_timeout,
            auto_checkpoint: options.auto_checkpoint,
        };
        Ok(Database {
            opened: Arc::new(opened),
        })
    }

    /// Begins a read transaction on the newest state. Any number of them can
    /// be open, on any thread; none waits for a writer, only for a recovery.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process still recovers the log after the
    /// busy timeout, [`Error::Protocol`], [`Error::UsedAfterFork`],
    /// [`Error::Corrupt`], [`Error::PageSizeMismatch`], [`Error::Io`].
    pub fn begin_read(&self) -> Result<ReadTx<B>> {
        let tx = self
            .opened
            .wal
            .begin_read_within(self.opened.busy_timeout)?;
        Ok(ReadTx {
            tx,
            database: self.clone(),
        })
    }

    /// Begins a write transaction on the newest state, once other writers are
    /// done: never on a stale snapshot.
    ///
    /// # Errors
    /// [`Error::Busy`] if another writer is still at work after the busy
    /// timeout, [`Error::Poisoned`] after a failed sync, and those of
    /// [`Database::begin_read`].
    pub fn begin_write(&self) -> Result<WriteTx<B>> {
        let tx = self.opened.wal.begin_write(self.opened.busy_timeout)?;
        Ok(WriteTx {
            tx,
            database: self.clone(),
        })
    }

    /// Moves committed pages from the log into the database file.
    ///
    /// # Errors
    /// [`Error::Busy`] if another checkpoint is running, [`Error::Poisoned`]
    /// after a failed sync, [`Error::Corrupt`], [`Error::Io`].
    pub fn checkpoint(&self, mode: CheckpointMode) -> Result<CheckpointReport> {
        self.opened.wal.checkpoint(mode)
    }

    /// The path of the database file, without symbolic links.
    pub fn path(&self) -> &Path {
        self.opened.wal.path()
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.opened.wal.config().page_size
    }

    /// What the database file holds.
    pub fn kind(&self) -> DatabaseKind {
        self.opened.wal.config().kind
    }

    /// Closes the database and tells what went wrong, which dropping the last
    /// handle does not. While clones or transactions are left, it only gives
    /// up this handle.
    ///
    /// # Errors
    /// What the last checkpoint gives. Nothing that was committed is lost
    /// then: the log stays.
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.opened) {
            Some(opened) => opened.wal.close(),
            None => Ok(()),
        }
    }

    pub(crate) fn wal(&self) -> &Arc<Wal<B>> {
        &self.opened.wal
    }

    /// What a commit does that left `log_frames` in the log. It is done for
    /// later commits, so its failure is not that of this one; a failed sync
    /// shows itself at the next write.
    pub(crate) fn after_commit(&self, log_frames: u32) {
        if self.opened.auto_checkpoint != 0 && log_frames >= self.opened.auto_checkpoint {
            let _ = self.checkpoint(CheckpointMode::Passive);
        }
    }
}

impl<B: Backend> Drop for Opened<B> {
    fn drop(&mut self) {
        // Does nothing if `close` was called before. Whatever goes wrong here
        // leaves the log, which the next opener recovers.
        let _ = self.wal.close();
    }
}

/// The path without symbolic links, as SQLite resolves it: the log lies
/// beside the file, not beside a link to it.
fn resolve(path: &Path) -> Result<PathBuf> {
    let io = |e| Error::io(path, "resolve", e);
    match path.canonicalize() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        resolved => return resolved.map_err(io),
    }
    // A file made through the link would have its log beside the link, where
    // nobody looks once the link leads somewhere.
    if path.is_symlink() {
        let reason = "it is a symbolic link to a file that is not there; make that file first";
        return Err(Error::cannot_open(path, reason));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match path.file_name() {
        Some(name) => Ok(parent.canonicalize().map_err(io)?.join(name)),
        None => Err(Error::cannot_open(path, "it names no file")),
    }
}
