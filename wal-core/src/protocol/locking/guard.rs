//! A held lock. Nobody calls the coordination's `unlock` but the guard, so
//! every lock is given back exactly once, on every path out of an operation. A
//! guard of Write may leave the lock to the [relay](crate::protocol::durability::pipelined_commit), which makes
//! another guard for it.
#![allow(unsafe_code)] // Giving a lock up is unsafe: pages may be read under it.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::protocol::handle::Wal;
use crate::testing::{Point, step};
use crate::types::{Lock, LockMode, ReadSlot};

/// A lock that is held until the guard is dropped.
pub struct LockGuard<C: WalCoordination> {
    wal: Arc<Wal<C>>,
    lock: Lock,
    mode: LockMode,
    /// The lock is another guard's, which gives it back.
    lent: bool,
    /// Its release may be delayed.
    delayed: bool,
}

impl<C: WalCoordination> LockGuard<C> {
    /// The lock that is held.
    pub fn lock(&self) -> Lock {
        self.lock
    }

    /// A guard for the same lock, for who is gone before this one is.
    pub(in crate::protocol) fn lent(&self) -> Self {
        LockGuard {
            wal: self.wal.clone(),
            lock: self.lock,
            mode: self.mode,
            lent: true,
            delayed: false,
        }
    }

    /// Allows the release of the lock, which is that of a read slot, to be delayed.
    pub(in crate::protocol) fn delay_release(&mut self) {
        self.delayed = true;
    }

    /// Turns an exclusive hold of a slot into a shared one; `None` if the backend has
    /// released it instead.
    pub(in crate::protocol) fn downgrade(mut self) -> Result<Option<Self>> {
        let (Lock::Read(slot), LockMode::Exclusive, false) = (self.lock, self.mode, self.lent)
        else {
            return Ok(None);
        };
        // What becomes of the hold is decided below, not when this is dropped.
        self.lent = true;
        step(Point::Unlock);
        // SAFETY: the hold is this guard's, and exclusive, and the guard does not give it
        // up itself any more.
        let held = unsafe { self.wal.coordination().downgrade(slot) }?;
        Ok(held.then(|| {
            self.lent = false;
            self.mode = LockMode::Shared;
            self
        }))
    }

    /// Raises the mark of the slot that is held shared to `mark`; false if others hold the
    /// slot too, or the backend cannot tell.
    ///
    /// # Safety
    /// No page is looked at any more that was read under this lock for a snapshot older
    /// than `mark`.
    pub(in crate::protocol) unsafe fn raise_mark(&self, mark: u32) -> Result<bool> {
        let (Lock::Read(slot), LockMode::Shared, false) = (self.lock, self.mode, self.lent) else {
            return Ok(false);
        };
        if slot == ReadSlot::DATABASE {
            return Ok(false);
        }
        step(Point::MarkStore);
        // SAFETY: the hold is this guard's, and shared; the rest as the caller says.
        unsafe { self.wal.coordination().raise_mark(slot, mark) }
    }

    /// The handle on the attachment that holds it.
    pub(in crate::protocol) fn wal(&self) -> &Arc<Wal<C>> {
        &self.wal
    }
}

impl<C: WalCoordination> Drop for LockGuard<C> {
    fn drop(&mut self) {
        // In a forked child the lock is the parent's: releasing it there
        // would take it from the parent.
        if self.lent || self.wal.process().is_over() {
            return;
        }
        if self.lock == Lock::Write && self.wal.keep_write() {
            return;
        }
        step(Point::Unlock);
        match self.lock {
            // SAFETY: the hold is this guard's, which is not lent, and is given up once.
            // A page that was read under it borrows what keeps the guard.
            Lock::Read(slot) if self.delayed => unsafe {
                self.wal.coordination().unlock_delayed(slot);
            },
            // SAFETY: as above.
            lock => unsafe { self.wal.coordination().unlock(lock, self.mode) },
        }
        if self.lock == Lock::Write {
            step(Point::Wake);
            self.wal.wake_next_writer();
        }
    }
}

