//! The atomics, fence, mutex and condition variable on which the order of threads depends:
//! the standard library's, or loom's when the crates are built with `--cfg loom`, so that
//! the model checker explores the very code that runs. Locks that a panic has poisoned are
//! used on ([`Unpoison`]).
//!
//! They are aliases. Clippy refuses the names of the standard library in this crate and in
//! the two backends (`clippy.toml`), so a file that does without the model checker says so,
//! and why, at its head: loom's types live in one execution of a model and have no address,
//! so they cannot be a `static`, used by a handler of `fork`, or passed to the system.
#![allow(clippy::disallowed_types)] // Here alone they are named.
#![allow(clippy::disallowed_methods)]

#[cfg(loom)]
use loom::sync as origin;
#[cfg(not(loom))]
use std::sync as origin;
use std::sync::{LockResult, PoisonError};

pub use origin::atomic::Ordering;

/// See [`std::sync::atomic::AtomicBool`].
pub type AtomicBool = origin::atomic::AtomicBool;
/// See [`std::sync::atomic::AtomicU8`].
pub type AtomicU8 = origin::atomic::AtomicU8;
/// See [`std::sync::atomic::AtomicU16`].
pub type AtomicU16 = origin::atomic::AtomicU16;
/// See [`std::sync::atomic::AtomicU32`].
pub type AtomicU32 = origin::atomic::AtomicU32;
/// See [`std::sync::atomic::AtomicU64`].
pub type AtomicU64 = origin::atomic::AtomicU64;
/// See [`std::sync::atomic::AtomicUsize`].
pub type AtomicUsize = origin::atomic::AtomicUsize;
/// See [`std::sync::Condvar`].
pub type Condvar = origin::Condvar;
/// See [`std::sync::Mutex`].
pub type Mutex<T> = origin::Mutex<T>;
/// See [`std::sync::MutexGuard`].
pub type MutexGuard<'a, T> = origin::MutexGuard<'a, T>;

/// See [`std::sync::atomic::fence`].
#[inline]
pub fn fence(order: Ordering) {
    origin::atomic::fence(order);
}

/// Waits on `condvar` for as long as `condition` holds, which is looked at with the mutex of
/// `held` held. Loom's type has no such method.
pub fn wait_while<'a, T>(
    condvar: &Condvar,
    mut held: MutexGuard<'a, T>,
    mut condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while condition(&mut held) {
        held = condvar.wait(held).unpoison();
    }
    held
}

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
