//! Several processes share one database file: many snapshot readers, one
//! writer, and checkpoints, over a write-ahead log that is SQLite's own.
//!
//! ```
//! # fn main() -> wal::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("app.db");
//! use wal::{CheckpointMode, Database};
//!
//! let db = Database::open_pages(&path)?; // creates it if there is no file
//! let mut write = db.begin_write()?; // one writer at a time, over all processes
//! let page = write.allocate()?;
//! write.page_mut(page)?[0] = 7;
//! write.commit()?; // durable and visible to every process
//! assert_eq!(db.begin_read()?.page(page)?[0], 7);
//! db.checkpoint(CheckpointMode::Passive)?; // from the log into the database file
//! # db.close()
//! # }
//! ```
//!
//! # Which backend
//! - Feature `shm` (default): `wal::shm::Database`. Processes share the database,
//!   stock SQLite's among them.
//! - Feature `inproc`: `wal::inproc::Database`. One process owns it; others are
//!   told that it is locked. Coordination is a few atomics.
//!
//! With both, they stand side by side and [`Database`] is the shared one.
//!
//! # What a file is
//! - A *SQLite database* in WAL mode: stock SQLite creates it and can use it at the same
//!   time. Its page size comes from page 1.
//! - A *page store*: pages of the application's own. [`Database::open_pages`] creates it. It
//!   begins with a header of [`PAGE_STORE_HEADER_LEN`] bytes, by which it is recognised and
//!   which holds its page size.
//!
//! [`Database::open`] opens either, and refuses every other file: an empty one, too, which may
//! be a SQLite database that another program is just creating. [`Options::kind`] says which
//! one is meant. A commit that would change what the file is, by page 1, is refused.
//!
//! # What a new store contains
//! One page, of the page size of [`Options`]. Its first [`PAGE_STORE_HEADER_LEN`] bytes
//! belong to the library; the rest is zeros, and the application's. [`WriteTx::allocate`]
//! adds pages of zeros at the end. The library keeps no list of free pages and no root:
//! `examples/kv.rs` shows both, in page 1 behind the header, with a B+ tree that several
//! processes use.
//!
//! # In a server
//! - *Threads* share one [`Database`]; clones are the same handle. Every call may block, for
//!   a disk or another process. Under an async runtime calls belong on its pool of blocking
//!   threads, as in `examples/async_server.rs`.
//! - *Writing*: [`Database::write`](generic::Database::write) runs a closure in a
//!   transaction on one thread. A [`WriteTx`] that is kept while a program waits for
//!   something else keeps every writer of every process waiting.
//! - *Deadlines*: [`Database::begin_write_with`](generic::Database::begin_write_with) and
//!   [`Database::write_with`](generic::Database::write_with) wait as long as a request may
//!   last. [`Cancel`] ends a wait when the client has gone.
//! - *Errors*: after [`Error::is_busy`] the same call can succeed later; after
//!   [`Error::must_begin_again`] the work has to begin again on a new snapshot; after
//!   [`Error::CommitOutcomeUnknown`] only a look at the data tells.
//! - *Reading*: a [`ReadTx`] that is kept between requests keeps the log from being
//!   restarted. [`Options::snapshot_age_limit`] bounds that, [`Options::max_log_frames`] the
//!   log.
//! - *Changes* by any process end
//!   [`Database::wait_for_change`](generic::Database::wait_for_change);
//!   `examples/watch.rs` watches a database that Python writes.
//!
//! # Processes that are forked
//! Open the database in each worker, after the fork. What was opened before answers
//! [`Error::UsedAfterFork`] in a child, keeps its locks in the parent, and may be dropped
//! in either. A child that runs another program (`exec`) inherits nothing.
//!
//! # Processes that only read
//! With [`Options::read_only`] nothing is written, so a process that may write has to come
//! first: it makes the database and the `-shm` file. Without them the open is refused.
//! Start writers before readers, or let a writer leave the index in place with
//! [`Options::persistent_log`]. Once a reader is there writers may come and go, and it goes
//! on with each of them.

#[cfg(not(any(feature = "shm", feature = "inproc")))]
compile_error!("choose a backend: enable the feature `shm` (several processes) or `inproc` (one)");

mod backend;
mod backup;
mod change;
mod checkpointer;
mod create;
mod database;
mod open;
mod options;
mod replication;
mod successor;
mod vacuum;
mod writing;

