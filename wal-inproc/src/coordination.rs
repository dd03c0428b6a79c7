//! The coordination: blocks on the heap, locks in atomics.
//!
//! # Protocol
//! A process that opens a database this way takes EXCLUSIVE on the database
//! file before it looks at anything else, without waiting, and keeps it. Then
//! it makes sure that nobody is attached to a `-shm` file (an old SQLite could
//! be, with a shared lock it is about to take). An old `-shm` is ignored: the
//! index is rebuilt from the log.
//!
//! # Layout
//! One [`PackedLock`] per lock, each on a cache line of its own, and for a read
//! slot one per stripe of threads ([`SlotLock`]). The read mark of a slot is the
//! value in the slot's lock, so that taking a slot and checking its mark is one
//! compare-and-swap.
#![allow(unsafe_code)] // Giving a lock up is unsafe to call; nothing else is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use crossbeam_utils::CachePadded;
use wal_core::fork::ProcessGeneration;
use wal_core::index::{IndexBlock, MARK_NOT_USED, WritableBlock};
use wal_core::once_table::OnceTable;
use wal_core::storage::{
    ByteLocks, Claim, File, HeldPath, LockKind, OpenMode, OsFile, database_bytes,
    refuse_other_names, shm_bytes,
};
use wal_core::sync::AtomicU32;
use wal_core::wait::WaitState;
use wal_core::{Error, Lock, LockMode, ReadSlot, Result, WalCoordination};

use crate::packed_lock::PackedLock;
use crate::sleepers::Sleepers;
use crate::slot_lock::SlotLock;

/// Where the slots begin among the single locks.
const FIRST_SLOT: usize = Lock::Readers.span().0;

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct InProcessOptions {
    /// By which locks of the system the process owns the database file; open-file-description
    /// locks unless told otherwise.
    pub lock_kind: LockKind,
    /// Whether to open a database file that may have another name, beside which processes
    /// find another log. Off by default.
    pub allow_other_names: bool,
    /// Whether the database file is mapped, so that pages can be read from there. On unless
    /// told otherwise. With classic locks, which something else in this process drops when it
    /// closes the file, it is not mapped.
    pub mapped: bool,
    /// Whether the descriptors of the database and `-shm` are closed after the last use.
    /// Off unless told otherwise: they are kept without locks, and used again when this
    /// process opens the database again, because closing them drops the locks of every other
    /// SQLite in this process, beside which another process then writes. It is safe only if
    /// no other SQLite in this process uses the database.
    pub close_descriptors: bool,
}

impl Default for InProcessOptions {
    fn default() -> Self {
        InProcessOptions {
            lock_kind: LockKind::default(),
            allow_other_names: false,
            mapped: true,
            close_descriptors: false,
        }
    }
}

/// The database file, with EXCLUSIVE held.
#[derive(Debug)]
struct Owned {
    database: Arc<OsFile>,
    locks: ByteLocks,
    process: ProcessGeneration,
    /// Dropped last, when the lock is released.
    _claim: Claim,
}

/// What keeps others from the database.
enum Owner {
    /// It is not in the file system.
    None,
    /// EXCLUSIVE, held here.
    Ours(Owned),
    /// EXCLUSIVE, held by an engine that has the database file open.
    Engine { _claim: Claim },
}

impl Owned {
    /// Takes `database`, without waiting.
    fn take(database: &Arc<OsFile>, locks: ByteLocks) -> Result<Self> {
        let path = database.path();
        let claim = Claim::acquire(database.held_path(), database.id()?, locks)?;
        let file = database.as_file()?;
        let taken = locks.try_lock(file, database_bytes::ALL, LockMode::Exclusive);
        if !taken.map_err(|e| Error::io(path, "lock", e))? {
            let path = path.to_owned();
            return Err(Error::Locked { path });
        }
        Ok(Owned {
            database: database.clone(),
            locks,
            process: ProcessGeneration::current(),
            _claim: claim,
        })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // The descriptor is parked, and must not keep the lock. In a child the lock is the
        // parent's. If the system does not unlock, the lock stays until the process ends;
        // there is nobody to tell here.
        if let (false, Ok(file)) = (self.process.is_over(), self.database.as_file()) {
            let _ = self.locks.unlock(file, database_bytes::ALL);
        }
    }
}

/// Coordination between the threads of one process, which owns the database.
pub struct InProcessWalCoordination {
    path: PathBuf,
    owner: Owner,
    blocks: OnceTable<Box<WritableBlock>>,
    /// Write, Checkpoint and Recover.
    locks: [CachePadded<PackedLock>; FIRST_SLOT],
    slots: [SlotLock; ReadSlot::ALL.len()],
    wait_state: Box<WaitState>,
    sleepers: Sleepers,
}

impl InProcessWalCoordination {
    /// Opens the database file at `path` and takes it for this process alone.
    ///
    /// # Errors
    /// [`Error::Locked`] if any other connection has the database open, one of
    /// this process included; [`Error::Io`].
    pub fn open(
        path: &Path,
        mode: OpenMode<'_>,
        options: InProcessOptions,
    ) -> Result<(Self, Arc<OsFile>)> {
        let locks = ByteLocks::new(options.lock_kind);
        let maps = options.mapped && locks.belong_to_description();
        let file = open(HeldPath::of(path)?, mode, options)?;
        if !options.allow_other_names {
            refuse_other_names(&file)?;
        }
        let database = Arc::new(file.with_mapping(maps));
        let owned = Owned::take(&database, locks)?;
        if someone_is_attached(&database, options)? {
            let path = path.to_owned();
            return Err(Error::Locked { path });
        }
        Ok((Self::new(path, Owner::Ours(owned)), database))
    }

