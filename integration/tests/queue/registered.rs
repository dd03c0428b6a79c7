//! A program that links SQLite itself and registers the VFS: nothing is loaded. It changes the
//! default VFS of its process.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)] // SQLite is shut down by its C interface.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::SYS_futex;
use nix::unistd::{Pid, gettid};
use rusqlite::ffi::{SQLITE_OK, sqlite3_initialize, sqlite3_shutdown};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db
}

fn is_registered() -> bool {
    let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags("file::memory:?vfs=walqueue", flags).is_ok()
}

/// Returns once the thread waits in the queue: it blocks in a futex, where a writer that polls
/// sleeps.
fn wait_until_queued(thread: Pid) {
    let end = Instant::now() + PATIENCE;
    let blocks_in = || fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap();
    while blocks_in().split(' ').next() != Some(&SYS_futex.to_string()) {
        assert!(Instant::now() < end, "the writer does not queue");
        thread::yield_now();
    }
}

#[test]
fn registered_program_has_its_writers_in_the_queue() {
    assert!(!is_registered());
    wal_queue::register().unwrap();
    wal_queue::register().unwrap();
    assert!(is_registered());

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    let holder = open(&path);
    let create = "PRAGMA journal_mode = WAL; CREATE TABLE t(a); BEGIN IMMEDIATE";
    holder.execute_batch(create).unwrap();
    assert!(folder.path().join("app.db-coord").exists());

    let (entered, enters) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let waiter = open(&path);
        entered.send(gettid()).unwrap();
        waiter.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1); COMMIT")
    });
    wait_until_queued(enters.recv_timeout(PATIENCE).unwrap());
    holder
        .execute_batch("INSERT INTO t VALUES (0); COMMIT")
        .unwrap();
    waiter.join().unwrap().unwrap();
    let count = holder.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, u32>(0));
    assert_eq!(count, Ok(2));
    holder.close().unwrap();

    check_registers_again_after_shutdown(folder.path());
}

/// A SQLite that was shut down has its own VFS as the default again.
fn check_registers_again_after_shutdown(folder: &Path) {
    // SAFETY: no connection is open, and no other thread uses SQLite.
    assert_eq!(unsafe { sqlite3_shutdown() }, SQLITE_OK);
    // SAFETY: as above.
    assert_eq!(unsafe { sqlite3_initialize() }, SQLITE_OK);
    let has_queue = || {
        let db = open(&folder.join("app.db"));
        db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        folder.join("app.db-coord").exists()
    };
    assert!(!has_queue());
    wal_queue::register().unwrap();
    assert!(has_queue());
    let db = open(&folder.join("app.db"));
    let version = db.query_row("SELECT wal_wait(0)", [], |row| row.get::<_, i64>(0));
    assert!(version.is_ok(), "{version:?}");
}
