//! Where pages are slices of mapped files, and where they are copies.
#![cfg(feature = "shm")]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wal::{DatabaseKind, LockKind, Options, PageNo, ReadStrategy};

/// A page store with one page of ones, in the database file alone.
fn make(path: &Path) {
    let database = Options::new()
        .kind(DatabaseKind::RawPages)
        .open_shm(path)
        .unwrap();
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap().fill(1);
    write.commit().unwrap();
    database.close().unwrap();
}

#[test]
fn pages_are_mapped_only_where_locks_keep_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    make(&path);
    let mapped = |options: Options| {
        let database = options.open_shm(&path).unwrap();
        let read = database.begin_read().unwrap();
        read.page(PageNo::ONE).unwrap().is_mapped()
    };
    assert!(mapped(Options::new().kind(DatabaseKind::RawPages)));
    assert!(!mapped(
        Options::new()
            .kind(DatabaseKind::RawPages)
            .read_strategy(ReadStrategy::Pread)
    ));
    assert!(!mapped(
        Options::new()
            .kind(DatabaseKind::RawPages)
            .lock_kind(LockKind::Classic)
    ));
    assert!(!mapped(
        Options::new().kind(DatabaseKind::RawPages).immutable(true)
    ));
    let beside = Options::new()
        .kind(DatabaseKind::RawPages)
        .open_shm(&path)
        .unwrap();
    assert!(mapped(
        Options::new().kind(DatabaseKind::RawPages).read_only(true)
    ));
    assert!(!mapped(
        Options::new().kind(DatabaseKind::RawPages).immutable(true)
    ));
    beside.close().unwrap();
}

#[test]
fn immutable_page_stays_while_its_file_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    make(&path);
    let database = Options::new()
        .kind(DatabaseKind::RawPages)
        .immutable(true)
        .open_shm(&path)
        .unwrap();
    let read = database.begin_read().unwrap();
    let page = read.page(PageNo::ONE).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[9; 100], 0).unwrap();
    assert_eq!(*black_box(&*page), [1; 4096]);
    file.set_len(0).unwrap();
    assert_eq!(*black_box(&*page), [1; 4096]);
}

#[cfg(feature = "inproc")]
#[test]
fn pages_of_one_process_are_mapped_unless_a_close_drops_its_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    make(&path);
    let mapped = |options: Options| {
        let database = wal::inproc::Database::open_with(&path, &options).unwrap();
        let read = database.begin_read().unwrap();
        read.page(PageNo::ONE).unwrap().is_mapped()
    };
    assert!(mapped(Options::new().kind(DatabaseKind::RawPages)));
    assert!(!mapped(
        Options::new()
            .kind(DatabaseKind::RawPages)
            .read_strategy(ReadStrategy::Pread)
    ));
    assert!(!mapped(
        Options::new()
            .kind(DatabaseKind::RawPages)
            .lock_kind(LockKind::Classic)
    ));
}
