//! The threads that this library starts: as many as a process needs, not as many as it has
//! databases open.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Result, ensure};
use integration::worker::{Settings, Stamp, WATCHDOG, Worker, fork};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::serial;
use tempfile::TempDir;
use wal::{Database, Options, Synchronous};
use wal_core::storage::{beside, shm_bytes};
use wal_core::{Lock, ReadSlot};

const DATABASES: usize = 300;
/// Long enough for all of them to be delayed at one time.
const DELAY: Duration = Duration::from_millis(400);

/// How many threads of this process sweep.
fn sweepers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "wal-locks").count()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn open(directory: &Path, number: usize, delay: Duration) -> Database {
    let options = Options::new()
        .kind(wal::DatabaseKind::RawPages)
        .synchronous(Synchronous::Off);
    let options = options.read_lock_delay(delay);
    options.open(directory.join(number.to_string())).unwrap()
}

/// Reads as often as it takes for release to be delayed.
fn read_often(database: &Database) {
    for _ in 0..40 {
        drop(database.begin_read().unwrap());
    }
}

/// The databases of a process, and another process that looks at their locks.
struct Scene {
    databases: Vec<Database>,
    onlooker: Worker,
    directory: TempDir,
}

impl Scene {
    fn new(count: usize, delay: Duration) -> Self {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let directory = TempDir::new().unwrap();
        Scene {
            databases: (0..count)
                .map(|number| open(directory.path(), number, delay))
                .collect(),
            onlooker: Worker::spawn().unwrap(),
            directory,
        }
    }

    /// How many of the databases have a lock on the slot of readers without a log.
    fn locked(&mut self) -> usize {
        let byte = shm_bytes::of(Lock::Read(ReadSlot::DATABASE)).start;
        let is_locked = |number: &usize| {
            let shm = beside(&self.directory.path().join(number.to_string()), "-shm");
            self.onlooker.probe(&shm, byte).unwrap().is_some()
        };
        (0..self.databases.len()).filter(is_locked).count()
    }
}

#[test]
#[serial]
fn one_thread_sweeps_for_all_databases() {
    let mut scene = Scene::new(DATABASES, DELAY);
    assert_eq!(sweepers(), 0, "nothing was read");
    for _ in 0..2 {
        scene.databases.iter().for_each(read_often);
        wait_for("it is not one thread", || sweepers() == 1);
        wait_for("a lock is not released", || scene.locked() == 0);
    }
    // Those that are left are swept for as before.
    let left = scene.databases.split_off(DATABASES - 2);
    scene.databases.clear();
    left.iter().for_each(read_often);
    assert_eq!(sweepers(), 1);
    drop(left);
    wait_for("the thread does not end", || sweepers() == 0);
    let database = open(scene.directory.path(), 0, DELAY);
    read_often(&database);
    wait_for("one is open again", || sweepers() == 1);
}

/// Checkpoints of another process get the locks long before the next look of the sweeper.
#[test]
#[serial]
fn delayed_lock_of_any_database_is_reclaimed() {
    const LONG: Duration = Duration::from_secs(4);
    let scene = Scene::new(3, LONG);
    for number in 0..scene.databases.len() {
        let path = scene.directory.path().join(number.to_string());
        let mut peer = Worker::open(&Settings::new(&path)).unwrap();
        let mut commit = |sequence| {
            let stamp = Stamp {
                writer: 1,
                sequence,
            };
            peer.commit(1..2, stamp).unwrap();
            let started = Instant::now();
            while !peer.checkpoint().unwrap() {}
            started.elapsed()
        };
        // One that got no processor for so long is late.
        let was_soon = (1..=5).any(|round| {
            commit(2 * round);
            scene.databases.iter().for_each(read_often);
            commit(2 * round + 1) < LONG / 16
        });
        assert!(was_soon, "database {number}");
        peer.end().unwrap();
    }
}

/// The thread of the parent is not there in a child, which starts its own.
#[test]
#[serial]
fn child_of_a_process_that_sweeps_has_its_own_thread() {
    let scene = Scene::new(2, DELAY);
    scene.databases.iter().for_each(read_often);
    let directory = TempDir::new().unwrap();
    let child = fork(|| -> Result<()> {
        ensure!(sweepers() == 0, "a thread was forked");
        let database = open(directory.path(), 0, DELAY);
        read_often(&database);
        wait_for("it has no thread", || sweepers() == 1);
        database.close()?;
        wait_for("the thread does not end", || sweepers() == 0);
        Ok(())
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    assert_eq!(sweepers(), 1);
}
