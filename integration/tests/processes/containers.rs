//! Processes in containers use one database: each in namespaces of its own, of process
//! numbers, mounts, users or clocks.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
#![cfg(target_os = "linux")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::container::Container;
use integration::needs::Need;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{
    Command, Load, LoadReport, Refusal, Role, Settings, Stamp, WATCHDOG, Worker, fork,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serial_test::serial;
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

/// The pages that all writers of a run stamp.
const PAGES: Range<u32> = 1..5;
/// Longer than any lease, turn and silence that clocks measure.
const RUN: Duration = Duration::from_millis(1200);

/// Runs a writer in each of `containers` and one outside, with readers and a checkpointer,
/// and counts the commits.
fn run_together(containers: &[Container], group_commit: bool) {
    let directory = TempDir::new().unwrap();
    let mut settings = Settings::new(&directory.path().join("pages"));
    settings.page_size = 512;
    settings.group_commit = group_commit;
    settings.auto_checkpoint = 200;
    settings.read_lock_delay = Duration::from_millis(1);
    let mut outside = Worker::open(&settings).unwrap();
    outside.run(Command::BeginWrite).unwrap();
    let stamp = Stamp {
        writer: 0,
        sequence: 0,
    };
    for _ in PAGES.skip(1) {
        outside.ask::<u32>(Command::AddPage { stamp }).unwrap();
    }
    let pages = PAGES;
    outside.run(Command::Write { pages, stamp }).unwrap();
    outside.run(Command::Commit).unwrap();

    let inside = |container: &Container| {
        let mut worker = Worker::spawn_in(*container).unwrap();
        worker.run(Command::Open(settings.clone())).unwrap();
        worker
    };
    let mut writers: Vec<Worker> = containers.iter().map(inside).collect();
    writers.push(outside);
    let mut readers: Vec<Worker> = containers.iter().map(inside).collect();
    readers.push(Worker::open(&settings).unwrap());
    let load = |role, seed| {
        Command::Load(Load {
            role,
            pages: PAGES,
            seed,
            duration: RUN,
            threads: 1,
        })
    };
    for (id, writer) in (1..).zip(&mut writers) {
        writer.send(&load(Role::BusyWriter { id }, id)).unwrap();
    }
    let last = readers.len() - 1;
    for (at, reader) in readers.iter_mut().enumerate() {
        let role = match at == last {
            true => Role::Checkpointer,
            false => Role::Reader,
        };
        reader.send(&load(role, 7)).unwrap();
    }
    let report = |worker: &mut Worker| worker.finish::<LoadReport>(WATCHDOG).unwrap();
    let written: Vec<u64> = writers
        .iter_mut()
        .map(|writer| report(writer).rounds)
        .collect();
    let read: Vec<u64> = readers
        .iter_mut()
        .map(|reader| report(reader).rounds)
        .collect();
    assert!(read.iter().all(|rounds| *rounds > 0), "{read:?}");
    println!("{containers:?} and outside: {written:?} commits");
    assert!(written.iter().all(|rounds| *rounds > 0), "{written:?}");
    let newest = writers[0].newest_stamps(PAGES).unwrap();
    let all: u64 = written.iter().sum();
    assert!(
        newest.iter().all(|stamp| stamp.unwrap().sequence == all),
        "{all} commits were acknowledged, the pages have {newest:?}"
    );
    for worker in writers.into_iter().chain(readers) {
        worker.end().unwrap();
    }
}

#[test]
#[serial]
fn writers_in_containers_of_each_kind_lose_no_commit() {
    let there: Vec<Container> = Container::ALL
        .into_iter()
        .filter(|one| is_there(*one))
        .collect();
    run_together(&there, false);
}

/// Turns, leases and notes are told by clocks that are a day ahead, and behind.
#[test]
#[serial]
fn writers_with_clocks_of_their_own_lose_no_commit() {
    let clocks = [Container::ClocksAhead, Container::ClocksBehind];
    for clock in clocks.into_iter().filter(|container| is_there(*container)) {
        for group_commit in [false, true] {
            run_together(&[clock], group_commit);
        }
    }
    if clocks.into_iter().all(is_there) {
        run_together(&clocks, true);
    }
}

#[test]
fn killed_container_leaves_no_lock_and_no_commit() {
    for container in Container::ALL.into_iter().filter(|one| is_there(*one)) {
        let directory = TempDir::new().unwrap();
        let settings = Settings::new(&directory.path().join("pages"));
        let stamp = |sequence| Stamp {
            writer: 1,
            sequence,
        };
        let mut outside = Worker::open(&settings).unwrap();
        let mut inside = Worker::spawn_in(container).unwrap();
        inside.run(Command::Open(settings.clone())).unwrap();
        inside.commit(1..2, stamp(1)).unwrap();
        inside.run(Command::BeginWrite).unwrap();
        let pages = 1..2;
        let write = Command::Write {
            pages,
            stamp: stamp(2),
        };
        inside.run(write).unwrap();
        inside.run(Command::Spill).unwrap();
        inside.kill().unwrap();
        assert_eq!(outside.newest_stamps(1..2).unwrap(), [Some(stamp(1))]);
        // The system ends the process in the container a moment later.
        outside.commit(1..2, stamp(3)).unwrap();
        assert_eq!(outside.newest_stamps(1..2).unwrap(), [Some(stamp(3))]);
        outside.end().unwrap();
    }
}

/// Another container has the directory elsewhere.
#[test]
fn database_by_another_path_in_a_mount_namespace_is_the_same() {
    if !Need::Disk("").is_met("a database by another path in a mount namespace") {
        return;
    }
    let top = TempDir::new().unwrap();
    let (here, there) = (top.path().join("here"), top.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    std::fs::create_dir(&there).unwrap();
    let stamp = Stamp {
        writer: 1,
        sequence: 1,
    };
    let mut outside = Worker::open(&Settings::new(&here.join("pages"))).unwrap();
    let child = fork(|| {
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, private, none)?;
        mount(Some(&here), &there, none, MsFlags::MS_BIND, none)?;
        let raw = Options::new().kind(wal::DatabaseKind::RawPages);
        let database = raw.open(there.join("pages"))?;
        let mut write = database.begin_write()?;
        stamp.write(1, write.page_mut(wal::PageNo::ONE)?);
        write.commit()?;
        Ok(database.close()?)
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    assert_eq!(outside.newest_stamps(1..2).unwrap(), [Some(stamp)]);
    outside.end().unwrap();
}
