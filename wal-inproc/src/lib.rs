//! In-process coordination for `wal-core`: packed atomic locks and a wal-index on the heap.
#![deny(missing_docs)]

pub mod packed_lock;
mod sync;
