//! Who is in the way is named: ours by the side file, stock SQLite by the
//! system, and no dead process.

use integration::stamped;
use std::path::PathBuf;
use std::time::Duration;

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Command, Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::{CheckpointMode, CheckpointOptions, Database, Error, Options};

struct Scene {
    path: PathBuf,
    ours: Database,
    _directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let pages = stamped::create(&path, 1024, 4, "CREATE TABLE t(n)").unwrap();
        let options = Options::new()
            .busy_timeout(Duration::ZERO)
            .read_lock_delay(Duration::ZERO);
        let ours = options.auto_checkpoint(0).open(&path).unwrap();
        let mut worker = Worker::open(&Settings::new(&path)).unwrap();
        let stamp = Stamp {
            writer: 1,
            sequence: 1,
        };
        worker.commit(pages, stamp).unwrap();
        worker.end().unwrap();
        Scene {
            path,
            ours,
            _directory: directory,
        }
    }

    fn worker(&self) -> Worker {
        Worker::open(&Settings::new(&self.path)).unwrap()
    }

    /// Who keeps ours from writing.
    fn writers(&self) -> Vec<u32> {
        match self.ours.begin_write() {
            Err(Error::Busy { holders, .. }) => holders,
            other => panic!("not busy: {other:?}"),
        }
    }

    /// Who keeps ours from emptying the log.
    fn readers(&self) -> Vec<u32> {
        let options = CheckpointOptions::new(CheckpointMode::Truncate);
        let report = self.ours.checkpoint_with(options).unwrap();
        report.held_back_by.unwrap().holders
    }
}

#[test]
fn processes_of_ours_that_hold_a_lock_are_named() {
    let scene = Scene::new();
    let (mut one, mut two) = (scene.worker(), scene.worker());
    one.run(Command::BeginWrite).unwrap();
    assert_eq!(scene.writers(), [one.pid()]);
    let busy = scene.ours.begin_write().unwrap_err().to_string();
    let expected = format!("process {} holds the Write lock", one.pid());
    assert!(busy.contains(&expected), "{busy}");
    one.run(Command::Rollback).unwrap();
    one.begin_read("held").unwrap();
    two.begin_read("held").unwrap();
    let mut expected = [one.pid(), two.pid()];
    expected.sort_unstable();
    assert_eq!(scene.readers(), expected);
    one.end_read("held").unwrap();
    assert_eq!(scene.readers(), [two.pid()]);
}

#[test]
fn a_process_of_stock_sqlite_that_holds_a_lock_is_named() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let mut stock = StockSqlite::spawn(kind, &scene.path, None).unwrap();
        stock.run("BEGIN IMMEDIATE").unwrap().unwrap();
        assert_eq!(scene.writers(), [stock.pid()], "{kind}");
        stock.run("COMMIT").unwrap().unwrap();
        stock.run("BEGIN; SELECT * FROM t").unwrap().unwrap();
        assert_eq!(scene.readers(), [stock.pid()], "{kind}");
    }
}

#[test]
fn a_dead_process_is_not_named() {
    let scene = Scene::new();
    let mut dead = scene.worker();
    dead.run(Command::BeginWrite).unwrap();
    dead.kill().unwrap();
    let mut alive = scene.worker();
    alive.run(Command::BeginWrite).unwrap();
    assert_eq!(scene.writers(), [alive.pid()]);
}
