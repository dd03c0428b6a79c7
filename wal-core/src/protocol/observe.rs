//! Counts what happens, and tells it to whoever subscribed to `tracing`: only
//! with the feature `observe`, without which nothing of this is compiled.
//!
//! A subscriber is called in the middle of an operation, which may hold locks: it must not
//! use the database.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
use crate::types::{Lock, Salts};

/// What happened to an attachment.
#[derive(Debug)]
pub(super) enum Happened<'a> {
    ReadBegan {
        max_frame: u32,
    },
    Committed {
        frames: u32,
        log_frames: u32,
    },
    Spilled {
        frames: u32,
    },
    Checkpointed {
        mode: &'a dyn Debug,
        report: &'a dyn Debug,
        is_held_back: bool,
    },
    LogRestarted {
        salts: Salts,
    },
    Recovered {
        frames: u32,
    },
    Synced {
        path: &'a Path,
    },
    SyncFailed {
        path: &'a Path,
    },
    Waited {
        lock: Lock,
        waited: Duration,
        in_vain: bool,
    },
    SnapshotTooOld,
    LogFull {
        frames: u32,
        lock: Lock,
    },
    ForeignLog {
        reason: &'static str,
    },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What has happened to one attachment since it was opened.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters, as threads change them.
        #[derive(Debug, Default)]
        pub(super) struct Observed {
            $($name: AtomicU64,)*
        }

        impl Observed {
            pub(super) fn load(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Read transactions that were begun by themselves.
    reads_begun,
    /// Transactions that were committed with changes.
    commits,
    /// Frames that were committed.
    frames_committed,
    /// Frames that were written before their commit, to free memory.
    frames_spilled,
    /// Checkpoints that ran.
    checkpoints,
    /// Of those, the ones that somebody held back.
    checkpoints_held_back,
    /// How often the log was begun anew.
    log_restarts,
    /// How often the wal-index was rebuilt from the log.
    recoveries,
    /// Syncs of the log or the database file.
    syncs,
    /// Syncs that failed; from the first one on nothing more is written.
    failed_syncs,
    /// How often a lock was waited for.
    waits,
    /// Of those, how often in vain.
    waits_in_vain,
    /// Nanoseconds that were waited for locks.
    waited_ns,
    /// Read transactions that were refused a page because of their age.
    snapshots_too_old,
    /// Write transactions that were refused because the log was too long.
    log_full,
    /// Logs that could not follow from the database file, refused or not.
    foreign_logs,
}

impl Observed {
    /// Counts what happened to the attachment of `database`, and tells the subscriber.
    pub(super) fn observe(&self, database: &Path, happened: &Happened<'_>) {
        self.count(happened);
        tell(database, happened);
    }

    fn count(&self, happened: &Happened<'_>) {
        let add = |counter: &AtomicU64, count: u64| {
            counter.fetch_add(count, Ordering::Relaxed);
        };
        match happened {
            Happened::ReadBegan { .. } => add(&self.reads_begun, 1),
            Happened::Committed { frames, .. } => {
                add(&self.commits, 1);
                add(&self.frames_committed, u64::from(*frames));
            }
            Happened::Spilled { frames } => add(&self.frames_spilled, u64::from(*frames)),
            Happened::Checkpointed { is_held_back, .. } => {
                add(&self.checkpoints, 1);
                add(&self.checkpoints_held_back, u64::from(*is_held_back));
            }
            Happened::LogRestarted { .. } => add(&self.log_restarts, 1),
            Happened::Recovered { .. } => add(&self.recoveries, 1),
            Happened::Synced { .. } => add(&self.syncs, 1),
            Happened::SyncFailed { .. } => add(&self.failed_syncs, 1),
            Happened::Waited {
                waited, in_vain, ..
            } => {
                add(&self.waits, 1);
                add(&self.waits_in_vain, u64::from(*in_vain));
                let nanoseconds = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
                add(&self.waited_ns, nanoseconds);
            }
            Happened::SnapshotTooOld => add(&self.snapshots_too_old, 1),
            Happened::LogFull { .. } => add(&self.log_full, 1),
            Happened::ForeignLog { .. } => add(&self.foreign_logs, 1),
        }
    }
}

/// One event each, with the target `wal`, the database and the figures.
fn tell(database: &Path, happened: &Happened<'_>) {
    macro_rules! event {
        ($level:ident, $message:literal $(, $field:ident)*) => {
            tracing::event!(
                target: "wal",
                tracing::Level::$level,
                database = %database.display(),
                $($field = ?$field,)*
                $message
            )
        };
    }
    match happened {
        Happened::ReadBegan { max_frame } => event!(TRACE, "read begun", max_frame),
        Happened::Committed { frames, log_frames } => {
            event!(DEBUG, "committed", frames, log_frames);
        }
        Happened::Spilled { frames } => event!(DEBUG, "spilled", frames),
        Happened::Checkpointed { mode, report, .. } => event!(DEBUG, "checkpointed", mode, report),
        Happened::LogRestarted { salts } => event!(DEBUG, "log begun anew", salts),
        Happened::Recovered { frames } => event!(INFO, "index rebuilt from the log", frames),
        Happened::Synced { path } => event!(TRACE, "synced", path),
        Happened::SyncFailed { path } => {
            event!(ERROR, "a sync failed; nothing more is written", path)
        }
        Happened::Waited {
            lock,
            waited,
            in_vain,
        } => event!(DEBUG, "waited for a lock", lock, waited, in_vain),
        Happened::SnapshotTooOld => event!(WARN, "a read transaction is too old"),
        Happened::LogFull { frames, lock } => event!(WARN, "the log is full", frames, lock),
        Happened::ForeignLog { reason } => {
            event!(WARN, "the log cannot follow from the database", reason);
        }
    }
}
