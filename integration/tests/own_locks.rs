//! What the threads of a process do beside each other costs none of them its
//! locks: another process asks the system for them.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::worker::{HeldByte, Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::{CheckpointMode, Database, PageNo, ReadTx};
use wal_core::io::{ByteLocks, LockKind, beside, database_bytes, shm_bytes};
use wal_core::{Lock, LockMode, ReadSlot};

/// A database with a reader on it, and another process that looks on.
struct Fixture {
    settings: Settings,
    database: Database,
    onlooker: Worker,
    _directory: TempDir,
}

impl Fixture {
    fn new(classic_locks: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = Settings::new(&directory.path().join("pages"));
        settings.classic_locks = classic_locks;
        let database = open(&settings);
        commit(&database, 1);
        Fixture {
            settings,
            database,
            onlooker: Worker::spawn().unwrap(),
            _directory: directory,
        }
    }

    /// Runs `work` on another thread while this one holds `read`, and asks
    /// for the reader's locks afterwards.
    fn expect_locks_survive(&mut self, read: &ReadTx, work: impl FnOnce(&Self) + Send) {
        self.expect_locks_of(read);
        let begun = Barrier::new(2);
        thread::scope(|scope| {
            let (fixture, begun) = (&*self, &begun);
            let worker = scope.spawn(move || {
                begun.wait();
                work(fixture);
            });
            begun.wait();
            worker.join().unwrap();
        });
        self.expect_locks_of(read);
        assert_eq!(stamp_of(read), 1);
    }

    /// The mark, what keeps the wal-index, and what keeps the log.
    fn expect_locks_of(&mut self, read: &ReadTx) {
        let slot = read.snapshot().slot().unwrap();
        let shm = beside(&self.settings.path, "-shm");
        let mark = shm_bytes::of(Lock::Read(slot)).start;
        let database = self.settings.path.clone();
        let shared = Some(HeldByte::Shared);
        let mut held = |file, byte| self.onlooker.probe(file, byte).unwrap();
        assert_eq!(held(&shm, mark), shared, "the read mark");
        assert_eq!(held(&shm, shm_bytes::DMS.start), shared, "the wal-index");
        assert_eq!(held(&database, database_bytes::SHARED.start), shared);
    }

    /// What the system shows once the reader is gone.
    fn expect_mark_free(&mut self, slot: ReadSlot) {
        let shm = beside(&self.settings.path, "-shm");
        let mark = shm_bytes::of(Lock::Read(slot)).start;
        assert_eq!(self.onlooker.probe(&shm, mark).unwrap(), None);
    }
}

fn open(settings: &Settings) -> Database {
    settings.options().unwrap().open(&settings.path).unwrap()
}

fn commit(database: &Database, sequence: u64) {
    let stamp = Stamp {
        writer: 1,
        sequence,
    };
    let mut write = database.begin_write().unwrap();
    stamp.write(1, write.page_mut(PageNo::ONE).unwrap());
    write.commit().unwrap();
}

fn stamp_of(read: &ReadTx) -> u64 {
    let page = read.page(PageNo::ONE).unwrap();
    Stamp::read(1, &page).unwrap().unwrap().sequence
}

/// For both kinds of locks, at a mark and at slot 0.
fn everywhere(work: impl Fn(&Fixture) + Copy + Send) {
    for classic_locks in [false, true] {
        for bypasses_log in [false, true] {
            at_a_slot(classic_locks, bypasses_log, work);
        }
    }
}

fn at_a_slot(classic_locks: bool, bypasses_log: bool, work: impl FnOnce(&Fixture) + Send) {
    let mut fixture = Fixture::new(classic_locks);
    if bypasses_log {
        fixture
            .database
            .checkpoint(CheckpointMode::Passive)
            .unwrap();
    }
    let read = fixture.database.begin_read().unwrap();
    assert_eq!(read.snapshot().bypasses_log(), bypasses_log);
    let slot = read.snapshot().slot().unwrap();
    fixture.expect_locks_survive(&read, work);
    drop(read);
    fixture.expect_mark_free(slot);
}

#[test]
fn a_readers_locks_survive_another_threads_reads() {
    everywhere(|fixture| {
        for _ in 0..3 {
            let one = fixture.database.begin_read().unwrap();
            let other = fixture.database.begin_read().unwrap();
            drop(one);
            drop(other);
        }
    });
}

