//! What the roles do to a bank, whoever does the work beneath.

use std::time::Instant;

use anyhow::Result;
use demo::bank::Journal;

use crate::wire::{LogState, Transfer};

/// A bank that is open. An error for which [`is_busy`] holds can be tried
/// again and has changed nothing.
pub(crate) trait Access {
    /// What one snapshot holds.
    fn audit(&mut self) -> Result<Audit>;

    /// Makes a transfer and enters it in a worker's journal row, in one
    /// transaction. `before` is what the row must hold until then.
    fn transfer(&mut self, worker: u32, transfer: Transfer, before: Journal) -> Result<Committed>;

    /// Moves committed pages from the log into the database file.
    fn checkpoint(&mut self) -> Result<LogState>;

    /// The log, if it can be told.
    fn log(&mut self) -> Result<Option<LogState>>;

    /// Closes the bank; the last one of all removes the log.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What one snapshot holds.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    /// The sum of all balances.
    pub(crate) total: i64,
    /// The journal; the worker is the index.
    pub(crate) journal: Vec<Journal>,
    pub(crate) log: Option<LogState>,
}

impl Audit {
    /// The transfers of all workers.
    pub(crate) fn transfers(&self) -> i64 {
        self.journal.iter().map(|row| row.transfers).sum()
    }
}

/// A transfer that was committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    /// The worker's journal row after it.
    pub(crate) journal: Journal,
    /// When it had become the one writer.
    pub(crate) began: Instant,
}

/// True if the same call can succeed once others have moved on.
pub(crate) fn is_busy(error: &anyhow::Error) -> bool {
    let ours = error.downcast_ref::<wal::Error>();
    let stock = error
        .downcast_ref::<rusqlite::Error>()
        .and_then(rusqlite::Error::sqlite_error_code);
    ours.is_some_and(wal::Error::is_busy) || stock == Some(rusqlite::ErrorCode::DatabaseBusy)
}
