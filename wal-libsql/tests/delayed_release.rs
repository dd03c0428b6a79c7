//! The engine's connections delay the release of read locks as they are told.
#![cfg(feature = "shm")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use wal_core::Lock;
use wal_core::storage::{ByteLocks, LockKind, beside, shm_bytes};
use wal_libsql::{BackendKind, Connection, OpenOptions, WalOptions};

/// Longer than any test: a lock that goes was not kept.
const FOR_EVER: Duration = Duration::from_secs(1000);

fn open(path: &Path, delay: Option<Duration>) -> Connection {
    let wal = WalOptions::new(BackendKind::Shared);
    let wal = delay.map_or(wal, |delay| wal.read_lock_delay(delay));
    let options = OpenOptions::new(BackendKind::Shared).wal(wal);
    let db = options.open(path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        .unwrap();
    db
}

/// Whether a read slot is locked, as a description of its own sees it, after so many
/// statements.
fn is_locked_after(statements: u32, delay: Option<Duration>) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open(&path, delay);
    for _ in 0..statements {
        db.query("SELECT a FROM t").unwrap();
    }
    let mut options = File::options();
    let shm = options.read(true).write(true);
    let shm = shm.open(beside(&path, "-shm")).unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let conflict = locks.conflict(&shm, shm_bytes::of(Lock::Readers));
    conflict.unwrap().is_some()
}

#[test]
fn read_lock_of_the_engine_is_kept_for_the_delay_it_was_given() {
    assert!(is_locked_after(100, Some(FOR_EVER)));
    assert!(!is_locked_after(100, Some(Duration::ZERO)));
}

#[test]
fn engine_that_ran_a_few_statements_keeps_no_lock() {
    for _ in 0..10 {
        assert!(!is_locked_after(2, None));
    }
}