    /// Coordination for the database at `path`, for which an engine in this process holds
    /// EXCLUSIVE. `claim` keeps other uses in this process away.
    pub fn of_engine(path: &Path, claim: Claim) -> Self {
        Self::new(path, Owner::Engine { _claim: claim })
    }

    /// Coordination for a database that no other process can reach; `path`
    /// names it in messages.
    pub fn in_memory(path: &Path) -> Self {
        Self::new(path, Owner::None)
    }

    fn new(path: &Path, owner: Owner) -> Self {
        let mark = |slot| match slot == ReadSlot::DATABASE {
            true => 0,
            false => MARK_NOT_USED,
        };
        InProcessWalCoordination {
            path: path.to_owned(),
            owner,
            blocks: OnceTable::new(),
            locks: std::array::from_fn(|_| CachePadded::new(PackedLock::new(0))),
            slots: ReadSlot::ALL.map(|slot| SlotLock::new(mark(slot))),
            wait_state: Box::default(),
            sleepers: Sleepers::default(),
        }
    }

    #[inline]
    fn try_one(&self, at: usize, mode: LockMode) -> bool {
        match (at.checked_sub(FIRST_SLOT), mode) {
            (None, LockMode::Shared) => self.locks[at].try_read(),
            (None, LockMode::Exclusive) => self.locks[at].try_write(),
            (Some(slot), LockMode::Shared) => self.slots[slot].try_read(),
            (Some(slot), LockMode::Exclusive) => self.slots[slot].try_write(),
        }
    }

    #[inline]
    fn unlock_one(&self, at: usize, mode: LockMode) {
        match (at.checked_sub(FIRST_SLOT), mode) {
            (None, LockMode::Shared) => self.locks[at].unlock_read(),
            (None, LockMode::Exclusive) => self.locks[at].unlock_write(),
            (Some(slot), LockMode::Shared) => self.slots[slot].unlock_read(),
            (Some(slot), LockMode::Exclusive) => self.slots[slot].unlock_write(),
        }
    }

    fn slot(&self, slot: ReadSlot) -> &SlotLock {
        &self.slots[slot.index()]
    }
}

/// Opens a file that carries locks.
fn open(place: HeldPath, mode: OpenMode<'_>, options: InProcessOptions) -> Result<OsFile> {
    let file = OsFile::open_for_locks_at(place, mode)?;
    file.set_close_on_drop(options.close_descriptors);
    Ok(file)
}

/// True if a process holds the lock that everyone attached to the `-shm` file
/// holds.
fn someone_is_attached(database: &OsFile, options: InProcessOptions) -> Result<bool> {
    let place = database.held_path().beside("-shm");
    let shm = match open(place, OpenMode::Existing, options) {
        Ok(shm) => shm,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(e) => return Err(e),
    };
    let conflict = ByteLocks::new(options.lock_kind)
        .conflict(shm.as_file()?, shm_bytes::DMS)
        .map_err(|e| Error::io(shm.path(), "query the lock of", e))?;
    Ok(conflict.is_some())
}

impl WalCoordination for InProcessWalCoordination {
    const HAS_FOREIGN_PEERS: bool = false;

    #[inline]
    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        Ok(self.blocks.get(index).map(|block| &***block))
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        self.blocks
            .get_or_try_make(index, || Ok(WritableBlock::zeroed()))
            .map(|block| &**block)
    }

    #[inline]
    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool> {
        let (first, count) = lock.span();
        for at in first..first + count {
            if !self.try_one(at, mode) {
                (first..at).for_each(|taken| self.unlock_one(taken, mode));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        Ok(self.slot(slot).try_read_if(mark))
    }

    #[inline]
    unsafe fn unlock(&self, lock: Lock, mode: LockMode) {
        let (first, count) = lock.span();
        (first..first + count).for_each(|at| self.unlock_one(at, mode));
    }

    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        self.slot(slot).downgrade();
        Ok(true)
    }

    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        let lock = self.slot(slot);
        if !lock.try_upgrade() {
            return Ok(false);
        }
        lock.set_mark(mark);
        lock.downgrade();
        Ok(true)
    }

    /// Nobody else can hold a lock.
    fn holders(&self, _lock: Lock) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        self.slot(slot).mark()
    }

    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        self.slot(slot).set_mark(mark);
    }

    fn wait_state(&self) -> Option<&WaitState> {
        Some(&self.wait_state)
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        self.sleepers.sleep(word, seen, deadline);
    }

    fn wake(&self, word: &AtomicU32) {
        self.sleepers.wake(word);
    }

    /// The database has one user, whoever opened it.
    fn detach(&self) -> Result<bool> {
        Ok(true)
    }

    /// The index was never in the file system, but an old `-shm` of other processes may be.
    fn remove(&self) -> Result<()> {
        let Owner::Ours(owned) = &self.owner else {
            return Ok(());
        };
        owned.database.held_path().beside("-shm").remove()
    }
}

impl fmt::Debug for InProcessWalCoordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessWalCoordination")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
