//! Several handles of one process.
#![cfg(feature = "shm")]

use std::time::{Duration, Instant};

use wal::{DatabaseKind, Error, Lock, Options, PageNo, ReadStrategy};

#[test]
fn a_second_handle_that_reads_in_another_way_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let first = Options::new()
        .kind(DatabaseKind::RawPages)
        .open(&path)
        .unwrap();
    let other = Options::new()
        .kind(DatabaseKind::RawPages)
        .read_strategy(ReadStrategy::Pread);
    assert!(matches!(other.open(&path), Err(Error::CannotOpen { .. })));
    let second = Options::new()
        .kind(DatabaseKind::RawPages)
        .open(&path)
        .unwrap();
    second.close().unwrap();
    first.close().unwrap();
    let copied = other.open(&path).unwrap();
    assert!(
        !copied
            .begin_read()
            .unwrap()
            .page(PageNo::ONE)
            .unwrap()
            .is_mapped()
    );
    copied.close().unwrap();
}

#[test]
fn who_does_not_want_to_wait_for_a_writer_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let patience = Duration::from_secs(60);
    let open = || {
        Options::new()
            .kind(DatabaseKind::RawPages)
            .busy_timeout(patience)
            .open(&path)
            .unwrap()
    };
    let (first, second) = (open(), open());
    let started = Instant::now();
    let write = first.try_begin_write().unwrap();
    let refused = second.try_begin_write();
    let busy = matches!(
        refused,
        Err(Error::Busy {
            lock: Lock::Write,
            ..
        })
    );
    assert!(busy, "{refused:?}");
    write.commit().unwrap();
    second.try_begin_write().unwrap().rollback();
    assert!(started.elapsed() < patience / 2, "it waited");
}
