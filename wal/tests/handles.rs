//! Several handles of one process.
#![cfg(feature = "shm")]

use wal::{Error, Options, PageNo, ReadStrategy};

#[test]
fn a_second_handle_that_reads_in_another_way_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let first = Options::new().open(&path).unwrap();
    let other = Options::new().read_strategy(ReadStrategy::Pread);
    assert!(matches!(other.open(&path), Err(Error::CannotOpen { .. })));
    let second = Options::new().open(&path).unwrap();
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
