//! The disk becomes full on every kind of file system: no process gets a signal, nothing
//! that was acknowledged is lost, stock SQLite agrees, and all goes on once there is room.
//!
//! `make test` does this on those file systems that differ most, and `make soak` on all
//! (`WAL_FILE_SYSTEMS=all`).

#![cfg(target_os = "linux")] // Where disks are mounted.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use integration::disk::{FileSystem, fill, with_disk};
use integration::stock::{StockKind, StockSqlite};
use integration::worker::Stamp;
use wal::{CheckpointMode, Database, Error, Options, PageNo, Result};

const PAGE: u32 = 512;
/// Overflow pages of the one row of the database, which both sides change.
const FIRST: u32 = 10;
const LAST: u32 = 900;
/// Format section 4: the first block of the index has an entry less for each word of its
/// header.
const FRAMES_IN_FIRST_BLOCK: u64 = 4096 - 34;

fn is_soak() -> bool {
    env::var("WAL_FILE_SYSTEMS").is_ok_and(|which| which == "all")
}

fn systems() -> Vec<FileSystem> {
    let chosen = match is_soak() {
        true => &FileSystem::ALL[..],
        false => &FileSystem::ALL[..3],
    };
    let on = |system: &FileSystem| system.need().is_met(&format!("a full disk with {system}"));
    chosen.iter().copied().filter(on).collect()
}

/// How much is left free on the disk, up to `end`: in steps that are less than any block, or
/// that end at different places of one.
fn amounts(end: u64) -> impl Iterator<Item = u64> {
    let step = if is_soak() { 512 } else { 3 * 512 + 1024 };
    (0..end).step_by(step).chain([4 << 20])
}

/// Removes the file that fills the disk. Some file systems have its room only after a sync.
fn free_again(filler: &Path) {
    fs::remove_file(filler).unwrap();
    let directory = fs::File::open(filler.parent().unwrap()).unwrap();
    nix::unistd::syncfs(&directory).unwrap();
}

