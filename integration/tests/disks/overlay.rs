//! A database in the lower layer of an overlay, as in the image of a container: the first
//! process that opens a file for writing has it copied to the upper layer, while others go
//! on with descriptors and mappings of the lower one.

#![cfg(target_os = "linux")] // Where overlays are mounted.

use std::fs;
use std::path::{Path, PathBuf};

use integration::disk::{FileSystem, mount_overlay, with_disk};
use integration::stock::{StockKind, StockSqlite};
use wal::{Database, Options, PageNo};

const PAGE: usize = 512;
/// Overflow pages of the one row.
const FIRST: u32 = 10;
const LAST: u32 = 200;

fn sql_of(letter: char) -> String {
    // Twice as many digits as bytes.
    let half = PAGE * LAST as usize / 2;
    format!("replace(hex(zeroblob({half})), '0', '{letter}')")
}

fn run(stock: &mut StockSqlite, sql: &str) {
    stock.run(sql).unwrap().unwrap();
}

/// Makes a database whose row is of `a`, with a log and an index, as a killed process leaves
/// it in `directory`.
fn make_lower(directory: &Path) {
    let made = tempfile::tempdir().unwrap();
    let path = made.path().join("db");
    let mut stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
    run(&mut stock, &format!("PRAGMA page_size={PAGE}"));
    run(&mut stock, "PRAGMA journal_mode=WAL");
    run(&mut stock, "CREATE TABLE big (text TEXT)");
    run(
        &mut stock,
        &format!("INSERT INTO big VALUES ({})", sql_of('b')),
    );
    run(&mut stock, "PRAGMA wal_checkpoint(TRUNCATE)");
    run(
        &mut stock,
        &format!("UPDATE big SET text = {}", sql_of('a')),
    );
    for name in ["db", "db-wal", "db-shm"] {
        fs::copy(made.path().join(name), directory.join(name)).unwrap();
    }
    stock.close().unwrap();
}

/// The letter of which all pages are that `database` reads now.
fn letter_in(database: &Database) -> char {
    let read = database.begin_read().unwrap();
    let letter = |page| {
        let page = read.page(PageNo::new(page).unwrap()).unwrap();
        let letter = page[100];
        assert!(page[4..].iter().all(|byte| *byte == letter), "a torn page");
        letter
    };
    let letters: Vec<u8> = (FIRST..LAST).map(letter).collect();
    assert!(
        letters.iter().all(|letter| *letter == letters[0]),
        "a torn state"
    );
    char::from(letters[0])
}

fn open(path: &Path) -> Database {
    Database::open_with(path, &Options::new().read_only(true)).unwrap()
}

/// Every state that stock SQLite commits is read, in the log and in the database file.
fn follow(stock: &mut StockSqlite, readers: &[&Database]) {
    for letter in ['c', 'd', 'e', 'f'] {
        run(stock, &format!("UPDATE big SET text = {}", sql_of(letter)));
        let seen = || readers.iter().map(|reader| letter_in(reader));
        assert!(seen().all(|seen| seen == letter), "in the log");
        let mode = if letter == 'd' { "TRUNCATE" } else { "PASSIVE" };
        run(stock, &format!("PRAGMA wal_checkpoint({mode})"));
        assert!(seen().all(|seen| seen == letter), "in the database file");
    }
}

/// With the lower layer on the disk of the upper one, and on another one: files keep their
/// identity over a copy only on one disk.
fn on_overlays(scene: fn(&Path)) {
    if !FileSystem::Overlay
        .need()
        .is_met("readers of a database in the lower layer")
    {
        return;
    }
    for of_one_disk in [true, false] {
        let other = tempfile::tempdir().unwrap();
        let run = |disk: &Path| {
            let lower: PathBuf = match of_one_disk {
                true => disk.join("lower"),
                false => other.path().to_owned(),
            };
            fs::create_dir_all(&lower).unwrap();
            make_lower(&lower);
            scene(&mount_overlay(&lower, disk).unwrap().join("db"));
        };
        with_disk(FileSystem::Tmpfs, 0, run).unwrap();
    }
}

#[test]
fn reader_of_the_lower_layer_follows_a_later_writer() {
    on_overlays(|path| {
        let reader = open(path);
        assert_eq!(letter_in(&reader), 'a');
        let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
        assert_eq!(letter_in(&reader), 'a');
        follow(&mut stock, &[&reader]);
        stock.close().unwrap();
        assert_eq!(letter_in(&reader), 'f');
    });
}

#[test]
fn readers_before_and_after_a_writer_see_the_same() {
    on_overlays(|path| {
        let before = open(path);
        assert_eq!(letter_in(&before), 'a');
        let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
        run(
            &mut stock,
            &format!("UPDATE big SET text = {}", sql_of('b')),
        );
        // Its index is mapped from a descriptor of the lower layer, if one is used again.
        let after = open(path);
        follow(&mut stock, &[&before, &after]);
        drop(before);
        let last = open(path);
        follow(&mut stock, &[&after, &last]);
        stock.close().unwrap();
    });
}

#[test]
fn snapshot_of_the_lower_layer_stays_beside_a_writer() {
    on_overlays(|path| {
        let reader = open(path);
        let read = reader.begin_read().unwrap();
        let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
        run(
            &mut stock,
            &format!("UPDATE big SET text = {}", sql_of('c')),
        );
        run(&mut stock, "PRAGMA wal_checkpoint(PASSIVE)");
        for page in FIRST..LAST {
            let page = read.page(PageNo::new(page).unwrap()).unwrap();
            assert!(page[4..].iter().all(|byte| *byte == b'a'));
        }
        drop(read);
        assert_eq!(letter_in(&reader), 'c');
        stock.close().unwrap();
    });
}

/// The library keeps descriptors of databases that were closed, and uses them again.
#[test]
fn reader_that_opens_again_sees_what_was_copied_up() {
    on_overlays(|path| {
        let before = open(path);
        assert_eq!(letter_in(&before), 'a');
        before.close().unwrap();
        let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
        run(
            &mut stock,
            &format!("UPDATE big SET text = {}", sql_of('b')),
        );
        let again = open(path);
        assert_eq!(letter_in(&again), 'b');
        follow(&mut stock, &[&again]);
        // Closed by both, and once more.
        stock.close().unwrap();
        again.close().unwrap();
        let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
        let third = open(path);
        follow(&mut stock, &[&third]);
        stock.close().unwrap();
    });
}
