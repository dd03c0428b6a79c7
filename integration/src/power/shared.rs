//! One in-process coordination for several handles, as processes share an
//! index.
#![allow(unsafe_code)] // What gives a lock up is handed on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use wal_core::index::{IndexBlock, WritableBlock};
use wal_core::wait::WaitState;
use wal_core::{Lock, LockMode, ReadSlot, Result, WalCoordination};
use wal_inproc::InProcessWalCoordination;

/// The coordination; its clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<InProcessWalCoordination>);

impl Shared {
    pub(super) fn new() -> Self {
        let path = Path::new("simulated");
        Shared(Arc::new(InProcessWalCoordination::in_memory(path)))
    }
}

impl WalCoordination for Shared {
    const HAS_FOREIGN_PEERS: bool = InProcessWalCoordination::HAS_FOREIGN_PEERS;

    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        self.0.block(index)
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        self.0.grow(index)
    }

    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool> {
        self.0.try_lock(lock, mode)
    }

    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        self.0.try_lock_mark(slot, mark)
    }

    unsafe fn unlock(&self, lock: Lock, mode: LockMode) {
        // SAFETY: as the caller says.
        unsafe { self.0.unlock(lock, mode) };
    }

    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        // SAFETY: as the caller says.
        unsafe { self.0.raise_mark(slot, mark) }
    }

    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        // SAFETY: as the caller says.
        unsafe { self.0.downgrade(slot) }
    }

    fn holders(&self, lock: Lock) -> Vec<u32> {
        self.0.holders(lock)
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        self.0.mark(slot)
    }

    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        // SAFETY: as the caller says.
        unsafe { self.0.set_mark(slot, mark) };
    }

    fn wait_state(&self) -> Option<&WaitState> {
        self.0.wait_state()
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        self.0.sleep(word, seen, deadline);
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
