//! Databases that the library left behind: closed, or copied while it had them
//! open.

use std::fs;

use fixtures::copy_folder;
use integration::folder::FolderState;
use integration::reading::Contents;
use integration::stock::StockKind;
use tempfile::TempDir;
use wal::generic::Database;

use super::ours::{self, Model, digests_by_new_stock, new_bank, read_by_new_stock, transfer};

const PAGE_SIZES: [u32; 4] = [512, 1024, 4096, 65536];

/// Some transfers, with a checkpoint among them, so that part of the log is
/// backfilled; then what the library itself reads.
fn change<B: wal::Backend>(database: &Database<B>, model: &mut Model, seed: u64) -> Contents {
    let mut rng = fastrand::Rng::with_seed(seed);
    for step in 0..30 {
        transfer(database, model, Model::random_transfer(&mut rng));
        if step == 19 {
            let report = database.checkpoint(wal::CheckpointMode::Passive).unwrap();
            assert!(report.is_complete());
        }
    }
    assert_eq!(&ours::read(database), model);
    Contents::of(database).unwrap()
}

/// Every kind of stock SQLite finds in copies of `folder` what the model and
/// the library say.
pub(crate) fn stock_agrees(
    folder: &std::path::Path,
    page_size: u32,
    model: &Model,
    contents: &Contents,
) {
    for kind in StockKind::available() {
        let copy = TempDir::new().unwrap();
        copy_folder(folder, copy.path()).unwrap();
        let path = copy.path().join("bank.db");
        assert_eq!(&read_by_new_stock(kind, &path), model, "{kind}");

        let copy = TempDir::new().unwrap();
        copy_folder(folder, copy.path()).unwrap();
        let path = copy.path().join("bank.db");
        let digests = digests_by_new_stock(kind, &path, page_size);
        assert_eq!(digests, contents.pages, "{kind}");
    }
}

#[test]
fn a_database_that_we_closed() {
    for (page_size, seed) in PAGE_SIZES.into_iter().zip(1..) {
        for shared in [true, false] {
            let (folder, path, mut model) = new_bank(page_size);
            let contents = if shared {
                let database = ours::options().open_shm(&path).unwrap();
                let contents = change(&database, &mut model, seed);
                database.close().unwrap();
                contents
            } else {
                let database = ours::options().open_inproc(&path).unwrap();
                let contents = change(&database, &mut model, seed);
                database.close().unwrap();
                contents
            };
            let state = FolderState::of(folder.path()).unwrap();
            assert_eq!(state.names(), ["bank.db"]);
            stock_agrees(folder.path(), page_size, &model, &contents);
        }
    }
}

#[test]
fn the_files_of_a_database_that_we_have_open() {
    for (page_size, seed) in PAGE_SIZES.into_iter().zip(11..) {
        let (folder, path, mut model) = new_bank(page_size);
        let database = ours::options().open_shm(&path).unwrap();
        let contents = change(&database, &mut model, seed);
        let copy = TempDir::new().unwrap();
        copy_folder(folder.path(), copy.path()).unwrap();
        stock_agrees(copy.path(), page_size, &model, &contents);
        // Without the index, it has to recover our log.
        fs::remove_file(copy.path().join("bank.db-shm")).unwrap();
        stock_agrees(copy.path(), page_size, &model, &contents);
        database.close().unwrap();

        let (folder, path, mut model) = new_bank(page_size);
        let database = ours::options().open_inproc(&path).unwrap();
        let contents = change(&database, &mut model, seed);
        stock_agrees(folder.path(), page_size, &model, &contents);
        database.close().unwrap();
    }
}

#[test]
fn the_files_left_by_a_writer_that_never_closed() {
    let (folder, path, mut model) = new_bank(1024);
    let database = ours::options().open_inproc(&path).unwrap();
    let contents = change(&database, &mut model, 21);
    // A transaction that is not committed leaves no trace.
    let mut write = database.begin_write().unwrap();
    write.page_mut(wal::PageNo::ONE).unwrap().fill(0xee);
    stock_agrees(folder.path(), 1024, &model, &contents);
    write.rollback();
    stock_agrees(folder.path(), 1024, &model, &contents);
    database.close().unwrap();
}