pub use backend::{Attachment, Backend};
pub use options::{Options, ReadStrategy};
pub use vacuum::{VacuumOptions, VacuumReport};
#[cfg(feature = "observe")]
pub use wal_core::protocol::Counters;
pub use wal_core::protocol::{
    BackfillProof, BackupProgress, BusyHandler, Cancel, CheckpointMode, CheckpointOptions,
    CheckpointProgress, CheckpointReport, DatabaseKind, DrainOptions, Drained, HeldBack, NewPages,
    OldPages, PageRef, Pages, RawFrame, SavedSnapshot, Savepoint, Snapshot, Synchronous,
    TailFrames, TailPosition,
};
pub use wal_core::storage::LockKind;
pub use wal_core::{Error, FrameNo, Lock, PageNo, PageSize, ReadSlot, Result, Salts};

/// How many bytes at the beginning of page 1 of a page store are its header, which no commit
/// may change.
pub const PAGE_STORE_HEADER_LEN: usize = wal_core::format::PageStoreHeader::LEN;

/// Databases that several processes share.
#[cfg(feature = "shm")]
pub mod shm {
    use wal_shm::ShmWalCoordination;

    /// A database that several processes share.
    pub type Database = crate::database::Database<ShmWalCoordination>;
    /// A read transaction of a [`Database`].
    pub type ReadTx = wal_core::protocol::ReadTx<ShmWalCoordination>;
    /// A write transaction of a [`Database`].
    pub type WriteTx = wal_core::protocol::WriteTx<ShmWalCoordination>;
    /// Follows the log of a [`Database`].
    pub type Tail = wal_core::protocol::Tail<ShmWalCoordination>;
    /// Adds the frames of another log to that of a [`Database`].
    pub type ApplyTx = wal_core::protocol::ApplyTx<ShmWalCoordination>;
    /// A snapshot of a [`Database`] that is held for a while.
    pub type HeldSnapshot = wal_core::protocol::HeldSnapshot<ShmWalCoordination>;
}

/// Databases that one process owns.
#[cfg(feature = "inproc")]
pub mod inproc {
    use wal_inproc::InProcessWalCoordination;

    /// A database that one process owns.
    pub type Database = crate::database::Database<InProcessWalCoordination>;
    /// A read transaction of a [`Database`].
    pub type ReadTx = wal_core::protocol::ReadTx<InProcessWalCoordination>;
    /// A write transaction of a [`Database`].
    pub type WriteTx = wal_core::protocol::WriteTx<InProcessWalCoordination>;
    /// Follows the log of a [`Database`].
    pub type Tail = wal_core::protocol::Tail<InProcessWalCoordination>;
    /// Adds the frames of another log to that of a [`Database`].
    pub type ApplyTx = wal_core::protocol::ApplyTx<InProcessWalCoordination>;
    /// A snapshot of a [`Database`] that is held for a while.
    pub type HeldSnapshot = wal_core::protocol::HeldSnapshot<InProcessWalCoordination>;
}

/// The types of whichever backend is asked for, to be named generically.
pub mod generic {
    pub use crate::database::Database;
    pub use wal_core::protocol::{
        ApplyTx, HeldSnapshot, ReadTx, ResumedTail, Tail, UpgradeRefused, WriteTx,
    };
}

#[cfg(all(feature = "inproc", not(feature = "shm")))]
pub use inproc::ApplyTx;
#[cfg(all(feature = "inproc", not(feature = "shm")))]
pub use inproc::Database;
#[cfg(all(feature = "inproc", not(feature = "shm")))]
pub use inproc::HeldSnapshot;
#[cfg(all(feature = "inproc", not(feature = "shm")))]
pub use inproc::ReadTx;
#[cfg(all(feature = "inproc", not(feature = "shm")))]
pub use inproc::Tail;
#[cfg(all(feature = "inproc", not(feature = "shm")))]
pub use inproc::WriteTx;
#[cfg(feature = "shm")]
pub use shm::ApplyTx;
#[cfg(feature = "shm")]
pub use shm::Database;
#[cfg(feature = "shm")]
pub use shm::HeldSnapshot;
#[cfg(feature = "shm")]
pub use shm::ReadTx;
#[cfg(feature = "shm")]
pub use shm::Tail;
#[cfg(feature = "shm")]
pub use shm::WriteTx;
