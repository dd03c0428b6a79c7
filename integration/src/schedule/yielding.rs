//! A coordination and files that let others go on before each call.
#![allow(unsafe_code)] // What gives a lock up is handed on.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use wal_core::index::{IndexBlock, WritableBlock};
use wal_core::storage::{File, FileSyncType, MemoryFile, Storage};
use wal_core::wait::WaitState;
use wal_core::{Lock, LockMode, ReadSlot, Result, WalCoordination};
use wal_inproc::InProcessWalCoordination;

use super::turns::{give_way, wait_for_others};

/// The coordination.
#[derive(Debug)]
pub(super) struct Yielding(pub(super) InProcessWalCoordination);

impl WalCoordination for Yielding {
    const HAS_FOREIGN_PEERS: bool = InProcessWalCoordination::HAS_FOREIGN_PEERS;

    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        give_way();
        self.0.block(index)
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        self.0.grow(index)
    }

    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool> {
        give_way();
        self.0.try_lock(lock, mode)
    }

    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        give_way();
        self.0.try_lock_mark(slot, mark)
    }

    unsafe fn unlock(&self, lock: Lock, mode: LockMode) {
        // SAFETY: as the caller says.
        unsafe { self.0.unlock(lock, mode) };
        give_way();
    }

    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        give_way();
        // SAFETY: as the caller says.
        unsafe { self.0.raise_mark(slot, mark) }
    }

    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        give_way();
        // SAFETY: as the caller says.
        unsafe { self.0.downgrade(slot) }
    }

    fn holders(&self, lock: Lock) -> Vec<u32> {
        self.0.holders(lock)
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        give_way();
        self.0.mark(slot)
    }

    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        give_way();
        // SAFETY: as the caller says.
        unsafe { self.0.set_mark(slot, mark) };
    }

    fn wait_state(&self) -> Option<&WaitState> {
        self.0.wait_state()
    }

    /// Others run meanwhile, which is all that a sleep is for.
    fn sleep(&self, _word: &AtomicU32, _seen: u32, _deadline: Instant) {
        wait_for_others();
    }

    fn wake(&self, word: &AtomicU32) {
        self.0.wake(word);
    }

    fn detach(&self) -> Result<bool> {
        self.0.detach()
    }

    fn remove(&self) -> Result<()> {
        self.0.remove()
    }
}

/// The two files.
#[derive(Clone, Debug)]
pub(super) struct Files(Arc<[YieldingFile; 2]>);

#[derive(Debug)]
struct YieldingFile(MemoryFile);

impl Files {
    pub(super) fn new(database: Vec<u8>, log: Vec<u8>) -> Self {
        let database = YieldingFile(MemoryFile::new("scheduled", database));
        let log = YieldingFile(MemoryFile::new("scheduled-wal", log));
        Files(Arc::new([database, log]))
    }

    /// What the database file and the log hold.
    pub(super) fn contents(&self) -> [Vec<u8>; 2] {
        [self.0[0].0.contents(), self.0[1].0.contents()]
    }
}

impl File for YieldingFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        give_way();
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
        // One buffer after the other, as another process may see them.
        let mut at = offset;
        for buffer in buffers {
            give_way();
            self.0.write_all_at(&mut [IoSlice::new(buffer)], at)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn sync(&self, kind: FileSyncType) -> Result<()> {
        give_way();
        self.0.sync(kind)
    }

    fn len(&self) -> Result<u64> {
        give_way();
        self.0.len()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        give_way();
        self.0.set_len(len)
    }
}

impl Storage for Files {
    fn database(&self) -> &dyn File {
        &self.0[0]
    }

    fn log(&self) -> &dyn File {
        &self.0[1]
    }

    fn remove_log(&self) -> Result<()> {
        self.0[1].set_len(0)
    }
}
