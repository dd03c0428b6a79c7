//! Write transactions.
//!
//! | file | what it does |
//! |---|---|
//! | `begin` | begins the one write transaction |
//! | `commit` | commits it, or rolls it back |
//! | `retry` | runs a closure in one, again where that can succeed |
//! | `dirty_pages` | what the transaction keeps on the heap, and what savepoints need of it |
//! | `savepoint` | rolls back a part of the transaction |
//! | `spill` | writes dirty pages to the log before the commit, when they are too many |
//! | `overwrite` | writes spilled pages again, and corrects the checksums |
//! | `append` | turns dirty pages into frames and a commit |
//! | `page_one` | refuses a page 1 that is none of this database |
//! | `back_pressure` | lets writers wait while the log is too long |
//! | `frames_mark` | how far a transaction's frames are rolled back |
//! | `restart` | restarts the log before a write |
//! | `write_tx` | the transaction and its pages |
//! | `own_frames` | what a transaction has in the log |

pub(in crate::protocol) mod append;
mod back_pressure;
pub(in crate::protocol) mod begin;
pub(in crate::protocol) mod commit;
pub(in crate::protocol) mod dirty_pages;
pub(in crate::protocol) mod frames_mark;
mod overwrite;
pub(in crate::protocol) mod own_frames;
pub(in crate::protocol) mod page_one;
mod restart;
mod retry;
mod savepoint;
pub(in crate::protocol) mod spill;
pub(in crate::protocol) mod write_tx;
