//! What the threads of a process do beside each other costs none of them its
//! locks: another process asks the system for them.

use std::fs::File;
use std::sync::Barrier;
use std::thread;

use integration::worker::{HeldByte, Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::{CheckpointMode, Database, PageNo, ReadTx};
use wal_core::storage::{beside, database_bytes, shm_bytes};
use wal_core::{Lock, ReadSlot};

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