#[test]
fn a_readers_locks_survive_another_threads_commits_and_restarts() {
    everywhere(|fixture| {
        for sequence in 2..6 {
            commit(&fixture.database, sequence);
            // So that the next commit would restart the log if it could.
            fixture
                .database
                .checkpoint(CheckpointMode::Passive)
                .unwrap();
        }
    });
}

#[test]
fn a_readers_locks_survive_another_threads_checkpoint() {
    everywhere(|fixture| {
        fixture
            .database
            .checkpoint(CheckpointMode::Passive)
            .unwrap();
    });
}

#[test]
fn a_readers_locks_survive_a_second_handle_that_is_closed() {
    everywhere(|fixture| {
        let second = open(&fixture.settings);
        assert_eq!(stamp_of(&second.begin_read().unwrap()), 1);
        commit(&second, 2);
        second.close().unwrap();
    });
}

#[test]
fn a_readers_locks_survive_files_that_are_opened_and_closed() {
    // Classic locks do not survive this, which is why they are not the usual
    // kind.
    for bypasses_log in [false, true] {
        at_a_slot(false, bypasses_log, |fixture| {
            let path = &fixture.settings.path;
            drop(File::open(path).unwrap());
            drop(File::open(beside(path, "-shm")).unwrap());
            let copy = std::fs::read(beside(path, "-wal")).unwrap();
            assert!(!copy.is_empty());
        });
    }
}

#[test]
fn another_process_neither_restarts_nor_overtakes_what_a_thread_reads() {
    let mut fixture = Fixture::new(false);
    let read = fixture.database.begin_read().unwrap();
    let settings = fixture.settings.clone();
    fixture.expect_locks_survive(&read, |_| {
        let mut other = Worker::open(&settings).unwrap();
        for sequence in 2..6 {
            let stamp = Stamp {
                writer: 2,
                sequence,
            };
            other.commit(1..2, stamp).unwrap();
            assert!(!other.checkpoint().unwrap());
        }
        other.end().unwrap();
    });
}

/// A SQLite of this process takes SHARED, which it loses with any close of the file, as
/// soon as ours, which closes as the last user, does not have it alone any more.
/// `open` opens it, and gives what closes it.
fn expect_kept_beside_a_last_closer(open: impl Fn(&Path) -> Box<dyn FnOnce()>) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pages");
    open(&path)();
    // Closed at the end, so that it is none of these closes that counts.
    let file = || File::options().read(true).write(true).open(&path).unwrap();
    let (theirs, onlookers) = (file(), file());
    let classic = ByteLocks::new(LockKind::Classic);
    let of_file = ByteLocks::new(LockKind::OpenFileDescription);
    let seen = || {
        of_file
            .conflict(&onlookers, database_bytes::SHARED)
            .unwrap()
    };
    let is_held_alone = || seen().is_some_and(|held| held.mode == LockMode::Exclusive);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut taken = 0;
    while taken < 20 {
        assert!(Instant::now() < deadline, "taken {taken} times only");
        let close = open(&path);
        let (looks, is_closed) = (Barrier::new(2), AtomicBool::new(false));
        let is_taken = thread::scope(|scope| {
            let taker = scope.spawn(|| {
                looks.wait();
                // The close may be over before it is looked at.
                while !is_held_alone() {
                    if is_closed.load(Ordering::SeqCst) {
                        return false;
                    }
                }
                let take = || classic.try_lock(&theirs, database_bytes::SHARED, LockMode::Shared);
                while !take().unwrap() {
                    assert!(Instant::now() < deadline, "it stays locked");
                }
                true
            });
            looks.wait();
            close();
            is_closed.store(true, Ordering::SeqCst);
            taker.join().unwrap()
        });
        if is_taken {
            assert!(seen().is_some(), "lost by a close");
            taken += 1;
        }
        classic.unlock(&theirs, database_bytes::SHARED).unwrap();
    }
}

#[test]
fn a_lock_that_sqlite_gets_while_ours_closes_last_is_not_lost() {
    expect_kept_beside_a_last_closer(|path| {
        let database = Database::open(path).unwrap();
        commit(&database, 1);
        Box::new(|| database.close().unwrap())
    });
    expect_kept_beside_a_last_closer(|path| {
        let database = wal::inproc::Database::open(path).unwrap();
        Box::new(|| database.close().unwrap())
    });
}
