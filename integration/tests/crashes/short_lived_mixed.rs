//! Processes that live for one commit, half of them stock SQLite: every
//! commit is there, whoever was first opener or last closer of the moment.

use integration::stamped;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Command, Settings, Stamp, WATCHDOG, Worker};
use rusqlite::types::Value;
use tempfile::TempDir;
use wal_core::storage::beside;

/// How many live at the same time.
const AT_A_TIME: u32 = 20;

struct Fixture {
    path: PathBuf,
    /// One for each process, though only ours stamp theirs.
    pages: Range<u32>,
    kind: StockKind,
    _directory: TempDir,
}

impl Fixture {
    fn new(processes: u32, kind: StockKind) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let tables = "CREATE TABLE life(number INTEGER PRIMARY KEY)";
        let pages = stamped::create(&path, 1024, processes, tables).unwrap();
        Fixture {
            path,
            pages,
            kind,
            _directory: directory,
        }
    }

    fn live(&self, number: u32) {
        if is_ours(number) {
            live_as_ours(&self.path, self.pages.start + number);
        } else {
            live_as_stock(self.kind, &self.path, number);
        }
    }

    /// All numbers of the processes.
    fn numbers(&self) -> Range<u32> {
        0..self.pages.end - self.pages.start
    }

    fn expect_all_there(&self) {
        let mut stock = StockSqlite::spawn(self.kind, &self.path, None).unwrap();
        let sound = stock.run("PRAGMA integrity_check").unwrap().unwrap();
        assert_eq!(sound.text().unwrap(), "ok");
        let rows = stock.run("SELECT number FROM life ORDER BY number");
        let theirs = self.numbers().filter(|&number| !is_ours(number));
        let theirs: Vec<_> = theirs.map(|number| vec![Value::from(number)]).collect();
        assert_eq!(rows.unwrap().unwrap().0, theirs);
        stock.close().unwrap();

        let mut worker = Worker::open(&Settings::new(&self.path)).unwrap();
        let stamps = worker.newest_stamps(self.pages.clone()).unwrap();
        let ours = self.numbers().zip(self.pages.clone());
        let ours = ours.map(|(number, page)| is_ours(number).then(|| stamp(page)));
        assert_eq!(stamps, ours.collect::<Vec<_>>());
        worker.end().unwrap();
        for suffix in ["-wal", "-shm", "-coord"] {
            assert!(!beside(&self.path, suffix).exists(), "{suffix} is left");
        }
    }
}

/// Both sorts in turn, among those that live at the same time and among those
/// that follow each other.
fn is_ours(number: u32) -> bool {
    (number + number / AT_A_TIME).is_multiple_of(2)
}

/// The one commit of the process that stamps `page`.
fn stamp(page: u32) -> Stamp {
    Stamp {
        writer: u64::from(page),
        sequence: 1,
    }
}

/// Opens, stamps a page, closes.
fn live_as_ours(path: &Path, page: u32) {
    let mut settings = Settings::new(path);
    settings.busy_timeout = WATCHDOG;
    let mut worker = Worker::open(&settings).unwrap();
    worker.commit(page..page + 1, stamp(page)).unwrap();
    worker.run(Command::Close).unwrap();
    worker.end().unwrap();
}

/// Opens, adds a row, closes.
fn live_as_stock(kind: StockKind, path: &Path, number: u32) {
    let mut stock = StockSqlite::spawn(kind, path, None).unwrap();
    stock.set_busy_timeout(WATCHDOG).unwrap();
    let insert = format!("INSERT INTO life VALUES({number})");
    stock.run(&insert).unwrap().unwrap();
    stock.close().unwrap();
}

/// Lets so many processes live, some at the same time, with each stock SQLite.
fn expect_nothing_is_lost(processes: u32) {
    for kind in StockKind::available() {
        println!("{processes} processes, half of them of {kind}");
        let fixture = &Fixture::new(processes, kind);
        thread::scope(|scope| {
            for first in 0..AT_A_TIME {
                let lives = (first..processes).step_by(AT_A_TIME as usize);
                scope.spawn(move || lives.for_each(|number| fixture.live(number)));
            }
        });
        fixture.expect_all_there();
    }
}

#[test]
fn twenty_processes_of_ours_and_of_stock_sqlite_lose_no_commit() {
    expect_nothing_is_lost(20);
}

#[test]
fn two_hundred_processes_of_ours_and_of_stock_sqlite_lose_no_commit() {
    expect_nothing_is_lost(200);
}
