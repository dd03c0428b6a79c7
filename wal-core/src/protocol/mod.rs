//! The operations of the log, written once for every coordination.
//!
//! Each row imports from rows above it:
//!
//! | folder or file | what it does |
//! |---|---|
//! | `config` | what an attachment is configured with, when it is made and while it is in use |
//! | `observe` | counts and reports what happens, if that is compiled in |
//! | `handle` | the handle on an attachment, and what the users of one attachment share |
//! | `free_space` | refuses what the file system has no room for |
//! | `locking` | how a lock is acquired, waited for, kept and released |
//! | `read` | read transactions and snapshots |
//! | `checkpoint` | moves frames to the database file, and restarts the log |
//! | `durability` | syncs that several commits share, and what follows one that failed |
//! | `write` | write transactions |
//! | `recovery`, `foreign_log` | rebuilds the wal-index from the log; reports a log of another database |
//! | `open` | what a file is |
//! | `engine` | write transactions of an engine that keeps its pages itself |
//! | `vacuum` | rewrites the whole database, and shuts out everybody if asked to |
//! | `replication` | tails of the log, replicas, backups |
//! | `debug` | what `{:?}` prints of all these |
//!
//! There are five exceptions. `handle` holds the states of `locking`, `read`, `checkpoint` and
//! `durability`, each a struct to whose fields only its own folder has access. And a writer in
//! the queue (`locking::queued_write`) may inherit `WRITE` together with a commit that `durability` has
//! not published.
//!
//! Methods of [`Wal`] are what several parts need of the attachment, and a call of one is no
//! import: a reader that finds no valid index calls recovery, and a guard of `WRITE` that is
//! dropped may leave the lock to a pipelined commit. What one file needs is a function there.

/// Counts and tells what happened, if the feature `observe` is on; else the
/// figures are not even computed.
macro_rules! observe {
    ($wal:expr, $($happened:tt)*) => {{
        #[cfg(feature = "observe")]
        $wal.observe(&crate::protocol::observe::Happened::$($happened)*);
    }};
}

mod checkpoint;
mod config;
mod debug;
mod durability;
mod engine;
mod foreign_log;
mod free_space;
mod handle;
mod locking;
#[cfg(feature = "observe")]
mod observe;
mod open;
mod read;
mod recovery;
mod replication;
mod vacuum;
mod write;

pub use checkpoint::backfill_proof::BackfillProof;
pub use checkpoint::options::{
    CheckpointMode, CheckpointOptions, CheckpointProgress, CheckpointReport, HeldBack,
};
pub use config::{CACHE_SPILL, DatabaseKind, Synchronous, Tuning, WalAutoActions, WalConfig};
pub use durability::{GroupMember, record_failed_sync, wait_until_synced};
pub use foreign_log::why_log_does_not_follow;
pub use handle::{Opener, Wal};
pub use locking::busy::{BusyHandler, Cancel};
pub use locking::guard::LockGuard;
pub use locking::queued_try::QueuedTry;
#[cfg(feature = "observe")]
pub use observe::Counters;
pub use open::{
    Expected, create_pages, first_page, inspect, inspect_immutable, is_unmade, refuse_leftovers,
};
pub use read::begin::ReadTx;
pub use read::hold::HeldSnapshot;
pub use read::page_ref::PageRef;
pub use read::pages::Pages;
pub use read::snapshot::{SavedSnapshot, Snapshot};
pub use replication::apply::ApplyTx;
pub use replication::backup::BackupProgress;
pub use replication::drain::{DrainOptions, Drained};
pub use replication::tail::{RawFrame, ResumedTail, Tail, TailFrames, TailPosition};
pub use vacuum::{NewPages, OldPages, VacuumCheckpointLock, VacuumLockGuard, VacuumTx};
pub use write::dirty_pages::Savepoint;
pub use write::frames_mark::FramesMark;
pub use write::write_tx::{UpgradeRefused, WriteTx};
