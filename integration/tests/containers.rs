//! Processes in containers use one database: each in namespaces of its own, of process
//! numbers, mounts, users or clocks.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::container::Container;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Command, Refusal, Settings, Worker};
use tempfile::TempDir;
use wal::{Database, Error, Options};

fn is_there(container: Container) -> bool {
    container
        .need()
        .is_met(&format!("a process in a container of {container:?}"))
}

struct Scene {
    path: PathBuf,
    _directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
        stock_runs(stock, "PRAGMA journal_mode = WAL; CREATE TABLE t(n)");
        Scene {
            path,
            _directory: directory,
        }
    }

    fn open(&self) -> Database {
        let options = Options::new().busy_timeout(Duration::ZERO);
        options.open(&self.path).unwrap()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.path);
        settings.busy_timeout = Duration::ZERO;
        settings
    }

    fn worker_in(&self, container: Container) -> Worker {
        let mut worker = Worker::spawn_in(container).unwrap();
        worker.run(Command::Open(self.settings())).unwrap();
        worker
    }
}

fn stock_runs(mut stock: StockSqlite, sql: &str) {
    stock.run(sql).unwrap().unwrap();
}

/// Whom `database` names as the writer, and its message.
fn writers(database: &Database) -> (Vec<u32>, String) {
    let error = database.begin_write().unwrap_err();
    let message = error.to_string();
    match error {
        Error::Busy { holders, .. } => (holders, message),
        other => panic!("not busy: {other}"),
    }
}

fn refusal(worker: &mut Worker) -> String {
    let error = worker.run(Command::BeginWrite).unwrap_err();
    error.downcast::<Refusal>().unwrap().message
}

const NUMBERS: [Container; 2] = [Container::Processes, Container::ProcessesBesideProc];

#[test]
fn holder_in_another_container_is_never_a_number() {
    for container in NUMBERS.into_iter().filter(|container| is_there(*container)) {
        let scene = Scene::new();
        let database = scene.open();
        let mut inside = scene.worker_in(container);
        inside.run(Command::BeginWrite).unwrap();
        let (holders, message) = writers(&database);
        assert!(holders.is_empty(), "{container:?}: {message}");
        assert!(
            message.contains("a process in another container"),
            "{message}"
        );
        inside.run(Command::Rollback).unwrap();
        // The other way round, with a number that a process in the container has too.
        let writing = database.begin_write().unwrap();
        let message = refusal(&mut inside);
        assert!(
            message.contains("a process in another container"),
            "{message}"
        );
        drop(writing);
        inside.end().unwrap();
    }
}

#[test]
fn stock_holder_outside_the_container_is_never_process_zero() {
    for container in NUMBERS.into_iter().filter(|container| is_there(*container)) {
        let scene = Scene::new();
        let mut stock = StockSqlite::spawn(StockKind::Bundled, &scene.path, None).unwrap();
        let mut inside = scene.worker_in(container);
        stock.run("BEGIN IMMEDIATE").unwrap().unwrap();
        let message = refusal(&mut inside);
        assert!(!message.contains("process 0"), "{message}");
        assert!(
            message.contains("a process in another container"),
            "{message}"
        );
        inside.end().unwrap();
    }
}

/// Process numbers are the same there, and starts are told by other clocks.
#[test]
fn holder_with_clocks_of_its_own_is_named() {
    let clocks = [Container::ClocksAhead, Container::ClocksBehind];
    for container in clocks.into_iter().filter(|container| is_there(*container)) {
        let scene = Scene::new();
        let database = scene.open();
        let mut inside = scene.worker_in(container);
        inside.run(Command::BeginWrite).unwrap();
        let (holders, message) = writers(&database);
        assert_eq!(holders.len(), 1, "{container:?}: {message}");
        let child = format!("/proc/{0}/task/{0}/children", inside.pid());
        let child = std::fs::read_to_string(Path::new(&child)).unwrap();
        assert_eq!(child.trim(), holders[0].to_string());
        inside.end().unwrap();
    }
}