/// The locks that the caller of an operation holds already.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol) struct LocksHeld<'a, C: WalCoordination> {
    pub(in crate::protocol) write: Option<&'a LockGuard<C>>,
    pub(in crate::protocol) checkpoint: Option<&'a LockGuard<C>>,
}

impl<C: WalCoordination> LocksHeld<'_, C> {
    pub(in crate::protocol) const NOTHING: Self = LocksHeld {
        write: None,
        checkpoint: None,
    };
}

impl<C: WalCoordination> Wal<C> {
    /// Takes `lock`; `None` if another holder conflicts.
    #[inline(always)]
    pub(in crate::protocol) fn try_lock(
        self: &Arc<Self>,
        lock: Lock,
        mode: LockMode,
    ) -> Result<Option<LockGuard<C>>> {
        step(Point::Lock);
        let held = self.coordination().try_lock(lock, mode)?;
        Ok(held.then(|| LockGuard {
            wal: self.clone(),
            lock,
            mode,
            lent: false,
            delayed: false,
        }))
    }

    /// A guard for `WRITE`, which this attachment holds.
    ///
    /// # Safety
    /// The attachment holds `WRITE`, and no other guard releases it.
    pub(in crate::protocol) unsafe fn assume_write(self: &Arc<Self>) -> LockGuard<C> {
        LockGuard {
            wal: self.clone(),
            lock: Lock::Write,
            mode: LockMode::Exclusive,
            lent: false,
            delayed: false,
        }
    }

    /// Takes `slot` shared; `None` if its exclusive holder is at work or its
    /// mark is not `mark`.
    pub(in crate::protocol) fn try_lock_mark(
        self: &Arc<Self>,
        slot: ReadSlot,
        mark: u32,
    ) -> Result<Option<LockGuard<C>>> {
        step(Point::Lock);
        let held = self.coordination().try_lock_mark(slot, mark)?;
        let lock = Lock::Read(slot);
        Ok(held.then(|| LockGuard {
            wal: self.clone(),
            lock,
            mode: LockMode::Shared,
            lent: false,
            delayed: false,
        }))
    }

    /// Acquires the slot of `held` once more; `None` if the backend cannot do that.
    pub(in crate::protocol) fn relock_shared(
        self: &Arc<Self>,
        held: &LockGuard<C>,
    ) -> Result<Option<LockGuard<C>>> {
        let (Lock::Read(slot), LockMode::Shared) = (held.lock, held.mode) else {
            return Ok(None);
        };
        step(Point::Lock);
        // SAFETY: `held` is borrowed, and of a hold that is shared.
        let again = unsafe { self.coordination().relock_shared(slot) }?;
        Ok(again.then(|| LockGuard {
            wal: self.clone(),
            lock: held.lock,
            mode: LockMode::Shared,
            lent: false,
            delayed: false,
        }))
    }

    /// Stores the mark of `slot`, which the caller holds exclusively.
    pub(in crate::protocol) fn set_mark(&self, slot: ReadSlot, mark: u32) {
        step(Point::MarkStore);
        // SAFETY: the callers hold the slot exclusively, and the conformance suite checks
        // each call. They do not where a test has broken the rule, which no release can.
        unsafe { self.coordination().set_mark(slot, mark) };
    }

    /// For who tries again and again: nobody is named, which takes as long as a
    /// commit.
    pub(in crate::protocol) fn busy_again(&self, lock: Lock) -> Error {
        Error::Busy {
            path: self.path().to_owned(),
            lock,
            holders: Vec::new(),
        }
    }

    pub(in crate::protocol) fn busy(&self, lock: Lock) -> Error {
        Error::Busy {
            path: self.path().to_owned(),
            lock,
            holders: self.coordination().holders(lock),
        }
    }
}
