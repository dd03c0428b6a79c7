//! Threads of one process open and close a database at the same time, so that
//! one is the last to close while another opens. Seen from another process,
//! nobody who has it open is ever without its locks.

use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::worker::{HeldByte, Worker};
use wal::{Backend, DatabaseKind, LockKind, Options, PageNo, Synchronous, generic};
use wal_core::storage::{beside, database_bytes, shm_bytes};

const THREADS: u32 = 4;
const ROUNDS: u32 = 150;

fn options(kind: LockKind) -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .lock_kind(kind)
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::from_secs(20))
}

/// Another process sees that this one has the database open.
fn expect_locked(stranger: &mut Worker, path: &Path, round: u32) {
    let shm = beside(path, "-shm");
    for (file, bytes) in [(path, database_bytes::SHARED), (&*shm, shm_bytes::DMS)] {
        let held = stranger.probe(file, bytes.start).unwrap();
        assert!(
            held.is_some(),
            "round {round}: {} is not locked",
            file.display()
        );
    }
}

fn count_up<B: Backend>(database: &generic::Database<B>) {
    let mut write = database.begin_write().unwrap();
    let page = write.page_mut(PageNo::ONE).unwrap();
    let (count, _) = page.split_first_chunk_mut().unwrap();
    *count = (u32::from_le_bytes(*count) + 1).to_le_bytes();
    write.commit().unwrap();
}

fn expect_count(path: &Path, kind: LockKind, count: u32) {
    let database = options(kind).open(path).unwrap();
    let read = database.begin_read().unwrap();
    let page = read.page(PageNo::ONE).unwrap();
    assert_eq!(page[..4], count.to_le_bytes());
}

fn open_and_close(kind: LockKind) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    options(kind).open(&path).unwrap().close().unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut stranger = Worker::spawn().unwrap();
                for round in 0..ROUNDS {
                    let database = options(kind).open(&path).unwrap();
                    count_up(&database);
                    expect_locked(&mut stranger, &path, round);
                    database.close().unwrap();
                }
                stranger.end().unwrap();
            });
        }
    });
    expect_count(&path, kind, THREADS * ROUNDS);
}

#[test]
fn threads_that_open_and_close_keep_their_locks() {
    open_and_close(LockKind::OpenFileDescription);
}

#[test]
fn threads_that_open_and_close_keep_their_classic_locks() {
    open_and_close(LockKind::Classic);
}

/// One of the two is refused, and waits, until all locks of the other one are released.
#[test]
fn threads_of_both_backends_keep_their_locks() {
    for kind in [LockKind::OpenFileDescription, LockKind::Classic] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        options(kind).open(&path).unwrap().close().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stranger = Worker::spawn().unwrap();
                for round in 0..ROUNDS {
                    let database = options(kind).open_shm(&path).unwrap();
                    count_up(&database);
                    expect_locked(&mut stranger, &path, round);
                    database.close().unwrap();
                }
                stranger.end().unwrap();
            });
            scope.spawn(|| {
                let mut stranger = Worker::spawn().unwrap();
                for round in 0..ROUNDS {
                    let database = options(kind).open_inproc(&path).unwrap();
                    count_up(&database);
                    let held = stranger.probe(&path, database_bytes::SHARED.start);
                    assert_eq!(held.unwrap(), Some(HeldByte::Exclusive), "round {round}");
                    database.close().unwrap();
                }
                stranger.end().unwrap();
            });
        });
        expect_count(&path, kind, 2 * ROUNDS);
    }
}
