//! What the files of a database contain, for a program that only observes.
//!
//! Nothing here acquires a lock, stores a byte, or needs an attachment. What it returns was
//! true at the moment of the look and may be out of date at once: it is for people, and
//! nothing of the protocol goes by it. Garbage is described, never believed.
//!
//! | file | what it describes |
//! |---|---|
//! | `database_info` | what kind of file a database is |
//! | `index_info` | block 0 of the wal-index: header, counts, marks |
//! | `log_info` | the header of the log, and what is behind it |
//! | `transactions` | the transactions of a log, one after the other |
//! | `log_check` | each frame of a log, checked on all processors |
//! | `recovery_time` | how long a recovery takes |
//! | `index_copy` | all blocks of the wal-index, compared with the log |
//! | `committed_pages` | the pages of a committed state, from the log or the database file |
//! | `freelist` | the list of free pages of a SQLite database |
//! | `watch` | whether what was read without a lock is one committed state |
//! | `forecast` | how far a checkpoint would advance now, and which lock stops it there |

mod committed_pages;
mod database_info;
mod forecast;
mod freelist;
mod index_copy;
mod index_info;
mod log_check;
mod log_info;
mod recovery_time;
#[cfg(all(test, not(loom)))]
mod sample_log;
mod transactions;
mod watch;

pub use committed_pages::{CommittedPages, PageSource};
pub use database_info::{Content, DatabaseInfo, read_database};
pub use forecast::{Blocker, Forecast, HeldLocks, forecast};
pub use freelist::{Freelist, FreelistFault, walk_freelist};
pub use index_copy::{IndexCopy, IndexFault, IndexFaults};
pub use index_info::{HeaderState, IndexInfo, inspect_index, read_index};
pub use log_check::{Commit, Leftover, Leftovers, LogCheck, check_log};
pub use log_info::{LogInfo, read_log};
pub use recovery_time::recovery_time;
pub use transactions::{LogEnd, Transaction, Transactions};
pub use watch::Watch;

pub use crate::format::{FrameFault, FrameReader, LoggedFrame};
pub use crate::protocol::why_log_does_not_follow;
