//! No commit changes page 1 so that the file is something else afterwards.

use std::fs;
use std::path::Path;

use wal::generic::{Database, WriteTx};
use wal::{
    Backend, CheckpointMode, DatabaseKind, Error, PAGE_STORE_HEADER_LEN, PageNo, Result,
    VacuumOptions,
};

use super::{expect_rows, options, sqlite_database};

fn expect_refused(result: Result<()>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("page 1"), "{error}");
}

/// Changes bytes of page 1 by a transaction, after `then`.
fn write_page_one<B: Backend>(
    database: &Database<B>,
    at: usize,
    bytes: &[u8],
    then: impl FnOnce(&mut WriteTx<B>),
) -> Result<()> {
    let mut write = database.begin_write()?;
    write.page_mut(PageNo::ONE)?[at..at + bytes.len()].copy_from_slice(bytes);
    then(&mut write);
    write.commit().map(drop)
}

fn spills<B: Backend>(write: &mut WriteTx<B>) {
    write.spill().unwrap();
}

/// What an application does that takes the database for a page store.
fn expect_database_survives<B: Backend>(database: Database<B>, path: &Path) {
    for (at, bytes) in [
        (0, &[7][..]),
        (15, &[1]),
        (16, &[2, 0]),
        (16, &[0, 0]),
        (18, &[1, 1]),
        (19, &[1]),
        (19, &[3]),
        (18, &[9]),
        (21, &[0, 0, 0]),
        (0, &[0; 100]),
    ] {
        expect_refused(write_page_one(&database, at, bytes, |_| ()));
        expect_refused(write_page_one(&database, at, bytes, spills));
    }
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[0] = 7;
    let savepoint = write.savepoint();
    write.page_mut(PageNo::ONE).unwrap()[0] = b'S';
    write.rollback_to(savepoint).unwrap();
    expect_refused(write.commit().map(drop));
    // The user version, and a page of its own.
    write_page_one(&database, 60, &[1], |_| ()).unwrap();
    database.checkpoint(CheckpointMode::Truncate).unwrap();
    database.close().unwrap();
    expect_rows(path);
}

#[test]
fn commit_that_destroys_a_sqlite_header_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    sqlite_database(&path);
    expect_database_survives(options().open_shm(&path).unwrap(), &path);
    expect_database_survives(options().open_inproc(&path).unwrap(), &path);
}

fn expect_store_survives<B: Backend>(database: Database<B>) {
    for at in 0..PAGE_STORE_HEADER_LEN {
        let byte = database.begin_read().unwrap().page(PageNo::ONE).unwrap()[at] ^ 1;
        expect_refused(write_page_one(&database, at, &[byte], |_| ()));
    }
    expect_refused(write_page_one(&database, 0, &[7], spills));
    for vacuum in [VacuumOptions::new(), VacuumOptions::new().exclusive()] {
        let page = vec![9; database.page_size().len()];
        expect_refused(
            database
                .vacuum(&vacuum, |_, new| new.push(&page).map(drop))
                .map(drop),
        );
        let kept = |old: &wal::OldPages<B>, new: &mut wal::NewPages<'_, B>| {
            new.push(&old.page(PageNo::ONE)?).map(drop)
        };
        database.vacuum(&vacuum, kept).unwrap();
    }
    write_page_one(&database, PAGE_STORE_HEADER_LEN, &[7], |_| ()).unwrap();
    database.close().unwrap();
}

#[test]
fn commit_that_destroys_the_header_of_a_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    let asked = options().kind(DatabaseKind::PageStore);
    expect_store_survives(asked.open_shm(&path).unwrap());
    expect_store_survives(asked.open_inproc(&path).unwrap());
    let database = options().open(&path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(read.page(PageNo::ONE).unwrap()[PAGE_STORE_HEADER_LEN], 7);
}

#[test]
fn raw_pages_do_not_become_another_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = (folder.path().join("raw"), folder.path().join("pages"));
    let pages = options().kind(DatabaseKind::PageStore);
    pages.open(&store).unwrap().close().unwrap();
    let header = fs::read(&store).unwrap()[..PAGE_STORE_HEADER_LEN].to_vec();
    let raw = options().kind(DatabaseKind::RawPages);
    let database = raw.open(&path).unwrap();
    for bytes in [&header[..], b"SQLite format 3\0"] {
        expect_refused(write_page_one(&database, 0, bytes, |_| ()));
        expect_refused(write_page_one(&database, 0, bytes, spills));
    }
    write_page_one(&database, 0, &[7], |_| ()).unwrap();
    database.close().unwrap();
    raw.open(&path).unwrap().close().unwrap();
}

/// A replica is what its source is.
#[test]
fn applied_page_one_of_another_kind_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, sqlite) = (folder.path().join("raw"), folder.path().join("app.db"));
    sqlite_database(&sqlite);
    let raw = options()
        .kind(DatabaseKind::RawPages)
        .auto_checkpoint(0)
        .open(&raw)
        .unwrap();
    let mut tail = raw.tail().unwrap();
    write_page_one(&raw, 0, &[7], |_| ()).unwrap();
    let database = options().open(&sqlite).unwrap();
    let mut apply = database.begin_apply().unwrap();
    tail.advance().unwrap();
    let error = apply.apply_frames(tail.log_so_far(), None).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("page 1"), "{error}");
    drop(apply);
    database.close().unwrap();
    expect_rows(&sqlite);
}

/// Stock SQLite compares the counter to find out whether its cache is stale.
#[test]
fn change_counter_goes_on_whatever_the_caller_writes_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    sqlite_database(&path);
    let counter = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]])
    };
    let before = counter(&path);
    let database = options().open(&path).unwrap();
    write_page_one(&database, 24, &[0; 4], |_| ()).unwrap();
    database.close().unwrap();
    assert_eq!(counter(&path), before + 1);
    expect_rows(&path);
}
