//! Recovery: a lost, damaged, stale or hostile wal-index, and a log that is
//! torn, flipped, or longer than one block of the index.

mod damaged_index;
mod forged_index;
mod hostile_index;
mod long_log;
mod peer;
mod torn_log;
