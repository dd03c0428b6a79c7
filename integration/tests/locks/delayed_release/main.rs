//! Delayed release of read locks: it serves a process that reads often, and to every
//! peer that process looks like a reader that begins and ends its transactions.
//!
//! | file | what it shows |
//! |---|---|
//! | `seldom` | a process that reads seldom keeps no lock between two transactions |
//! | `frozen` | one that is stopped at any step holds up no more than without delay |
//! | `often` | a process that reads often keeps one, for a bounded time |
//! | `reclaim` | a checkpoint of this library gets it back |
//! | `stock` | stock SQLite truncates the log and keeps it short |

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod frozen;
mod often;
mod reclaim;
mod seldom;
mod stock;

use integration::stamped;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Checkpoint, Command, HeldByte, Settings, Stamp, WATCHDOG, Worker};
use rusqlite::types::Value;
use wal_core::storage::{beside, shm_bytes};
use wal_core::{Lock, ReadSlot};

/// The library's default.
const DELAY: Duration = Duration::from_millis(1);
/// Longer than any test: a lock that goes was reclaimed, or not kept.
const FOR_EVER: Duration = Duration::from_secs(10 * WATCHDOG.as_secs());
/// More reads in a row than it takes until release is delayed.
const MANY: u32 = 64;
const PAGE_SIZE: u32 = 1024;

struct Scene {
    settings: Settings,
    pages: Range<u32>,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(read_lock_delay: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let table = "CREATE TABLE t(n); INSERT INTO t VALUES(0)";
        let pages = stamped::create(&path, PAGE_SIZE, 4, table).unwrap();
        let mut settings = Settings::new(&path);
        settings.synchronous = integration::worker::Synchronous::Off;
        settings.read_lock_delay = read_lock_delay;
        Scene {
            settings,
            pages,
            _directory: directory,
        }
    }

    /// A connection of stock SQLite without a busy timeout.
    fn stock(&self) -> StockSqlite {
        let mut stock = StockSqlite::spawn(StockKind::Bundled, &self.settings.path, None).unwrap();
        stock.run("PRAGMA synchronous=OFF").unwrap().unwrap();
        stock
    }

    fn worker(&self) -> Worker {
        Worker::open(&self.settings).unwrap()
    }

    fn file(&self, suffix: &str) -> PathBuf {
        beside(&self.settings.path, suffix)
    }

    fn log_frames(&self) -> u64 {
        let len = fs::metadata(self.file("-wal")).unwrap().len();
        len / u64::from(PAGE_SIZE + 24)
    }

    /// The salts of the log header, which a restart changes.
    fn salts(&self) -> Option<[u8; 8]> {
        let mut salts = [0; 8];
        let log = fs::File::open(self.file("-wal")).unwrap();
        log.read_exact_at(&mut salts, 16).ok().map(|()| salts)
    }

    fn commit(&self, worker: &mut Worker, sequence: u64) {
        let stamp = Stamp {
            writer: 1,
            sequence,
        };
        worker.commit(self.pages.clone(), stamp).unwrap();
    }

    /// Which read slots a process holds, as the system tells `onlooker`, which has
    /// nothing open.
    fn held_slots(&self, onlooker: &mut Worker) -> Vec<ReadSlot> {
        let mut held = |slot: &ReadSlot| {
            let byte = shm_bytes::of(Lock::Read(*slot)).start;
            onlooker.probe(&self.file("-shm"), byte).unwrap() == Some(HeldByte::Shared)
        };
        ReadSlot::ALL
            .into_iter()
            .filter(|slot| held(slot))
            .collect()
    }
}

/// A worker that has no database open.
fn onlooker() -> Worker {
    Worker::spawn().unwrap()
}

/// Reads so often in a row that release is delayed.
fn read_often(worker: &mut Worker) {
    worker.read_times(MANY, Duration::ZERO).unwrap();
}

fn update(stock: &mut StockSqlite) {
    stock.run("UPDATE t SET n = n + 1").unwrap().unwrap();
}

/// True if a checkpoint of stock SQLite was not busy and moved the whole log.
fn stock_checkpoint(stock: &mut StockSqlite, mode: &str) -> bool {
    let rows = stock.run(&format!("PRAGMA wal_checkpoint({mode})"));
    match rows.unwrap().unwrap().0[0].as_slice() {
        [Value::Integer(busy), log, moved] => *busy == 0 && log == moved,
        row => panic!("{row:?} is no row of a checkpoint"),
    }
}

fn checkpoint(worker: &mut Worker, mode: Checkpoint) -> bool {
    worker.ask(Command::Checkpoint(mode)).unwrap()
}
