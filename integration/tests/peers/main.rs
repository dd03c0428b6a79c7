//! Stock SQLite and this library on one database.
//!
//! | file | what it shows |
//! |---|---|
//! | `backup` | a backup is one snapshot |
//! | `checkpoint_rows` | a checkpoint reports what `PRAGMA wal_checkpoint` reports |
//! | `same_snapshot` | snapshots of the same commit are the same database |
//! | `stock_opens_ours` | stock SQLite reads what this library writes |
//! | `stock_states` | what stock SQLite can leave behind or be doing |
//! | `vacuum` | all pages are replaced while stock SQLite has the database open |

// Clippy takes the helpers of an integration test for production code.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod backup;
mod checkpoint_rows;
mod same_snapshot;
mod stock_opens_ours;
mod stock_states;
mod vacuum;
