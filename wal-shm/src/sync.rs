//! The atomics and the mutex of the lock table: loom's under `--cfg loom`, so that its
//! model checker sees every access, and the standard library's otherwise.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
