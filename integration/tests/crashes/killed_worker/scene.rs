//! A SQLite database whose overflow pages the workers stamp, so that stock
//! SQLite can vouch for it whatever state it is left in.

use std::ops::Range;
use std::path::{Path, PathBuf};

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Settings, Stamp, Synchronous, Worker};
use tempfile::TempDir;
use wal_core::storage::beside;

/// Overflow pages of the table `t`, away from pages that SQLite itself needs.
pub(crate) const PAGES: Range<u32> = 20..26;
/// More of them, to fill the log with.
pub(crate) const MANY: Range<u32> = 20..96;

/// A database in a directory of its own.
pub(crate) struct Scene {
    pub(crate) path: PathBuf,
    /// A process that stays attached.
    pub(crate) keeper: Option<Worker>,
    /// A process that holds a snapshot until the worker was killed.
    pub(crate) reader: Option<Worker>,
    _directory: TempDir,
}

impl Scene {
    /// A database without a log, `t` filled with pages to stamp and `u` behind
    /// it at the end of the file.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let mut stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
        let mut run = |sql: &str| stock.run(sql).unwrap().unwrap();
        run("PRAGMA page_size=512; PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL");
        run("PRAGMA synchronous=OFF; CREATE TABLE t(a); CREATE TABLE u(a)");
        run("INSERT INTO t VALUES(zeroblob(48000)); INSERT INTO u VALUES(zeroblob(9000))");
        stock.close().unwrap();
        Scene {
            path,
            keeper: None,
            reader: None,
            _directory: directory,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.path)
    }

    /// One more process of ours.
    pub(crate) fn worker(&self) -> Worker {
        Worker::open(&self.settings()).unwrap()
    }

    /// A process of ours for which no file is synced.
    pub(crate) fn hasty_worker(&self) -> Worker {
        let mut settings = self.settings();
        settings.synchronous = Synchronous::Off;
        Worker::open(&settings).unwrap()
    }

    /// Attaches a process that stays, with the index recovered.
    pub(crate) fn keep(&mut self) -> &mut Worker {
        let mut keeper = self.worker();
        keeper.begin_read("first").unwrap();
        keeper.end_read("first").unwrap();
        self.keeper.insert(keeper)
    }

    pub(crate) fn keeper(&mut self) -> &mut Worker {
        self.keeper.as_mut().unwrap()
    }

    pub(crate) fn stock(&self) -> StockSqlite {
        StockSqlite::spawn(StockKind::Bundled, &self.path, None).unwrap()
    }
}

/// The stamp of the `sequence`-th commit.
pub(crate) fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

/// Stock SQLite finds nothing wrong with the database.
pub(crate) fn expect_sound(stock: &mut StockSqlite) {
    let rows = stock.run("PRAGMA integrity_check").unwrap().unwrap();
    assert_eq!(rows.text().unwrap(), "ok");
}

/// The index holds nothing beyond the published frame, in that frame's block.
pub(crate) fn expect_trimmed(database: &Path) {
    const BLOCK: usize = 32768;
    let index = std::fs::read(beside(database, "-shm")).unwrap();
    let word = |at: usize| u32::from_ne_bytes(index[at..at + 4].try_into().unwrap());
    let max_frame = word(16) as usize;
    assert!(max_frame > 0, "a commit was just made");
    // The first block has room for fewer entries, because of the header.
    let (block, first_entry, place) = match max_frame.checked_sub(4062 + 1) {
        None => (0, 136, max_frame - 1),
        Some(beyond) => (1 + beyond / 4096, 0, beyond % 4096),
    };
    let start = block * BLOCK;
    let entries = (start + first_entry..start + BLOCK / 2).step_by(4);
    for (at, entry) in entries.enumerate() {
        assert_eq!(
            word(entry) != 0,
            at <= place,
            "entry {at} of block {block}, whose last is {place}"
        );
    }
    for slot in (start + BLOCK / 2..start + BLOCK).step_by(2) {
        let value = u16::from_ne_bytes(index[slot..slot + 2].try_into().unwrap());
        assert!(
            usize::from(value) <= place + 1,
            "a slot leads to entry {value}"
        );
    }
}
