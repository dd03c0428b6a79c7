//! Coordination within one process: a few atomics instead of a `-shm` file.
//!
//! The process owns the database: it holds SQLite's EXCLUSIVE lock on the
//! database file, so that any other process, stock SQLite included, is told
//! that the database is locked, and nothing is corrupted.
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

mod coordination;
pub mod packed_lock;
mod sleepers;
pub mod slot_lock;

pub use coordination::{InProcessOptions, InProcessWalCoordination};
