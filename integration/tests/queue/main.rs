//! Stock SQLite with the extension `wal-queue`: the queue is fair, and all else is as without it.
//!
//! | file | what it shows |
//! |---|---|
//! | `fairness` | writers in each language share the lock, and none of them gives up |
//! | `functions` | the SQL functions and tables |
//! | `group_commit` | commits share their syncs, and none is acknowledged without one |
//! | `guard` | a log in use is not deleted after a stray close of the database file |
//! | `kills` | killed writers delay their peers, and lose no acknowledged commit |
//! | `modes` | locking modes, journal modes, attached and temporary databases, VACUUM |
//! | `names` | databases that are reached by other names, parameters and VFSs |
//! | `scripts` | two copies of SQLite in a process, a SQLite that waits in its locks, and forks |
//! | `reservation` | a transaction that reads before it writes commits beside faster peers |
//! | `side_files` | a damaged or missing side file costs fairness only |
//! | `timeouts` | a busy timeout is as long as the application sets it |
//!
//! `many_opens.rs` opens and closes databases again and again.
//! `stops.rs` stops and kills a process at each of its calls.
//! What needs the extension in the process of the test is `one_process.rs`.
//!
//! `WAL_QUEUE_LIBRARY` points the tests at another build of the extension.

// Clippy takes the helpers of an integration test for production code.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod fairness;
mod functions;
mod group_commit;
mod guard;
mod kills;
mod modes;
mod names;
mod reservation;
mod scene;
mod scripts;
mod side_files;
mod timeouts;