fn number(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

/// A database of stock SQLite, in WAL mode, with a row that has all the pages.
fn make(path: &Path) -> StockSqlite {
    let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
    for sql in [
        &format!("PRAGMA page_size={PAGE}"),
        "PRAGMA journal_mode=WAL",
        "PRAGMA wal_autocheckpoint=0",
        "CREATE TABLE big (bytes BLOB)",
        &format!("INSERT INTO big VALUES (zeroblob({}))", LAST * PAGE),
        "CREATE TABLE small (number INTEGER)",
        "INSERT INTO small VALUES (0)",
    ] {
        stock.run(sql).unwrap().unwrap();
    }
    stock
}

fn integer(stock: &mut StockSqlite, sql: &str) -> i64 {
    stock.run(sql).unwrap().unwrap().integer().unwrap()
}

#[track_caller]
fn check_integrity(stock: &mut StockSqlite) {
    let rows = stock.run("PRAGMA integrity_check").unwrap().unwrap();
    assert_eq!(rows.text().unwrap(), "ok");
}

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

fn commit(database: &Database, pages: impl Iterator<Item = u32>, sequence: u64) -> Result<()> {
    let mut tx = database.begin_write()?;
    for page in pages {
        stamp(sequence).write(page, tx.page_mut(number(page))?);
    }
    tx.commit().map(drop)
}

fn stamp_of(database: &Database, page: u32) -> Result<Option<Stamp>> {
    let read = database.begin_read()?;
    Ok(Stamp::read(page, &read.page(number(page))?).unwrap())
}

#[track_caller]
fn assert_full(error: &Error) {
    assert!(error.is_storage_full(), "{error:?}");
}

fn options() -> Options {
    Options::new().auto_checkpoint(0)
}

/// The files of a killed process, with `frames` frames in the log; the last commit is 9.
fn leave_killed(directory: &Path, frames: u64) -> PathBuf {
    let path = directory.join("killed");
    let stock = make(&path);
    let database = Database::open_with(&path, &options()).unwrap();
    let missing = || frames.checked_sub(frames_in(&path)).unwrap();
    while missing() > u64::from(LAST - FIRST) {
        commit(&database, FIRST..LAST, 8).unwrap();
    }
    let last = FIRST + u32::try_from(missing()).unwrap();
    commit(&database, FIRST..last, 9).unwrap();
    assert_eq!(missing(), 0);
    // The files are copied while they are in use, as they are at a kill.
    for end in ["", "-wal"] {
        fs::copy(beside(&path, end), beside(&directory.join("left"), end)).unwrap();
    }
    database.close().unwrap();
    stock.close().unwrap();
    directory.join("left")
}

fn copy_left(left: &Path, path: &Path) {
    for end in ["", "-wal"] {
        fs::copy(beside(left, end), beside(path, end)).unwrap();
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

fn frames_in(path: &Path) -> u64 {
    let log = fs::metadata(beside(path, "-wal")).unwrap().len();
    log.saturating_sub(32) / u64::from(PAGE + 24)
}

/// Adds a block to the index as a process of SQLite does that is killed before it stores
/// anything there: one byte for each 4 KiB (`unixShmMap`).
fn extend_index_as_stock(path: &Path) {
    let index = fs::File::options().write(true).open(beside(path, "-shm"));
    for unit in 8..16 {
        let index = index.as_ref().unwrap();
        index.write_all_at(&[0], unit * 4096 + 4095).unwrap();
    }
}

/// Small commits, which go on in a block of the index that a process of SQLite has left with
/// holes, until there is no room.
fn commits_in_a_block_with_holes(directory: &Path) {
    let left = leave_killed(directory, FRAMES_IN_FIRST_BLOCK - 4);
    let path = directory.join("beside");
    let mut acknowledged = 0;
    for free in amounts(40 << 10) {
        copy_left(&left, &path);
        let mut stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
        check_integrity(&mut stock);
        extend_index_as_stock(&path);
        let database = Database::open_with(&path, &options().close_descriptors(true)).unwrap();
        assert_eq!(stamp_of(&database, FIRST).unwrap(), Some(stamp(9)));
        let filler = fill(directory, free).unwrap();
        let mut last = None;
        for page in FIRST..LAST {
            match commit(&database, page..page + 1, 10) {
                Ok(()) => last = Some(page),
                Err(e) => {
                    assert_full(&e);
                    break;
                }
            }
        }
        if let Some(page) = last {
            acknowledged += 1;
            assert_eq!(stamp_of(&database, page).unwrap(), Some(stamp(10)));
        }
        free_again(&filler);
        go_on(&database, &mut stock, 11);
        database.close().unwrap();
        stock.close().unwrap();
    }
    assert!(acknowledged > 0, "no commit had room");
}

/// A log of two blocks of the index is recovered on a disk that is nearly full.
fn recovery_of_a_long_log(directory: &Path) {
    let left = leave_killed(directory, FRAMES_IN_FIRST_BLOCK + 1000);
    let path = directory.join("recovered");
    let mut outcomes = [0, 0];
    for free in amounts(100 << 10) {
        copy_left(&left, &path);
        let filler = fill(directory, free).unwrap();
        let again = Database::open_with(&path, &options().close_descriptors(true));
        let seen = again.and_then(|database| {
            let seen = stamp_of(&database, FIRST);
            // There may be no room to move the log.
            let _ = database.close();
            seen
        });
        match seen {
            Ok(seen) => {
                assert_eq!(seen, Some(stamp(9)));
                outcomes[0] += 1;
            }
            Err(e) => {
                assert_full(&e);
                outcomes[1] += 1;
            }
        }
        free_again(&filler);
        let mut stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
        check_integrity(&mut stock);
        stock.close().unwrap();
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// With room again, both sides go on.
fn go_on(database: &Database, stock: &mut StockSqlite, sequence: u64) {
    commit(database, FIRST..LAST, sequence).unwrap();
    stock
        .run("UPDATE small SET number = number + 1")
        .unwrap()
        .unwrap();
    assert!(
        database
            .checkpoint(CheckpointMode::Truncate)
            .unwrap()
            .is_complete()
    );
    assert_eq!(stamp_of(database, LAST - 1).unwrap(), Some(stamp(sequence)));
    check_integrity(stock);
    assert!(integer(stock, "SELECT number FROM small") > 0);
}

#[test]
fn commit_on_a_full_disk_beside_stock_gets_no_signal() {
    // On btrfs a store to an index that SQLite has made needs room each time.
    let all = systems().into_iter();
    for system in all.filter(|system| *system != FileSystem::Btrfs) {
        println!("{system}");
        with_disk(system, 0, commits_in_a_block_with_holes).unwrap();
    }
}

#[test]
fn recovery_on_a_full_disk_gets_no_signal() {
    for system in systems() {
        println!("{system}");
        with_disk(system, 0, recovery_of_a_long_log).unwrap();
    }
}
