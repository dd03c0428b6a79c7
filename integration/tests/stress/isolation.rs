//! Readers, writers and a checkpointer side by side: no reader ever sees a
//! mixture of commits or an older state than before, and no acknowledged
//! commit is lost. Between processes, and between the threads of one process
//! with either backend.
//!
//! `WAL_TEST_SECONDS` tells how long each load runs, `WAL_TEST_SEED` makes a
//! run choose as an earlier one did.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::worker::{
    BackendKind, Command, Load, LoadReport, Role, Settings, Stamp, WATCHDOG, Worker, run_load,
};
use serial_test::serial;
use wal::PageNo;
use wal::generic::Database;

const ROLES: [Role; 7] = [
    Role::Writer { id: 1 },
    Role::Writer { id: 2 },
    Role::Reader,
    Role::Reader,
    Role::Reader,
    Role::Reader,
    Role::Checkpointer,
];

/// The loads of one run, which all stamp the same pages.
struct Run {
    loads: Vec<Load>,
    settings: Settings,
    _directory: tempfile::TempDir,
}

impl Run {
    fn new(page_size: u32, backend: BackendKind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(&directory.path().join("pages"));
        settings.page_size = page_size;
        settings.backend = backend;
        settings.read_lock_delay = Duration::from_millis(50);
        let duration = Duration::from_secs_f64(from_environment("WAL_TEST_SECONDS", 2.0));
        let seed: u64 = from_environment("WAL_TEST_SEED", fastrand::u64(..));
        println!("page size {page_size}, {backend:?}, WAL_TEST_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let pages = pages(page_size);
        let loads = ROLES.map(|role| Load {
            threads: 1,
            role,
            pages: pages.clone(),
            seed: rng.u64(..),
            duration,
        });
        Run {
            loads: loads.to_vec(),
            settings,
            _directory: directory,
        }
    }

    /// No reader came before the first commit or beyond the last one, and the
    /// sequence counts all commits that were acknowledged.
    fn expect_nothing_lost(&self, reports: &[LoadReport], newest: Vec<Option<Stamp>>) {
        println!("{reports:?}");
        let of = |wanted: fn(&Role) -> bool| {
            let pairs = self.loads.iter().zip(reports);
            pairs.filter(move |(load, _)| wanted(&load.role))
        };
        let acknowledged: u64 = of(|role| matches!(role, Role::Writer { .. }))
            .map(|(_, report)| report.rounds)
            .sum();
        for (load, report) in self.loads.iter().zip(reports) {
            assert!(report.rounds > 0, "{:?} did nothing", load.role);
            assert!(report.last_sequence <= acknowledged);
        }
        let sequences: Vec<u64> = newest
            .into_iter()
            .map(|stamp| stamp.unwrap().sequence)
            .collect();
        assert!(
            sequences.iter().all(|&sequence| sequence == acknowledged),
            "{acknowledged} commits were acknowledged, the pages have {sequences:?}"
        );
    }
}

/// Fewer where they are large, so that a run's log stays small.
fn pages(page_size: u32) -> Range<u32> {
    match page_size {
        65536 => 1..4,
        _ => 1..12,
    }
}

fn from_environment<T: std::str::FromStr>(variable: &str, default: T) -> T {
    std::env::var(variable).map_or(default, |value| {
        let parsed = value.parse().ok();
        parsed.unwrap_or_else(|| panic!("{variable}={value}"))
    })
}

/// Adds the pages that the load needs.
fn make_pages<B: wal::Backend>(database: &Database<B>, pages: &Range<u32>) {
    let mut write = database.begin_write().unwrap();
    while write.page_count() + 1 < pages.end {
        write.allocate().unwrap();
    }
    write.commit().unwrap();
}

fn between_processes(page_size: u32) {
    let run = Run::new(page_size, BackendKind::Shm);
    let pages = pages(page_size);
    let keeper = run
        .settings
        .options()
        .unwrap()
        .open_shm(&run.settings.path)
        .unwrap();
    make_pages(&keeper, &pages);
    let mut workers: Vec<Worker> = run
        .loads
        .iter()
        .map(|_| Worker::open(&run.settings).unwrap())
        .collect();
    for (worker, load) in workers.iter_mut().zip(&run.loads) {
        worker.send(&Command::Load(load.clone())).unwrap();
    }
    let reports: Vec<LoadReport> = workers
        .iter_mut()
        .zip(&run.loads)
        .map(|(worker, load)| worker.finish(load.duration + WATCHDOG).unwrap())
        .collect();
    let newest = workers[0].newest_stamps(pages).unwrap();
    run.expect_nothing_lost(&reports, newest);
    for worker in workers {
        worker.end().unwrap();
    }
    keeper.close().unwrap();
    expect_no_leftovers(&run.settings.path);
}

fn expect_no_leftovers(database: &Path) {
    for suffix in ["-wal", "-shm", "-coord"] {
        let path = wal_core::storage::beside(database, suffix);
        assert!(!path.exists(), "{} was left", path.display());
    }
}

fn between_threads<B: wal::Backend>(run: &Run, database: Database<B>) {
    let pages = run.loads[0].pages.clone();
    make_pages(&database, &pages);
    let reports: Vec<LoadReport> = thread::scope(|scope| {
        let threads: Vec<_> = run
            .loads
            .iter()
            .map(|load| scope.spawn(|| run_load(&database, load).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let read = database.begin_read().unwrap();
    let newest = pages
        .map(|page| Stamp::read(page, &read.page(PageNo::new(page).unwrap()).unwrap()).unwrap())
        .collect();
    run.expect_nothing_lost(&reports, newest);
    drop(read);
    database.close().unwrap();
    expect_no_leftovers(&run.settings.path);
}

#[test]
#[serial]
fn processes_that_share_the_smallest_pages_are_isolated() {
    between_processes(512);
}

#[test]
#[serial]
fn processes_that_share_usual_pages_are_isolated() {
    between_processes(4096);
}

#[test]
#[serial]
fn processes_that_share_the_largest_pages_are_isolated() {
    between_processes(65536);
}

#[test]
#[serial]
fn threads_of_one_process_are_isolated_by_the_shared_backend() {
    let run = Run::new(4096, BackendKind::Shm);
    let options = run.settings.options().unwrap();
    between_threads(&run, options.open_shm(&run.settings.path).unwrap());
}

#[test]
#[serial]
fn threads_of_one_process_are_isolated_by_the_in_process_backend() {
    let run = Run::new(4096, BackendKind::InProcess);
    let options = run.settings.options().unwrap();
    between_threads(&run, options.open_inproc(&run.settings.path).unwrap());
}
