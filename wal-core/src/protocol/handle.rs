//! The handle on an attachment: what its users share, and how each part of the protocol
//! reaches its own state in it.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::fork::ProcessGeneration;
use crate::index::{ChainEnds, CheckpointInfo, HeaderCell, IndexBlock, WritableBlock};
use crate::protocol::checkpoint::state::CheckpointState;
use crate::protocol::config::{Tuning, WalConfig};
use crate::protocol::durability::state::DurabilityState;
use crate::protocol::locking::write_note::OwnWrite;
#[cfg(feature = "observe")]
use crate::protocol::observe::{Counters, Happened, Observed};
use crate::protocol::read::state::ReadState;
use crate::storage::Storage;

/// Whoever opened a database, as far as its transactions have to do with it.
pub trait Opener: Send + Sync {
    /// Called after [`WriteTx::commit`](crate::protocol::WriteTx::commit) or
    /// [`ApplyTx::commit`](crate::protocol::ApplyTx::commit) has committed something and
    /// released its locks. A failure of what is done here is not one of that commit.
    ///
    /// It is not called for an engine's frames and for an exclusive vacuum: their committer
    /// keeps the log short.
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
    attachment: Arc<Attachment<C>>,
    opener: Option<Arc<dyn Opener>>,
}

/// A panic at any step leaves what the death of the process would leave, which the next
/// user cleans up; what is in memory alone is behind mutexes whose holders leave it whole, or
/// poisons the attachment.
impl<C: WalCoordination> UnwindSafe for Attachment<C> {}
impl<C: WalCoordination> RefUnwindSafe for Attachment<C> {}
impl<C: WalCoordination> UnwindSafe for Wal<C> {}
impl<C: WalCoordination> RefUnwindSafe for Wal<C> {}

