//! The lines between a test and a worker process, each a JSON value: a
//! [`Command`] one way, an [`Answer`] the other.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wal::{LockKind, Options, PageSize, ReadStrategy};

use super::{Load, Stamp};
use crate::kind::kind_at;

/// What a worker is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Open a database.
    Open(Settings),
    /// Close it, its transactions first.
    Close,
    /// Begin a read transaction and keep it under `name`.
    BeginRead {
        /// What later commands call it.
        name: String,
    },
    /// End a read transaction.
    EndRead {
        /// Which one.
        name: String,
    },
    /// Begin and end read transactions one after the other.
    ReadTimes {
        /// How many.
        times: u32,
        /// How long to sleep after each of them.
        pause: Duration,
    },
    /// Tell what a read transaction sees: a [`SnapshotInfo`].
    Snapshot {
        /// Which one.
        name: String,
    },
    /// Read the stamps on `pages`: a `Vec<Option<Stamp>>`.
    Stamps {
        /// The read transaction.
        name: String,
        /// Their numbers.
        pages: Range<u32>,
    },
    /// Begin the write transaction.
    BeginWrite,
    /// Stamp `pages` in the write transaction.
    Write {
        /// Their numbers.
        pages: Range<u32>,
        /// The stamp.
        stamp: Stamp,
    },
    /// Add a page with a stamp; its number is the answer.
    AddPage {
        /// The stamp.
        stamp: Stamp,
    },
    /// Make the database larger or smaller in the write transaction.
    SetPageCount {
        /// How many pages it has then.
        pages: u32,
    },
    /// Write what the write transaction changed to the log.
    Spill,
    /// Set a savepoint in the write transaction.
    Savepoint,
    /// Roll the write transaction back to its last savepoint.
    RollbackTo,
    /// Commit the write transaction.
    Commit,
    /// Roll the write transaction back.
    Rollback,
    /// Checkpoint; whether all of the log was copied is the answer.
    Checkpoint(Checkpoint),
    /// Run by itself for a while: a [`LoadReport`](super::LoadReport).
    Load(Load),
    /// Stop at the `pass`-th pass of a step point from now on.
    Arm {
        /// The point's name.
        point: String,
        /// Counted from 1.
        pass: u32,
    },
    /// Go on from a stop.
    Go,
    /// Begin to record the step points that are passed.
    Record,
    /// The names of those passed since, and the end of the record.
    Passed,
    /// Ask the system who holds a lock byte: an `Option<HeldByte>`.
    Probe {
        /// The file.
        file: PathBuf,
        /// The byte.
        byte: u64,
    },
    /// Make a child that lives until the test's end hangs up; its process
    /// number is the answer.
    Fork,
}

/// How a worker opens its database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Which database.
    pub path: PathBuf,
    /// Which coordination.
    pub backend: BackendKind,
    /// The page size of a page store.
    pub page_size: u32,
    /// How much survives a power failure.
    pub synchronous: Synchronous,
    /// Whether commits share their syncs.
    pub group_commit: bool,
    /// Whether POSIX locks of the process are used.
    pub classic_locks: bool,
    /// Whether pages are copied instead of mapped.
    pub pread: bool,
    /// After how many frames a commit tries a checkpoint; 0 for never.
    pub auto_checkpoint: u32,
    /// Whether the side file is used.
    pub side_file: bool,
    /// How long the locks of readers read_lock_delay.
    pub read_lock_delay: Duration,
    /// How long a writer waits for others.
    pub busy_timeout: Duration,
    /// How long a checkpoint waits for others.
    pub checkpoint_patience: Duration,
}

/// Which coordination a worker uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendKind {
    /// Shared between processes.
    Shm,
    /// Owned by one process.
    InProcess,
}

/// [`wal::Synchronous`], as it goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Synchronous {
    /// Nothing is synced.
    Off,
    /// Checkpoints are synced.
    Normal,
    /// Commits are synced too.
    Full,
}

/// [`wal::CheckpointMode`], as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checkpoint {
    /// Waits for nobody.
    Passive,
    /// Waits for readers of older states.
    Full,
    /// Waits until nobody reads the log.
    Restart,
    /// Cuts the log to nothing.
    Truncate,
}

