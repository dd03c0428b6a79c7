//! The order of a writer of the queue's table and its answer, as JSON: each language has a
//! writer of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a writer waits before it gives up.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a writer is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The database, with the table `t(id INTEGER PRIMARY KEY, n INTEGER, x BLOB)`.
    pub(crate) database: PathBuf,
    /// The library `wal-queue`, which is loaded before the database is opened.
    pub(crate) library: Option<PathBuf>,
    /// `PRAGMA synchronous`.
    pub(crate) synchronous: Synchronous,
    /// Whether commits share their syncs.
    pub(crate) group_commit: bool,
    /// How long a transaction sleeps before it commits, in milliseconds.
    pub(crate) pause_ms: u32,
    /// The busy timeout, in milliseconds.
    pub(crate) busy_timeout_ms: u32,
    /// For how long the writer commits.
    pub(crate) seconds: f64,
    /// The row whose `n` each commit increments.
    pub(crate) row: u32,
}

/// `PRAGMA synchronous`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Synchronous {
    /// A power loss may undo the last commits.
    Normal,
    /// Each commit is durable when it returns.
    Full,
}

impl Synchronous {
    /// The name in SQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        }
    }
}

/// What a writer answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How many transactions it committed.
    pub(crate) commits: u64,
    /// How often it gave up: "database is locked".
    pub(crate) locked: u64,
    /// How long it took in all.
    pub(crate) seconds: f64,
    /// How long each transaction waited to begin, in microseconds.
    pub(crate) waits_us: Vec<u32>,
}
