//! Syncs of the log that several commits share, and what follows one that failed.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what the commits of one attachment share |
//! | `group_commit` | one sync for the commits of many, which are visible before |
//! | `pipeline` | what threads of an attachment leave to each other |
//! | `pipelined_commit` | one sync for the commits of several threads, which no reader sees before |
//! | `sync` | one sync, and what a failed one leaves |
//! | `rewrite_log` | writes the log again after a failed sync |

pub(in crate::protocol) mod group_commit;
pub(in crate::protocol) mod pipeline;
pub(in crate::protocol) mod pipelined_commit;
mod rewrite_log;
pub(in crate::protocol) mod state;
mod sync;

pub use group_commit::{GroupMember, wait_until_synced};
pub use rewrite_log::record_failed_sync;