impl From<Checkpoint> for wal::CheckpointMode {
    fn from(mode: Checkpoint) -> Self {
        match mode {
            Checkpoint::Passive => Self::Passive,
            Checkpoint::Full => Self::Full,
            Checkpoint::Restart => Self::Restart,
            Checkpoint::Truncate => Self::Truncate,
        }
    }
}

impl Settings {
    /// The library's defaults, but without automatic checkpoints and without
    /// locks that read_lock_delay, so that every step of a test is its own.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Settings {
            path: path.to_owned(),
            backend: BackendKind::Shm,
            page_size: PageSize::DEFAULT.bytes(),
            synchronous: Synchronous::Full,
            group_commit: false,
            classic_locks: false,
            pread: false,
            auto_checkpoint: 0,
            side_file: true,
            read_lock_delay: Duration::ZERO,
            busy_timeout: Duration::from_secs(20),
            checkpoint_patience: Duration::from_millis(100),
        }
    }

    /// The same as the library's own options.
    ///
    /// # Errors
    ///
    /// When the page size is none.
    pub fn options(&self) -> Result<Options> {
        let synchronous = match self.synchronous {
            Synchronous::Off => wal::Synchronous::Off,
            Synchronous::Normal => wal::Synchronous::Normal,
            Synchronous::Full => wal::Synchronous::Full,
        };
        let mut options = Options::new()
            .kind(kind_at(&self.path))
            .page_size(PageSize::new(self.page_size)?)
            .synchronous(synchronous)
            .group_commit(self.group_commit)
            .busy_timeout(self.busy_timeout)
            .auto_checkpoint(self.auto_checkpoint)
            .side_file(self.side_file)
            .read_lock_delay(self.read_lock_delay);
        if self.classic_locks {
            options = options.lock_kind(LockKind::Classic);
        }
        if self.pread {
            options = options.read_strategy(ReadStrategy::Pread);
        }
        Ok(options)
    }
}

/// What a read transaction sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The generation of the log.
    pub salts: [u8; 8],
    /// The last frame of the log that belongs to it.
    pub max_frame: u32,
    /// The size of the database in pages.
    pub page_count: u32,
    /// Whether the log is bypassed.
    pub bypasses_log: bool,
    /// The number of the read slot, if it is not a writer.
    pub slot: Option<usize>,
}

/// A lock that somebody holds on a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldByte {
    /// By any number of holders.
    Shared,
    /// By one.
    Exclusive,
}

/// Why a worker did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Of which kind the error was.
    pub kind: RefusalKind,
    /// Its message.
    pub message: String,
}

/// The kinds of errors that tests tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// [`wal::Error::Busy`].
    Busy,
    /// [`wal::Error::Locked`].
    Locked,
    /// [`wal::Error::UsedAfterFork`].
    UsedAfterFork,
    /// [`wal::Error::CommitOutcomeUnknown`].
    OutcomeUnknown,
    /// [`wal::Error::DurabilityUnknown`].
    DurabilityUnknown,
    /// Any other.
    Other,
}

impl Refusal {
    pub(super) fn of(error: &anyhow::Error) -> Self {
        let kind = match error.downcast_ref::<wal::Error>() {
            Some(wal::Error::Busy { .. }) => RefusalKind::Busy,
            Some(wal::Error::Locked { .. }) => RefusalKind::Locked,
            Some(wal::Error::UsedAfterFork) => RefusalKind::UsedAfterFork,
            Some(wal::Error::CommitOutcomeUnknown { .. }) => RefusalKind::OutcomeUnknown,
            Some(wal::Error::DurabilityUnknown { .. }) => RefusalKind::DurabilityUnknown,
            _ => RefusalKind::Other,
        };
        Refusal {
            kind,
            message: format!("{error:#}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Refusal {}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The command was carried out.
    Ok(serde_json::Value),
    /// It was not.
    Error(Refusal),
    /// It is not over: the process stopped at a point.
    Stopped { point: String, pass: u32 },
}
