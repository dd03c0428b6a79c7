//! What a lock guards in the models: a loom `UnsafeCell`, which fails the test on any
//! two accesses that the lock has not ordered.
// The guarded cell is reached through raw pointers; loom checks each access.
#![allow(unsafe_code)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// A lock and the data it guards.
pub(crate) struct Guarded<L> {
    pub(crate) lock: L,
    data: UnsafeCell<u32>,
}

// SAFETY: `data` is reached only while `lock` is held in the matching way; that
// this is enough is what the tests check.
unsafe impl<L: Sync> Sync for Guarded<L> {}

impl<L> Guarded<L> {
    pub(crate) fn by(lock: L) -> Arc<Self> {
        Arc::new(Self {
            lock,
            data: UnsafeCell::new(0),
        })
    }

    /// Reads the data; the caller holds the lock.
    pub(crate) fn get(&self) -> u32 {
        self.data.with(|data| {
            // SAFETY: the pointer is the cell's own, and loom has just checked
            // that every write to it happened before.
            unsafe { *data }
        })
    }

    /// Writes the data; the caller holds the lock exclusively.
    pub(crate) fn set(&self, value: u32) {
        self.data.with_mut(|data| {
            // SAFETY: the pointer is the cell's own, and loom has just checked
            // that every other access to it happened before.
            unsafe { *data = value }
        });
    }
}

/// Runs `work` on a thread of its own.
pub(crate) fn spawn<L: Sync + Send + 'static, T: 'static>(
    guarded: &Arc<Guarded<L>>,
    work: impl FnOnce(&Guarded<L>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let guarded = Arc::clone(guarded);
    thread::spawn(move || work(&guarded))
}
