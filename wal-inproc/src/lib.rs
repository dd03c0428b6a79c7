//! Coordination within one process: a few atomics instead of a `-shm` file.
//!
//! The process owns the database: it holds SQLite's EXCLUSIVE lock on the
//! database file, so that any other process, stock SQLite included, is told
//! that the database is locked, and nothing is corrupted.
#![deny(missing_docs)]

mod coordination;
pub mod packed_lock;
mod sleepers;
pub mod slot_lock;
mod sync;

pub use coordination::{InProcessOptions, InProcessWalCoordination};
