//! The atomics of this crate: loom's under `--cfg loom`, so that its model
//! checker sees every access, and the standard library's otherwise.

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;
