//! Checkpoints: frames are moved to the database file, and the log is restarted.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what the checkpoints of one attachment share |
//! | `modes` | how far frames are moved, and which users are waited for |
//! | `bounded` | in rounds, so that writers wait for a bounded time |
//! | `backfill` | moves them |
//! | `automatic` | keeps the log short without being asked |
//! | `pace` | when writers are stopped next so that the log can be restarted |
//! | `restart` | restarts the log when all of it is backfilled |
//! | `backfill_proof` | the value that shows that a backfilled log may be overwritten |
//! | `proof` | shows that a backfilled log may be overwritten |
//! | `close` | what the last user cleans up |
//! | `options` | what a checkpoint is asked for, and what it reports |

pub(in crate::protocol) mod automatic;
pub(in crate::protocol) mod backfill;
pub(in crate::protocol) mod backfill_proof;
mod bounded;
mod close;
mod modes;
pub(in crate::protocol) mod options;
mod pace;
mod proof;
pub(in crate::protocol) mod restart;
pub(in crate::protocol) mod state;
