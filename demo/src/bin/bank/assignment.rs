//! The assignment of each process of a run.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What each account begins with.
pub(crate) const STARTING_BALANCE: i64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum SynchronousName {
    /// Sync the log at each commit
    Full,
    /// The same, with one sync for the commits of many of ours
    Group,
    /// Sync the log when it is checkpointed
    Normal,
}

/// The part of an assignment that is the same for every process of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) path: PathBuf,
    /// Whether processes over stock SQLite have the extension `wal-queue`.
    pub(crate) stock_queues: bool,
    pub(crate) accounts: u32,
    pub(crate) writers: u32,
    pub(crate) seed: u64,
    pub(crate) synchronous: SynchronousName,
    pub(crate) log_limit: u32,
    pub(crate) patience: Duration,
}

impl Setup {
    /// The sum of all balances, at any time.
    pub(crate) fn total(&self) -> i64 {
        STARTING_BALANCE * i64::from(self.accounts)
    }

    /// How long one attempt may wait for others: less than what is taken for
    /// hanging.
    pub(crate) fn busy_timeout(&self) -> Duration {
        self.patience / 4
    }

    pub(crate) fn options(&self) -> wal::Options {
        wal::Options::new()
            .create(false)
            .busy_timeout(self.busy_timeout())
            .synchronous(match self.synchronous {
                SynchronousName::Full | SynchronousName::Group => wal::Synchronous::Full,
                SynchronousName::Normal => wal::Synchronous::Normal,
            })
            .group_commit(self.synchronous == SynchronousName::Group)
    }
}

/// What a process does all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Moves money.
    Writer,
    /// Checks snapshots.
    Reader,
    /// Moves pages from the log into the database file.
    Checkpointer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Writer => "writer",
            Role::Reader => "reader",
            Role::Checkpointer => "checkpointer",
        })
    }
}

/// What a process reaches the bank through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// This library.
    Ours,
    /// Stock SQLite. The process is a genuine peer: nothing in it touches the
    /// bank through this library, which with the extension `wal-queue` orders
    /// its writers only.
    Stock,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Ours => f.write_str("this library"),
            Engine::Stock => write!(f, "stock SQLite {}", rusqlite::version()),
        }
    }
}

/// The assignment of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) setup: Setup,
    pub(crate) role: Role,
    pub(crate) engine: Engine,
    /// Which of its role it is, counted from 0, whatever the engine; a writer's
    /// journal row.
    pub(crate) number: u32,
}
