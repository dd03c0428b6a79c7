//! A snapshot of ours and a read transaction of stock SQLite that began at the
//! same commit see the same database, however much is committed and
//! checkpointed since.

use integration::stamped;
use std::path::Path;

use integration::stock::{Rows, StockKind, StockSqlite};
use integration::worker::{Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::{CheckpointMode, Options, ReadTx};
use wal_core::storage::{OpenMode, OsFile};

/// As many states as there are read marks.
const STATES: u64 = 4;
const PAGES: u32 = 6;

/// All that stock SQLite reads: what it wrote itself, and what ours did.
fn all_rows(stock: &mut StockSqlite) -> Rows {
    let sql = "SELECT n, (SELECT a FROM stamped) FROM rows ORDER BY n";
    stock.run(sql).unwrap().unwrap()
}

/// What stock SQLite reads in a copy of our snapshot.
fn rows_of_copy(read: &ReadTx, directory: &Path, kind: StockKind) -> Rows {
    let path = directory.join("copy.db");
    let file = OsFile::open(&path, OpenMode::Create).unwrap();
    read.copy_to(&file, |_| Ok(())).unwrap();
    drop(file);
    let mut stock = StockSqlite::spawn(kind, &path, None).unwrap();
    let rows = all_rows(&mut stock);
    stock.close().unwrap();
    std::fs::remove_file(path).unwrap();
    rows
}

#[test]
fn snapshots_of_one_commit_are_the_same_to_ours_and_to_stock_sqlite() {
    for kind in StockKind::available() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let pages = stamped::create(&path, 1024, PAGES, "CREATE TABLE rows(n)").unwrap();
        let ours = Options::new().auto_checkpoint(0).open(&path).unwrap();
        let mut worker = Worker::open(&Settings::new(&path)).unwrap();
        let mut writer = StockSqlite::spawn(kind, &path, None).unwrap();
        let mut states = Vec::new();
        for sequence in 1..=STATES {
            let insert = format!("INSERT INTO rows VALUES({sequence})");
            writer.run(&insert).unwrap().unwrap();
            let stamp = Stamp {
                writer: 1,
                sequence,
            };
            worker.commit(pages.clone(), stamp).unwrap();
            let mut reader = StockSqlite::spawn(kind, &path, None).unwrap();
            reader.run("BEGIN").unwrap().unwrap();
            let rows = all_rows(&mut reader);
            assert_eq!(rows.0.len() as u64, sequence);
            let saved = ours.begin_read().unwrap().snapshot().save();
            states.push((reader, rows, saved));
            ours.checkpoint(CheckpointMode::Passive).unwrap();
        }
        writer.run("DELETE FROM rows").unwrap().unwrap();
        for (reader, rows, saved) in &mut states {
            assert_eq!(
                &all_rows(reader),
                rows,
                "{kind}: stock SQLite's own snapshot"
            );
            let read = ours.open_snapshot(saved).unwrap();
            let copied = rows_of_copy(&read, directory.path(), kind);
            assert_eq!(&copied, rows, "{kind}: our snapshot");
        }
    }
}