/// One attachment, whichever of its handles it is used by.
struct Attachment<C: WalCoordination> {
    coordination: C,
    storage: Box<dyn Storage>,
    /// Whether pages are read from the mappings that the files have. Set by
    /// [`Wal::new_mapped`] alone.
    mapped: bool,
    config: WalConfig,
    tuning: Tuning,
    process: ProcessGeneration,
    read: ReadState,
    chain_ends: ChainEnds,
    /// Shared with the threads that began write transactions here.
    own_write: Arc<OwnWrite>,
    durability: DurabilityState,
    checkpoint: CheckpointState,
    #[cfg(feature = "observe")]
    observed: Observed,
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
    /// have ([`crate::storage::File::mapped`]).
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
    ///    two files, and [`crate::storage::File::mapped`] of each gives a mapping of that very file.
    /// 4. *Nothing else changes them.* No program writes or cuts a file without the
    ///    locks, through [`crate::storage::File`] or by its name; and what was read of a file is what is
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
        let own_write = OwnWrite::none(storage.database().path().to_owned());
        let attachment = Attachment {
            coordination,
            storage,
            mapped,
            tuning: Tuning::of(&config),
            config,
            process: ProcessGeneration::current(),
            read: ReadState::default(),
            chain_ends: ChainEnds::default(),
            own_write,
            durability: DurabilityState::default(),
            checkpoint: CheckpointState::new(),
            #[cfg(feature = "observe")]
            observed: Observed::default(),
        };
        Arc::new(Wal {
            attachment: Arc::new(attachment),
            opener: None,
        })
    }

    /// Another handle on this attachment, for the transactions of `opener`. It is told
    /// of their commits, and is not dropped before all of them are.
    pub fn another(&self, opener: Arc<dyn Opener>) -> Arc<Self> {
        Arc::new(Wal {
            attachment: self.attachment.clone(),
            opener: Some(opener),
        })
    }

    /// The files of the database and of its log.
    #[inline]
    pub(in crate::protocol) fn storage(&self) -> &dyn Storage {
        &*self.attachment.storage
    }

    /// Whether pages are read from the mappings that the files have.
    #[inline]
    pub(in crate::protocol) fn is_mapped(&self) -> bool {
        self.attachment.mapped
    }

    /// What can be set while the attachment is in use.
    #[inline]
    pub fn tuning(&self) -> &Tuning {
        &self.attachment.tuning
    }

    #[inline]
    pub(in crate::protocol) fn process(&self) -> &ProcessGeneration {
        &self.attachment.process
    }

    #[inline]
    pub(in crate::protocol) fn read_state(&self) -> &ReadState {
        &self.attachment.read
    }

    #[inline]
    pub(in crate::protocol) fn durability_state(&self) -> &DurabilityState {
        &self.attachment.durability
    }

    #[inline]
    pub(in crate::protocol) fn checkpoint_state(&self) -> &CheckpointState {
        &self.attachment.checkpoint
    }

    #[inline]
    pub(in crate::protocol) fn own_write(&self) -> &Arc<OwnWrite> {
        &self.attachment.own_write
    }

    /// What has happened to this attachment since it was opened. Other attachments have
    /// their own counters.
    #[cfg(feature = "observe")]
    pub fn counters(&self) -> Counters {
        self.attachment.observed.load()
    }

    #[cfg(feature = "observe")]
    pub(in crate::protocol) fn observe(&self, happened: &Happened<'_>) {
        self.attachment.observed.observe(self.path(), happened);
    }

    /// Called when a commit has given back all it held.
    pub(in crate::protocol) fn tell_opener(&self) {
        if let Some(opener) = &self.opener {
            opener.committed();
        }
    }

    /// The coordination of this attachment.
    pub fn coordination(&self) -> &C {
        &self.attachment.coordination
    }

    /// What the attachment was told about its database when it was made.
    pub fn config(&self) -> &WalConfig {
        &self.attachment.config
    }

    /// The path of the database.
    pub fn path(&self) -> &Path {
        self.attachment.storage.database().path()
    }

    /// Refuses in a forked child.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`].
    pub fn check_process(&self) -> Result<()> {
        if self.attachment.process.is_over() {
            Err(Error::UsedAfterFork)
        } else {
            Ok(())
        }
    }

    /// Refuses to write if the database is to be read only, after a failed
    /// sync, or to files that were replaced.
    pub(in crate::protocol) fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if self.attachment.config.read_only {
            return Err(Error::ReadOnly {
                path: self.path().to_owned(),
            });
        }
        if self.is_poisoned() {
            return Err(Error::Poisoned {
                path: self.path().to_owned(),
            });
        }
        self.attachment.storage.check_in_place()
    }

    #[inline]
    pub(in crate::protocol) fn block_zero(&self) -> Result<Option<&IndexBlock>> {
        self.attachment.coordination.block(0)
    }

    /// Block 0, which is there once a header was loaded.
    #[inline]
    pub(in crate::protocol) fn existing_block_zero(&self) -> Result<&IndexBlock> {
        crate::index::Blocks::existing(self, 0)
    }

    #[inline]
    pub(in crate::protocol) fn header_cell(&self) -> Result<HeaderCell<'_>> {
        Ok(HeaderCell::of(self.existing_block_zero()?))
    }

    /// Block 0, which is there once a header was loaded, to be stored to.
    pub(in crate::protocol) fn writable_block_zero(&self) -> Result<&WritableBlock> {
        self.attachment.coordination.grow(0)
    }

    #[inline]
    pub(in crate::protocol) fn checkpoint_info(&self) -> Result<CheckpointInfo<'_>> {
        Ok(CheckpointInfo::of(self.existing_block_zero()?))
    }
}

impl<C: WalCoordination> crate::index::Blocks for Wal<C> {
    #[inline]
    fn existing(&self, index: u32) -> Result<&IndexBlock> {
        self.attachment.coordination.block(index)?.ok_or_else(|| {
            crate::index::Blocks::corrupt(self, "the wal-index is shorter than its header says")
        })
    }

    #[inline]
    fn writable(&self, index: u32) -> Result<&WritableBlock> {
        self.attachment.coordination.grow(index)
    }

    fn chain_ends(&self) -> &ChainEnds {
        &self.attachment.chain_ends
    }

    #[cold]
    fn corrupt(&self, reason: &str) -> Error {
        Error::corrupt(self.path(), reason)
    }
}
