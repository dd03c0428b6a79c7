//! Files that somebody cut or removed against the rules: a typed error, or no
//! harm at all.

use std::fs::File;
use std::path::PathBuf;

use integration::worker::{Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::{DatabaseKind, Error, Options, PageNo, ReadStrategy};
use wal_core::storage::beside;

const STAMP: Stamp = Stamp {
    writer: 1,
    sequence: 1,
};

/// A page store of four pages that are all in the database file.
fn store() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pages");
    let database = Options::new()
        .kind(DatabaseKind::RawPages)
        .open(&path)
        .unwrap();
    let mut write = database.begin_write().unwrap();
    STAMP.write(1, write.page_mut(PageNo::ONE).unwrap());
    for number in 2..=4 {
        let page = write.allocate().unwrap();
        STAMP.write(number, write.page_mut(page).unwrap());
    }
    write.commit().unwrap();
    database.close().unwrap();
    (directory, path)
}

#[test]
fn a_database_file_cut_under_a_reader_that_copies_is_a_typed_error() {
    let (_directory, path) = store();
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .read_strategy(ReadStrategy::Pread);
    let database = options.open(&path).unwrap();
    let read = database.begin_read().unwrap();
    let last = PageNo::new(4).unwrap();
    assert_eq!(
        Stamp::read(4, &read.page(last).unwrap()).unwrap(),
        Some(STAMP)
    );
    let file = File::options().write(true).open(&path).unwrap();
    let page = u64::from(database.page_size().bytes());
    file.set_len(3 * page + page / 2).unwrap();
    let error = read.page(last).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let still_there = read.page(PageNo::new(3).unwrap()).unwrap();
    assert_eq!(Stamp::read(3, &still_there).unwrap(), Some(STAMP));
}

#[test]
fn an_index_left_beside_an_empty_log_or_none_says_nothing() {
    for log_is_there in [true, false] {
        let (_directory, path) = store();
        let mut killed = Worker::open(&Settings::new(&path)).unwrap();
        let newer = Stamp {
            sequence: 2,
            ..STAMP
        };
        killed.commit(1..3, newer).unwrap();
        killed.kill().unwrap();
        let log = beside(&path, "-wal");
        assert!(beside(&path, "-shm").metadata().unwrap().len() > 0);
        if log_is_there {
            File::create(&log).unwrap();
        } else {
            std::fs::remove_file(&log).unwrap();
        }
        let mut next = Worker::open(&Settings::new(&path)).unwrap();
        assert_eq!(next.newest_stamps(1..5).unwrap(), [Some(STAMP); 4]);
        next.commit(1..5, newer).unwrap();
        assert_eq!(next.newest_stamps(1..5).unwrap(), [Some(newer); 4]);
        next.end().unwrap();
    }
}
