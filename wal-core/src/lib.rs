//! SQLite's write-ahead log as a library.
//!
//! The crate owns the file format (`-wal` bytes, wal-index blocks), the
//! protocol that snapshot readers, one writer and checkpointers keep on it,
//! and recovery. It does not know how its users find each other: that is a
//! [`WalCoordination`], which gives memory, locks and wake-ups and nothing
//! else. `wal-inproc` and `wal-shm` are the two that come with it; the `wal`
//! crate puts a friendlier face on both.
//!
//! | module | what it owns |
//! |---|---|
//! | [`types`] | page sizes, page and frame numbers, salts, locks, read slots |
//! | [`format`](mod@format) | bytes of the log: header, frames, checksums, the valid prefix; the database header |
//! | [`index`] | the wal-index: header cell, checkpoint info, page→frame hash blocks |
//! | [`mod@inspect`] | what the files of a database contain, for a program that only observes |
//! | [`error`] | what can go wrong, and what to do about it |
//! | [`coordination`] | the seam between the protocol and its backends |
//! | [`mod@shared_memory`] | which types memory can be that several processes map |
//! | [`once_table`] | a table that only grows, for what exists once for each key |
//! | [`fork`] | what a child made by `fork` must not use, and how that is noticed |
//! | [`background`] | threads of the library, and the signals that they leave to the program |
//! | [`stripes`] | which of several words a thread changes, so that readers do not wait for each other |
//! | [`wait`] | the memory in which users wait for commits, and in line for Write |
//! | [`sync`] | the atomics, mutex and condition variable, which the model checker replaces |
//! | [`storage`] | files behind a trait: the operating system's and in-memory ones |
//! | [`protocol`] | the operations, written once for every backend |
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod background;
pub mod coordination;
pub mod error;
pub mod fork;
pub mod format;
pub mod index;
pub mod inspect;
pub mod once_table;
pub mod protocol;
pub mod shared_memory;
pub mod storage;
pub mod stripes;
pub mod sync;
pub mod types;
pub mod wait;

#[doc(hidden)]
pub mod testing;

pub use coordination::WalCoordination;
pub use error::{Error, Result};
pub use types::{FrameNo, Lock, LockMode, PageNo, PageSize, ReadSlot, Salts};
