//! Automatic checkpoints, and who owns the life of a log.
#![cfg(feature = "shm")]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use wal::{
    BusyHandler, Cancel, CheckpointMode, Database, DatabaseKind, Error, Options, PageNo,
    Synchronous,
};

/// How long anything here may take before something is wrong.
const BOUND: Duration = Duration::from_secs(20);

fn commit(database: &Database, byte: u8) {
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[0] = byte;
    write.commit().unwrap();
}

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .synchronous(Synchronous::Off)
}

fn database_begins_with(path: &Path, byte: u8) -> bool {
    std::fs::read(path).unwrap().first() == Some(&byte)
}

#[test]
fn a_thread_checkpoints_what_commits_leave() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let options = options().auto_checkpoint(3).checkpoint_thread(true);
    let database = options.open(&path).unwrap();
    for byte in 1..=3 {
        commit(&database, byte);
    }
    let deadline = Instant::now() + BOUND;
    while !database_begins_with(&path, 3) {
        assert!(Instant::now() < deadline, "the thread does not come");
        thread::yield_now();
    }
    database.close().unwrap();
    assert!(!directory.path().join("pages-wal").exists());
}

#[test]
fn a_database_with_a_checkpoint_thread_closes_when_it_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let options = options().auto_checkpoint(1).checkpoint_thread(true);
    for byte in 1..50 {
        let database = options.open(&path).unwrap();
        commit(&database, byte);
        drop(database);
        assert!(!directory.path().join("pages-wal").exists());
        assert!(database_begins_with(&path, byte));
    }
}

#[test]
fn the_committing_thread_checkpoints_unless_told_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let database = options().auto_checkpoint(2).open(&path).unwrap();
    commit(&database, 1);
    assert!(!database_begins_with(&path, 1));
    commit(&database, 2);
    assert!(database_begins_with(&path, 2));
    database.close().unwrap();
}

/// The checkpoint behind a commit finds all that the commit held given back, its read
/// slot too.
#[test]
fn the_checkpoint_behind_a_commit_is_complete_at_each_level() {
    for level in [Synchronous::Off, Synchronous::Normal, Synchronous::Full] {
        let dir = tempfile::tempdir().unwrap();
        let options = options().synchronous(level).auto_checkpoint(1);
        let database = options.open(dir.path().join("pages")).unwrap();
        commit(&database, 1);
        let mut write = database.begin_read().unwrap().upgrade().unwrap();
        write.page_mut(PageNo::ONE).unwrap().fill(2);
        write.commit().unwrap();
        let proof = database.prove_backfill().unwrap();
        assert!(proof.is_some(), "{level:?}: something is left in the log");
    }
}

#[test]
fn an_owner_of_the_log_restarts_it_with_a_proof() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let options = options().auto_checkpoint(0).auto_restart(false);
    let database = options.open(&path).unwrap();
    commit(&database, 1);
    let generation = database.begin_read().unwrap().snapshot().salts();
    assert!(
        database
            .checkpoint(CheckpointMode::Passive)
            .unwrap()
            .is_complete()
    );
    commit(&database, 2);
    let tx = database.begin_read().unwrap();
    assert_eq!(
        (tx.snapshot().salts(), tx.snapshot().max_frame()),
        (generation, 2)
    );
    drop(tx);
    assert!(
        database
            .checkpoint(CheckpointMode::Full)
            .unwrap()
            .is_complete()
    );
    let proof = database.prove_backfill().unwrap().unwrap();
    database.restart_log(&proof).unwrap();
    commit(&database, 3);
    let tx = database.begin_read().unwrap();
    assert_ne!(tx.snapshot().salts(), generation);
    assert_eq!(tx.snapshot().max_frame(), 1);
    drop(tx);
    assert!(matches!(
        database.restart_log(&proof),
        Err(Error::ProofRefused { .. })
    ));
    database.close().unwrap();
}

#[test]
fn a_writer_that_waits_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let cancel = Cancel::new();
    let patient = BusyHandler::timeout(BOUND).cancelled_by(&cancel);
    let database = options().busy_handler(patient).open(&path).unwrap();
    let writing = database.begin_write().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| database.begin_write().map(drop));
        cancel.cancel();
        let ended = waiting.join().unwrap();
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    });
    writing.commit().unwrap();
    database.close().unwrap();
}
