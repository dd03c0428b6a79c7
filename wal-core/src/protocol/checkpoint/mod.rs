//! Checkpoints: frames are moved to the database file, and the log is restarted.
//!
//! | file | what it does |
//! |---|---|
//! | `modes` | how far frames are moved, and which users are waited for |
//! | `backfill` | moves them |
//! | `automatic` | keeps the log short without being asked |
//! | `restart` | restarts the log when all of it is backfilled |
//! | `proof` | shows that a backfilled log may be overwritten |
//! | `close` | what the last user cleans up |

pub(in crate::protocol) mod automatic;
pub(in crate::protocol) mod backfill;
pub(in crate::protocol) mod close;
pub(in crate::protocol) mod modes;
pub(in crate::protocol) mod proof;
pub(in crate::protocol) mod restart;
