//! SQL writers wait for `WRITE` in the queue of all writers.
//!
//! | file | what it shows |
//! |---|---|
//! | `shares` | SQL writers and page writers, in processes of their own, get equal shares |
//! | `timeouts` | how long a statement waits for other connections, and what ends the wait |
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod shares;
mod timeouts;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wal_libsql::{BackendKind, Connection, OpenOptions};

/// Each test measures time, so it runs alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path, timeout: Duration) -> Connection {
    OpenOptions::new(BackendKind::Shared)
        .busy_timeout(timeout)
        .open(path)
        .unwrap()
}

fn new_database(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute(
        "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER);
         INSERT INTO t VALUES (1, 0)",
    )
    .unwrap();
    db
}
