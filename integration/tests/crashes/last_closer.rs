//! The last closer moves the log into the database and removes what lies
//! beside it; nobody else does.

use std::path::PathBuf;

use integration::worker::{Settings, Stamp, Worker};
use tempfile::TempDir;
use wal_core::LockMode;
use wal_core::storage::{ByteLocks, LockKind, beside, shm_bytes};

const STAMP: Stamp = Stamp {
    writer: 1,
    sequence: 1,
};

struct Fixture {
    settings: Settings,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        Fixture {
            settings: Settings::new(&directory.path().join("pages")),
            _directory: directory,
        }
    }

    fn worker(&self) -> Worker {
        Worker::open(&self.settings).unwrap()
    }

    fn in_this_process(&self) -> wal::Database {
        let options = self.settings.options().unwrap();
        options.open(&self.settings.path).unwrap()
    }

    /// The files beside the database that are there.
    fn beside(&self) -> Vec<&'static str> {
        let path = |suffix| -> PathBuf { beside(&self.settings.path, suffix) };
        let mut there = vec!["-wal", "-shm", "-coord"];
        there.retain(|suffix| path(suffix).exists());
        there
    }
}

const ALL: [&str; 3] = ["-wal", "-shm", "-coord"];
const NONE: [&str; 0] = [];

#[test]
fn only_the_last_process_to_close_removes_the_files() {
    let fixture = Fixture::new();
    let (mut first, second) = (fixture.worker(), fixture.worker());
    first.commit(1..2, STAMP).unwrap();
    assert_eq!(fixture.beside(), ALL);
    second.end().unwrap();
    assert_eq!(fixture.beside(), ALL);
    assert_eq!(first.newest_stamps(1..2).unwrap(), [Some(STAMP)]);
    first.end().unwrap();
    assert_eq!(fixture.beside(), NONE);
    let mut later = fixture.worker();
    assert_eq!(later.newest_stamps(1..2).unwrap(), [Some(STAMP)]);
}

#[test]
fn only_the_last_handle_of_a_process_removes_the_files() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.in_this_process(), fixture.in_this_process());
    let clone = first.clone();
    let mut write = first.begin_write().unwrap();
    STAMP.write(1, write.page_mut(wal::PageNo::ONE).unwrap());
    write.commit().unwrap();
    first.close().unwrap();
    assert_eq!(fixture.beside(), ALL);
    clone.close().unwrap();
    assert_eq!(fixture.beside(), ALL);
    let read = second.begin_read().unwrap();
    let page = Stamp::read(1, &read.page(wal::PageNo::ONE).unwrap());
    assert_eq!(page.unwrap(), Some(STAMP));
    drop(read);
    second.close().unwrap();
    assert_eq!(fixture.beside(), NONE);
}

#[test]
fn a_process_that_outlives_a_killed_one_is_the_last_closer() {
    let fixture = Fixture::new();
    let (mut killed, survivor) = (fixture.worker(), fixture.worker());
    killed.commit(1..2, STAMP).unwrap();
    killed.begin_read("held").unwrap();
    killed.kill().unwrap();
    survivor.end().unwrap();
    assert_eq!(fixture.beside(), NONE);
}

#[test]
fn a_log_left_behind_by_a_killed_process_is_recovered_and_then_removed() {
    let fixture = Fixture::new();
    let mut killed = fixture.worker();
    killed.commit(1..2, STAMP).unwrap();
    killed.kill().unwrap();
    assert_eq!(fixture.beside(), ALL);
    let mut next = fixture.worker();
    assert_eq!(next.newest_stamps(1..2).unwrap(), [Some(STAMP)]);
    next.end().unwrap();
    assert_eq!(fixture.beside(), NONE);
}

#[test]
fn a_database_closed_beside_a_reader_in_another_process_keeps_its_log() {
    let fixture = Fixture::new();
    let mut reader = fixture.worker();
    reader.commit(1..2, STAMP).unwrap();
    reader.begin_read("held").unwrap();
    let mut writer = fixture.worker();
    let newer = Stamp {
        sequence: 2,
        ..STAMP
    };
    writer.commit(1..2, newer).unwrap();
    writer.end().unwrap();
    assert_eq!(fixture.beside(), ALL);
    assert_eq!(reader.stamps("held", 1..2).unwrap(), [Some(STAMP)]);
    assert_eq!(reader.newest_stamps(1..2).unwrap(), [Some(newer)]);
}

/// Whatever it holds on the database file, it uses the index (`unixIsSharingShmNode`).
#[test]
fn closer_beside_a_user_of_the_index_alone_removes_nothing() {
    let fixture = Fixture::new();
    let database = fixture.in_this_process();
    let mut write = database.begin_write().unwrap();
    STAMP.write(1, write.page_mut(wal::PageNo::ONE).unwrap());
    write.commit().unwrap();
    let index = std::fs::File::open(beside(&fixture.settings.path, "-shm")).unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let attached = locks.try_lock(&index, shm_bytes::DMS, LockMode::Shared);
    assert!(attached.unwrap());
    database.close().unwrap();
    assert_eq!(fixture.beside(), ALL);
    drop(index);
    fixture.in_this_process().close().unwrap();
    assert_eq!(fixture.beside(), NONE);
}

/// What lies at its old name is the log of another database by now.
#[test]
fn closer_of_a_moved_database_removes_nothing_at_its_old_name() {
    let fixture = Fixture::new();
    let database = fixture.in_this_process();
    let mut write = database.begin_write().unwrap();
    STAMP.write(1, write.page_mut(wal::PageNo::ONE).unwrap());
    write.commit().unwrap();
    let old = &fixture.settings.path;
    for suffix in ["", "-wal", "-shm", "-coord"] {
        let moved = beside(&old.with_file_name("moved"), suffix);
        std::fs::rename(beside(old, suffix), moved).unwrap();
    }
    let mut other = fixture.worker();
    let newer = Stamp {
        sequence: 2,
        ..STAMP
    };
    other.commit(1..2, newer).unwrap();
    other.kill().unwrap();
    assert_eq!(fixture.beside(), ALL);
    // It may refuse, and must not remove.
    drop(database.close());
    assert_eq!(fixture.beside(), ALL);
    let mut next = fixture.worker();
    assert_eq!(next.newest_stamps(1..2).unwrap(), [Some(newer)]);
    next.end().unwrap();
}
