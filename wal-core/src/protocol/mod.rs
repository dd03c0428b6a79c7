//! The operations of the log, written once for every coordination.
//!
//! | folder or file | what it does |
//! |---|---|
//! | `locking` | how a lock is acquired, waited for, kept and released |
//! | `read` | read transactions and snapshots |
//! | `checkpoint` | moves frames to the database file, and restarts the log |
//! | `durability` | syncs that several commits share, and what follows one that failed |
//! | `write` | write transactions |
//! | `engine` | write transactions of an engine that keeps its pages itself |
//! | `replication` | tails of the log, replicas, backups |
//! | `vacuum` | rewrites the whole database, and shuts out everybody if asked to |
//! | `recovery` | rebuilds the wal-index from the log |
//! | `foreign_log` | reports a log that cannot follow from the database file |
//! | `open` | what a file is |
//! | `config` | what an attachment is told when it is made |
//! | `tuning` | what is told to an attachment while it is in use |
//! | `observe` | counts and tells what happens, if that is compiled in |
//! | `debug` | what `{:?}` prints of all these |

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
mod locking;
#[cfg(feature = "observe")]
mod observe;
mod open;
mod read;
mod recovery;
mod replication;
mod tuning;
mod vacuum;
mod write;

use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::fork::ProcessGeneration;
use crate::index::{ChainEnds, CheckpointInfo, HeaderCell, IndexBlock, WritableBlock};
use crate::storage::{File, FileSyncType, Storage};
use crate::testing::rule;
use crate::types::{Lock, LockMode};

pub use checkpoint::modes::{
    CheckpointMode, CheckpointOptions, CheckpointProgress, CheckpointReport, HeldBack,
};
pub use checkpoint::proof::BackfillProof;
pub use config::{CACHE_SPILL, Synchronous, WalAutoActions, WalConfig};
pub use engine::frames_mark::FramesMark;
pub use locking::busy::{BusyHandler, Cancel};
pub use locking::delayed_release::serves_newest;
pub use locking::guard::LockGuard;
#[cfg(feature = "observe")]
pub use observe::Counters;
pub use open::{
    DatabaseKind, Expected, create_pages, first_page, inspect, inspect_immutable, is_unmade,
    refuse_leftovers,
};
pub use read::begin::{ReadTx, Snapshot};
pub use read::hold::HeldSnapshot;
pub use read::page::PageRef;
pub use read::pages::Pages;
pub use read::saved_snapshot::SavedSnapshot;
pub use replication::apply::ApplyTx;
pub use replication::backup::BackupProgress;
pub use replication::drain::{DrainOptions, Drained};
pub use replication::tail::{RawFrame, ResumedTail, Tail, TailFrames, TailPosition};
pub use vacuum::{NewPages, OldPages, VacuumLockGuard, VacuumTx};
pub use write::dirty_pages::Savepoint;
pub use write::transaction::{UpgradeRefused, WriteTx};

/// Whoever opened a database, as far as its transactions have to do with it.
pub trait Opener: Send + Sync {
    /// [`WriteTx::commit`] or [`ApplyTx::commit`] has committed something, and holds no
    /// lock any more. What is done now is done for later ones, and its failure is not
    /// that of the commit. An engine's frames and an exclusive vacuum are not told of:
    /// who commits these sees to the log.
    fn committed(&self);
}

/// A handle on one attachment to a database, which all threads and transactions of
/// one opener share.
///
/// A transaction counts itself in at the handle by which it was begun, and threads
/// that begin many by one handle get in each other's way there. So there can be
/// [several](Wal::another), on cache lines of their own.
#[repr(align(128))]
pub struct Wal<C: WalCoordination> {
    attached: Arc<Attached<C>>,
    opener: Option<Arc<dyn Opener>>,
}

/// A panic at any step leaves what the death of the process would leave, which the next
/// user cleans up; what is in memory alone is behind mutexes whose holders leave it whole, or
/// poisons the attachment.
impl<C: WalCoordination> UnwindSafe for Attached<C> {}
impl<C: WalCoordination> RefUnwindSafe for Attached<C> {}
impl<C: WalCoordination> UnwindSafe for Wal<C> {}
impl<C: WalCoordination> RefUnwindSafe for Wal<C> {}

impl<C: WalCoordination> Deref for Wal<C> {
    type Target = Attached<C>;

    #[inline]
    fn deref(&self) -> &Attached<C> {
        &self.attached
    }
}

