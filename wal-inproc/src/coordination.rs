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

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use crossbeam_utils::CachePadded;
use wal_core::fork::ProcessGeneration;
use wal_core::index::{IndexBlock, MARK_NOT_USED, WritableBlock};
use wal_core::io::{
    ByteLocks, File, LockKind, OpenMode, OsFile, beside, database_bytes, shm_bytes,
};
use wal_core::once_table::OnceTable;
use wal_core::waiting::WaitingRoom;
use wal_core::{Error, Lock, LockMode, ReadSlot, Result, WalCoordination};

use crate::packed_lock::PackedLock;
use crate::sleepers::Sleepers;
use crate::slot_lock::SlotLock;

/// The locks by which the process owns the database file.
const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// Where the slots begin among the single locks.
const FIRST_SLOT: usize = Lock::Readers.span().0;

/// Coordination between the threads of one process, which owns the database.
pub struct InProcessWalCoordination {
    path: PathBuf,
    /// The database file, with EXCLUSIVE held; `None` for a database that is
    /// not in the file system.
    database: Option<Arc<OsFile>>,
    process: ProcessGeneration,
    blocks: OnceTable<Box<WritableBlock>>,
    /// Write, Checkpoint and Recover.
    locks: [CachePadded<PackedLock>; FIRST_SLOT],
    slots: [SlotLock; ReadSlot::ALL.len()],
    waiting_room: Box<WaitingRoom>,
    sleepers: Sleepers,
}

impl InProcessWalCoordination {
    /// Opens the database file at `path` and takes it for this process alone.
    /// `mapped` says whether its pages are read from a mapping.
    ///
    /// # Errors
    /// [`Error::Locked`] if any other connection has the database open, one of
    /// this process included; [`Error::Io`].
    pub fn open(path: &Path, mode: OpenMode<'_>, mapped: bool) -> Result<(Self, Arc<OsFile>)> {
        let database = Arc::new(OsFile::open_for_locks(path, mode)?.with_mapping(mapped));
        let owned = LOCKS
            .try_lock(database.as_file(), database_bytes::ALL, LockMode::Exclusive)
            .map_err(|e| Error::io(path, "lock", e))?;
        let mut coordination = Self::in_memory(path);
        // From here on dropping the coordination gives the lock back.
        coordination.database = owned.then(|| database.clone());
        if !owned || someone_is_attached(path)? {
            return Err(Error::Locked {
                path: path.to_owned(),
            });
        }
        Ok((coordination, database))
    }

    /// Coordination for a database that no other process can reach; `path`
    /// names it in messages.
    pub fn in_memory(path: &Path) -> Self {
        let mark = |slot| match slot == ReadSlot::DATABASE {
            true => 0,
            false => MARK_NOT_USED,
        };
        InProcessWalCoordination {
            path: path.to_owned(),
            database: None,
            process: ProcessGeneration::current(),
            blocks: OnceTable::new(),
            locks: std::array::from_fn(|_| CachePadded::new(PackedLock::new(0))),
            slots: ReadSlot::ALL.map(|slot| SlotLock::new(mark(slot))),
            waiting_room: Box::default(),
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

/// True if a process holds the lock that everyone attached to the `-shm` file
/// holds. The file is opened as one that carries locks, because closing it
/// would drop those of a stock SQLite in this process.
fn someone_is_attached(database: &Path) -> Result<bool> {
    let path = beside(database, "-shm");
    let shm = match OsFile::open_for_locks(&path, OpenMode::Existing) {
        Ok(shm) => shm,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(e) => return Err(e),
    };
    let conflict = LOCKS
        .conflict(shm.as_file(), shm_bytes::DMS)
        .map_err(|e| Error::io(&path, "query the lock of", e))?;
    Ok(conflict.is_some())
}

impl WalCoordination for InProcessWalCoordination {
    const HAS_STRANGERS: bool = false;

    fn path(&self) -> &Path {
        &self.path
    }

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

    unsafe fn lower(&self, slot: ReadSlot, _mark: u32) -> Result<bool> {
        self.slot(slot).downgrade();
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

    fn waiting_room(&self) -> Option<&WaitingRoom> {
        Some(&self.waiting_room)
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        self.sleepers.sleep(word, seen, deadline);
    }

    fn wake(&self, word: &AtomicU32) {
        self.sleepers.wake(word);
    }

    /// The database has one user, whoever opened it.
    fn leave(&self) -> Result<bool> {
        Ok(true)
    }

    /// The index was never in the file system, but an old `-shm` of others
    /// may be.
    fn remove(&self) -> Result<()> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let path = beside(database.path(), "-shm");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(&path, "remove", e)),
            _ => Ok(()),
        }
    }
}

impl Drop for InProcessWalCoordination {
    fn drop(&mut self) {
        // The descriptor is parked, and must not keep the lock. In a
        // child the lock is the parent's. If the system does not unlock, the
        // lock stays until the process ends; there is nobody to tell here.
        if let Some(database) = self.database.take().filter(|_| !self.process.is_over()) {
            let _ = LOCKS.unlock(database.as_file(), database_bytes::ALL);
        }
    }
}

impl fmt::Debug for InProcessWalCoordination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessWalCoordination")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
