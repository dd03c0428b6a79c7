//! Copies of the database: as it is, and kept up to date.
//!
//! | file | what it does |
//! |---|---|
//! | `tail` | follows the log, for a replicator |
//! | `drain` | ends a generation of the log for a tail, beside busy writers |
//! | `apply` | adds the frames of another log, for a replica |
//! | `backup` | copies a snapshot into a file of its own |

pub(in crate::protocol) mod apply;
pub(in crate::protocol) mod backup;
pub(in crate::protocol) mod drain;
pub(in crate::protocol) mod tail;