/// One attachment, whichever of its handles it is used by.
pub struct Attached<C: WalCoordination> {
    coordination: C,
    storage: Box<dyn Storage>,
    /// Whether pages are read from the mappings that the files have. Set by
    /// [`Wal::new_mapped`] alone.
    mapped: bool,
    config: WalConfig,
    tuning: tuning::Tuning,
    process: ProcessGeneration,
    /// The checkpoint sequence number for the next log header, as far as this
    /// attachment knows it.
    sequence: AtomicU32,
    /// Set for good by a sync that failed.
    poisoned: AtomicBool,
    closed: AtomicBool,
    /// The state of the log in which the length of the database file was last
    /// looked at.
    database_seen_in: AtomicU64,
    page_map: read::shared_map::SharedMap,
    chain_ends: ChainEnds,
    leading: durability::group_commit::Leading,
    /// Shared with the threads that began write transactions here.
    own_write: Arc<locking::own_write::OwnWrite>,
    relay: durability::pipelined_commit::Relay,
    tried_at: checkpoint::automatic::TriedAt,
    proof: checkpoint::proof::LastProof,
    #[cfg(feature = "observe")]
    observed: observe::Observed,
}

impl<C: WalCoordination> Wal<C> {
    /// Attaches to the database in `storage`, whose users meet in
    /// `coordination`. Nothing is read or written before the first
    /// transaction.
    ///
    /// Pages are copied from the files, so whatever `coordination` and `storage` do, and
    /// whoever writes the files, a page that was handed out stays as it is. For pages
    /// without a copy see [`Wal::new_mapped`].
    pub fn new(coordination: C, storage: Box<dyn Storage>, config: WalConfig) -> Arc<Self> {
        Self::attach(coordination, storage, config, false)
    }

    /// As [`Wal::new`], and pages are slices of the mappings that the files of `storage`
    /// have ([`File::mapped`]).
    ///
    /// ```compile_fail,E0133
    /// use wal_core::storage::Storage;
    /// use wal_core::protocol::{Wal, WalConfig};
    ///
    /// fn attach(c: impl wal_core::WalCoordination, storage: Box<dyn Storage>, config: WalConfig) {
    ///     Wal::new_mapped(c, storage, config);
    /// }
    /// ```
    ///
    /// # Safety
    /// A page is a `&[u8]`, so its bytes must not change while it is borrowed. As long as
    /// the attachment or anything of it lives, all of this holds:
    ///
    /// 1. *The locks are those of these files.* Whoever writes the two files of `storage`,
    ///    in this process or another, takes the locks that `coordination` gives, and keeps
    ///    the protocol: that of this crate, or of SQLite in WAL mode.
    /// 2. *They exclude.* `coordination` keeps rules 1, 3, 5, 6, 8, 11 and 12 of
    ///    [its contract](crate::coordination), and no lock that it has granted gets lost
    ///    before it is released: not by a `close` elsewhere in this process, as classic
    ///    POSIX locks are, and not where the file system cannot be trusted with locks.
    /// 3. *The mappings are those of these files.* At each call `storage` gives the same
    ///    two files, and [`File::mapped`] of each gives a mapping of that very file.
    /// 4. *Nothing else changes them.* No program writes or cuts a file without the
    ///    locks, through [`File`] or by its name; and what was read of a file is what is
    ///    read of it later, which a network file system or a failing disk may not keep.
    ///
    /// In a child made by `fork`, which is unsafe itself, no page of the parent is used.
    #[allow(unsafe_code)] // An attachment that reads from mappings is made by a promise.
    pub unsafe fn new_mapped(
        coordination: C,
        storage: Box<dyn Storage>,
        config: WalConfig,
    ) -> Arc<Self> {
        Self::attach(coordination, storage, config, true)
    }

    fn attach(
        coordination: C,
        storage: Box<dyn Storage>,
        config: WalConfig,
        mapped: bool,
    ) -> Arc<Self> {
        let own_write = locking::own_write::OwnWrite::none(storage.database().path().to_owned());
        let attached = Attached {
            coordination,
            storage,
            mapped,
            tuning: tuning::Tuning::of(&config),
            config,
            process: ProcessGeneration::current(),
            sequence: AtomicU32::new(0),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            database_seen_in: AtomicU64::new(0),
            page_map: read::shared_map::SharedMap::default(),
            chain_ends: ChainEnds::default(),
            leading: durability::group_commit::Leading::default(),
            own_write,
            relay: durability::pipelined_commit::Relay::default(),
            tried_at: checkpoint::automatic::TriedAt::default(),
            proof: checkpoint::proof::LastProof::none(),
            #[cfg(feature = "observe")]
            observed: observe::Observed::default(),
        };
        Arc::new(Wal {
            attached: Arc::new(attached),
            opener: None,
        })
    }

    /// Another handle on this attachment, for the transactions of `opener`. It is told
    /// of their commits, and is not dropped before all of them are.
    pub fn another(&self, opener: Arc<dyn Opener>) -> Arc<Self> {
        Arc::new(Wal {
            attached: self.attached.clone(),
            opener: Some(opener),
        })
    }

