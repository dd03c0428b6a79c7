//! The atomics of the protocol, and a mutex: `std`'s, or loom's when the crate is
//! built with `--cfg loom`, so that the model checker explores the very code that
//! runs. Locks that a panic has poisoned are used on ([`Unpoison`]).

use std::sync::{LockResult, PoisonError};

#[cfg(loom)]
pub(crate) use loom::sync::Mutex;
#[cfg(loom)]
pub(crate) use loom::sync::MutexGuard;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU16;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU32;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::Ordering;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;
#[cfg(not(loom))]
pub(crate) use std::sync::Mutex;
#[cfg(not(loom))]
pub(crate) use std::sync::MutexGuard;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicU16;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicU32;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::fence;

/// What a lock or a wait gives, also after a panic of an earlier holder.
///
/// A holder that panics poisons its lock. Holders leave what a lock of this library guards
/// whole whenever they may panic, so the next holder uses it, and a panic of one thread does
/// not spread to others.
pub trait Unpoison {
    /// What the lock or the wait gives.
    type Held;

    /// Ignores that an earlier holder has panicked.
    fn unpoison(self) -> Self::Held;
}

impl<Held> Unpoison for LockResult<Held> {
    type Held = Held;

    #[inline]
    fn unpoison(self) -> Held {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}
