//! A real disk becomes full under a database: what does not fit is refused, by an error
//! that says so, and what was acknowledged stays.

#![cfg(target_os = "linux")] // Where the disk is mounted.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use integration::disk::{FileSystem, fill, free_space, with_disk};
use wal::generic::Database;
use wal::{CheckpointMode, DatabaseKind, Options, PageNo, PageSize, Result};

const DISK: u64 = 16 << 20;
const PAGE: u64 = 4096;

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .page_size(PageSize::new(4096).unwrap())
        .auto_checkpoint(0)
}

fn number(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

/// Fills pages 1 to `pages` with `byte`, and adds those that are not there.
fn commit<B: wal::Backend>(database: &Database<B>, pages: u32, byte: u8) -> Result<()> {
    let mut tx = database.begin_write()?;
    while tx.page_count() < pages {
        tx.allocate()?;
    }
    for page in 1..=pages {
        tx.page_mut(number(page))?.fill(byte);
    }
    tx.commit().map(drop)
}

/// The first bytes of all pages, which are filled with one byte each.
fn bytes<B: wal::Backend>(database: &Database<B>) -> Vec<u8> {
    let read = database.begin_read().unwrap();
    let byte = |page| {
        let page = read.page(number(page)).unwrap();
        assert!(page.iter().all(|byte| *byte == page[0]), "a torn page");
        page[0]
    };
    (1..=read.page_count()).map(byte).collect()
}

#[track_caller]
fn expect_full<T: Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert!(error.is_storage_full(), "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("free some space, then try again")
    );
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// What a database does on a disk that becomes full, and has room again.
fn on_a_full_disk<B: wal::Backend>(directory: &Path) {
    let path = directory.join("pages");
    let log = directory.join("pages-wal");
    let database = Database::<B>::open_with(&path, &options()).unwrap();
    commit(&database, 100, 1).unwrap();
    let before = len(&log);

    // More than there is room for, which can be known: nothing is written.
    let filler = fill(directory, 1 << 20).unwrap();
    let free = free_space(directory).unwrap();
    expect_full(commit(&database, 500, 2));
    assert_eq!((len(&log), free_space(directory).unwrap()), (before, free));
    assert_eq!(bytes(&database), [1; 100]);

    // Small commits go on until one finds no room.
    let mut last = 1;
    while let Ok(()) = commit(&database, 20, last + 1) {
        last += 1;
        assert!(last < 100, "the disk does not become full");
    }
    assert!(last > 1, "a small commit had room");
    expect_full(commit(&database, 20, 99));
    let expected = [vec![last; 20], vec![1; 80]].concat();
    assert_eq!(bytes(&database), expected);

    // A checkpoint would let the database file grow.
    expect_full(database.checkpoint(CheckpointMode::Passive));
    assert_eq!(len(&path), PAGE, "nothing was written");
    assert_eq!(bytes(&database), expected);

    // A backup leaves no file.
    let copy = directory.join("copy");
    expect_full(database.backup(&copy, |_| panic!("something was copied")));
    let mut left: Vec<_> = fs::read_dir(directory).unwrap().collect();
    left.retain(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("copy")
    });
    assert!(left.is_empty(), "{left:?}");

    // With room again everything goes on, in this process and in the next one.
    fs::remove_file(filler).unwrap();
    let report = database.checkpoint(CheckpointMode::Truncate).unwrap();
    assert!(report.is_complete());
    database.backup(&copy, |_| Ok(())).unwrap();
    commit(&database, 20, 200).unwrap();
    let expected = [vec![200; 20], vec![1; 80]].concat();
    assert_eq!(bytes(&database), expected);
    database.close().unwrap();
    let again = Database::<B>::open_with(&path, &options()).unwrap();
    assert_eq!(bytes(&again), expected);
    again.close().unwrap();
}

/// A process that opens a database where a write found no room finds what was
/// acknowledged.
fn opened_again_on_a_full_disk<B: wal::Backend>(directory: &Path) {
    let path = directory.join("pages");
    let database = Database::<B>::open_with(&path, &options()).unwrap();
    commit(&database, 60, 1).unwrap();
    let filler = fill(directory, 40 * PAGE).unwrap();
    let mut last = 1;
    while let Ok(()) = commit(&database, 7, last + 1) {
        last += 1;
        assert!(last < 100, "the disk does not become full");
    }
    // The last closer cannot move the log, which stays.
    expect_full(database.close());
    fs::remove_file(filler).unwrap();
    let again = Database::<B>::open_with(&path, &options()).unwrap();
    assert_eq!(bytes(&again), [vec![last; 7], vec![1; 53]].concat());
    again.close().unwrap();
    assert!(!directory.join("pages-wal").exists());
}

/// Both backends, on a disk each.
macro_rules! on_disks {
    ($scene:ident) => {
        if FileSystem::Tmpfs
            .need()
            .is_met(concat!(stringify!($scene), " on a disk that is full"))
        {
            with_disk(
                FileSystem::Tmpfs,
                DISK,
                $scene::<wal_shm::ShmWalCoordination>,
            )
            .unwrap();
            with_disk(
                FileSystem::Tmpfs,
                DISK,
                $scene::<wal_inproc::InProcessWalCoordination>,
            )
            .unwrap();
        }
    };
}

#[test]
fn full_disk_refuses_what_does_not_fit_and_keeps_the_rest() {
    on_disks!(on_a_full_disk);
}

#[test]
fn full_disk_leaves_a_log_that_the_next_opener_recovers() {
    on_disks!(opened_again_on_a_full_disk);
}