    /// Called when a commit has given back all it held.
    fn tell_opener(&self) {
        if let Some(opener) = &self.opener {
            opener.committed();
        }
    }

    /// The coordination of this attachment.
    pub fn coordination(&self) -> &C {
        &self.coordination
    }

    /// What the attachment was told about its database when it was made.
    pub fn config(&self) -> &WalConfig {
        &self.config
    }

    /// The path of the database.
    pub fn path(&self) -> &Path {
        self.storage.database().path()
    }

    /// Refuses in a forked child.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`].
    pub fn check_process(&self) -> Result<()> {
        if self.process.is_over() {
            Err(Error::UsedAfterFork)
        } else {
            Ok(())
        }
    }

    /// Refuses to write if the database is to be read only, after a failed
    /// sync, or to files that were replaced.
    fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if self.config.read_only {
            return Err(Error::ReadOnly {
                path: self.path().to_owned(),
            });
        }
        if self.is_poisoned() {
            return Err(Error::Poisoned {
                path: self.path().to_owned(),
            });
        }
        self.storage.check_in_place()
    }

    /// Syncs the log. A failure poisons this attachment: the kernel may have
    /// dropped the pages that it could not write, so a second sync would lie.
    fn sync_log(&self) -> Result<()> {
        let synced = self.sync(self.storage.log());
        if synced.is_err() {
            self.tell_failed_log_sync();
        }
        synced
    }

    /// Syncs the database file, as [`Wal::sync_log`]. The caller holds CKPT, or owns
    /// the database.
    ///
    /// After a failure no frame counts as backfilled: the pages of an earlier, partial
    /// backfill, which was not synced, may be lost with those of this one. So the next
    /// checkpointer writes all of them again. A count that is too low is always safe.
    fn sync_database(&self) -> Result<()> {
        let synced = self.sync(self.storage.database());
        if synced.is_err()
            && let Ok(block_zero) = self.writable_block_zero()
        {
            block_zero.set_backfilled(0);
        }
        synced
    }

    /// As [`Wal::sync_database`], without CKPT. A checkpointer that holds it syncs the
    /// file itself, by a descriptor that hears of the failure too.
    fn sync_database_beside_checkpoints(self: &Arc<Self>) -> Result<()> {
        let synced = self.sync(self.storage.database());
        if synced.is_err()
            && let Ok(Some(_checkpoint)) = self.try_lock(Lock::Checkpoint, LockMode::Exclusive)
            && let Ok(block_zero) = self.writable_block_zero()
        {
            block_zero.set_backfilled(0);
        }
        synced
    }

    fn sync(&self, file: &dyn File) -> Result<()> {
        let synced = file.sync(FileSyncType::Data);
        if synced.is_ok() {
            observe!(self, Synced { path: file.path() });
        } else {
            self.poison();
            observe!(self, SyncFailed { path: file.path() });
        }
        synced
    }

    /// True after a sync that failed: this attachment refuses to write.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    fn poison(&self) {
        rule!(FailedSyncPoisons, {
            self.poisoned.store(true, Ordering::Relaxed);
        });
    }

    #[inline]
    fn block_zero(&self) -> Result<Option<&IndexBlock>> {
        self.coordination.block(0)
    }

    /// Block 0, which is there once a header was loaded.
    #[inline]
    fn existing_block_zero(&self) -> Result<&IndexBlock> {
        crate::index::Blocks::existing(self, 0)
    }

    #[inline]
    fn header_cell(&self) -> Result<HeaderCell<'_>> {
        Ok(HeaderCell::of(self.existing_block_zero()?))
    }

    /// Block 0, which is there once a header was loaded, to be stored to.
    fn writable_block_zero(&self) -> Result<&WritableBlock> {
        self.coordination.grow(0)
    }

    #[inline]
    fn checkpoint_info(&self) -> Result<CheckpointInfo<'_>> {
        Ok(CheckpointInfo::of(self.existing_block_zero()?))
    }
}

impl<C: WalCoordination> crate::index::Blocks for Wal<C> {
    #[inline]
    fn existing(&self, index: u32) -> Result<&IndexBlock> {
        self.coordination.block(index)?.ok_or_else(|| {
            crate::index::Blocks::corrupt(self, "the wal-index is shorter than its header says")
        })
    }

    #[inline]
    fn writable(&self, index: u32) -> Result<&WritableBlock> {
        self.coordination.grow(index)
    }

    fn chain_ends(&self) -> &ChainEnds {
        &self.chain_ends
    }

    #[cold]
    fn corrupt(&self, reason: &str) -> Error {
        Error::corrupt(self.path(), reason)
    }
}
