//! What keeps the log of a database small: snapshots that are given up, and
//! writers that wait.
#![cfg(feature = "shm")]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wal::{CheckpointMode, Database, DatabaseKind, Error, Options, PageNo, Synchronous};

/// How long anything here may take before something is wrong.
const BOUND: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .synchronous(Synchronous::Off)
        .auto_checkpoint(0)
}

fn open(options: &Options) -> (TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let database = options.open(directory.path().join("pages")).unwrap();
    (directory, database)
}

fn commit(database: &Database, byte: u8) {
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[0] = byte;
    write.commit().unwrap();
}

#[test]
fn a_snapshot_is_held_until_its_holder_lets_go() {
    let (_directory, database) = open(&options());
    commit(&database, 1);
    let held = database.begin_read().unwrap().hold(BOUND).unwrap();
    commit(&database, 2);
    let report = database.checkpoint(CheckpointMode::Passive).unwrap();
    assert!(!report.is_complete(), "it is held against checkpoints");
    let reads: Vec<_> = (0..3).map(|_| held.begin_read().unwrap()).collect();
    for read in &reads {
        assert!(read.snapshot().is_same_state(held.snapshot()));
        assert_eq!(read.page(PageNo::ONE).unwrap()[0], 1);
    }
    drop(reads);
    drop(held);
    let report = database.checkpoint(CheckpointMode::Passive).unwrap();
    assert!(report.is_complete());
    database.close().unwrap();
}

#[test]
fn a_snapshot_is_given_up_when_its_time_is_over() {
    let (_directory, database) = open(&options());
    commit(&database, 1);
    let read = database.begin_read().unwrap();
    let held = read.hold(Duration::from_millis(1)).unwrap();
    commit(&database, 2);
    let deadline = Instant::now() + BOUND;
    while !database
        .checkpoint(CheckpointMode::Passive)
        .unwrap()
        .is_complete()
    {
        assert!(Instant::now() < deadline, "it is not given up");
        thread::yield_now();
    }
    let gone = held.begin_read().map(drop);
    assert!(
        matches!(gone, Err(Error::SnapshotTooOld { .. })),
        "{gone:?}"
    );
}

#[test]
fn a_read_transaction_has_an_age_limit_if_that_is_asked_for() {
    let (_directory, database) = open(&options().snapshot_age_limit(Duration::ZERO));
    let read = database.begin_read().unwrap();
    let too_old = read.page(PageNo::ONE).map(drop);
    assert!(
        matches!(too_old, Err(Error::SnapshotTooOld { .. })),
        "{too_old:?}"
    );
    drop(read);
    commit(&database, 1);
}

#[test]
fn a_log_with_a_limit_stays_short_under_readers_that_end() {
    const LIMIT: u32 = 50;
    let (_directory, database) = open(&options().max_log_frames(LIMIT).busy_timeout(BOUND));
    let reader = {
        let database = database.clone();
        thread::spawn(move || {
            let mut longest = 0;
            let mut last = 0;
            while last != 250 {
                let read = database.begin_read().unwrap();
                last = read.page(PageNo::ONE).unwrap()[0];
                longest = longest.max(read.snapshot().max_frame());
            }
            longest
        })
    };
    for round in 0..4 {
        for byte in 1..=249 {
            commit(&database, byte);
        }
        commit(&database, if round == 3 { 250 } else { 249 });
    }
    assert!(reader.join().unwrap() <= LIMIT);
}

#[test]
fn a_writer_beyond_the_limit_is_told_who_is_in_the_way() {
    let limited = options().max_log_frames(2).busy_timeout(Duration::ZERO);
    let (_directory, database) = open(&limited);
    commit(&database, 1);
    let read = database.begin_read().unwrap();
    commit(&database, 2);
    let full = database.begin_write().map(drop);
    let Err(Error::LogFull { holders, .. }) = full else {
        unreachable!("{full:?}");
    };
    assert_eq!(holders, [std::process::id()]);
    drop(read);
    commit(&database, 3);
}
