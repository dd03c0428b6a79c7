//! The lines between the supervisor and a process: each is one message in
//! JSON. Orders come on stdin, reports go to stdout.
//!
//! A line is shorter than what a pipe takes at once, so a process that is
//! killed has sent a line whole or not at all.

use std::time::Duration;

use demo::bank::Journal;
use serde::{Deserialize, Serialize};

/// What the supervisor tells a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Begin to work: everybody is there.
    Start,
    /// Close the bank and end. The end of the orders means the same.
    Stop,
}

/// What a process tells the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The bank is open, and this is its journal, as far as it has writers.
    Ready { journal: Vec<JournalLine> },
    /// A writer will commit this transfer next.
    Announce(Transfer),
    /// The commit of the announced transfer has returned.
    Acknowledge { transfers: i64 },
    /// A sign of life.
    Progress(Progress),
    /// A check failed, or the bank cannot be used; the process ends.
    Failed { reason: String },
    /// The bank was closed; the process ends.
    Finished,
}

/// A [`Journal`] row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalLine {
    transfers: i64,
    digest: i64,
}

impl From<Journal> for JournalLine {
    fn from(journal: Journal) -> Self {
        JournalLine {
            transfers: journal.transfers,
            digest: journal.digest,
        }
    }
}

impl From<JournalLine> for Journal {
    fn from(line: JournalLine) -> Self {
        Journal {
            transfers: line.transfers,
            digest: line.digest,
        }
    }
}

/// Money that goes from one account to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) amount: i64,
}

impl Transfer {
    /// A worker's transfer after `transfers` others: the same in each run with
    /// the same seed, however often the worker was started again.
    pub(crate) fn next(seed: u64, worker: u32, transfers: i64, accounts: u32) -> Self {
        let mut worker = fastrand::Rng::with_seed(seed ^ (u64::from(worker) << 32));
        let mut rng = fastrand::Rng::with_seed(worker.u64(..) ^ transfers.cast_unsigned());
        let from = rng.u32(0..accounts);
        let to = (from + rng.u32(1..accounts)) % accounts;
        Transfer {
            from,
            to,
            amount: rng.i64(1..=100),
        }
    }

    pub(crate) fn entered_in(self, journal: Journal) -> Journal {
        journal.after_transfer(self.from, self.to, self.amount)
    }
}

/// What a process has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Commits, snapshots or checkpoints, by role.
    pub(crate) done: u64,
    /// Time spent waiting for Write, in all.
    pub(crate) waited: Duration,
    /// The longest such wait.
    pub(crate) longest_wait: Duration,
    /// Waits for Write that were given up and begun again.
    pub(crate) refusals: u64,
    /// The log, as the process saw it last.
    pub(crate) log: Option<LogState>,
    /// The transfers of all writers that a reader saw last.
    pub(crate) transfers_seen: Option<i64>,
}

/// How long the log is, and how much of it is in the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogState {
    pub(crate) frames: u32,
    /// Not known to those who only read, unless it is all.
    pub(crate) backfilled: Option<u32>,
}

impl LogState {
    pub(crate) fn is_backfilled(self) -> bool {
        self.backfilled == Some(self.frames)
    }
}
