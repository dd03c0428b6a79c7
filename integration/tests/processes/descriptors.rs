//! Descriptors of a database are parked when it is closed, and used again: how many there
//! are, how long a close takes, and what is told when the process has no room for more.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use integration::worker::{Settings, WATCHDOG, Worker, fork};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::serial;
use tempfile::TempDir;
use wal::{Database, DatabaseKind, LockKind, Options, PageNo, Synchronous};
use wal_core::storage::{OpenMode, OsFile, beside, database_bytes, shm_bytes};

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::ZERO)
        .read_lock_delay(Duration::ZERO)
}

fn commit(database: &Database, byte: u8) {
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[0] = byte;
    write.commit().unwrap();
}

/// How many descriptors of this process are of the file at `path`.
fn descriptors_of(path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    let numbers = fs::read_dir("/proc/self/fd").unwrap();
    let links = numbers.filter_map(|number| fs::read_link(number.unwrap().path()).ok());
    links.filter(|link| *link == path).count()
}

/// A store that another process has open too, so that `-shm` stays.
struct Shared {
    path: PathBuf,
    peer: Worker,
    _directory: TempDir,
}

impl Shared {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("pages");
        let peer = Worker::open(&Settings::new(&path)).unwrap();
        Shared {
            path,
            peer,
            _directory: directory,
        }
    }

    /// Opens and closes the store in each way that there is, and fails to do so.
    fn open_in_each_way(&self) {
        commit(&options().open(&self.path).unwrap(), 1);
        let reads = [options().read_only(true), options().immutable(true)];
        for reads in reads {
            let database = reads.open(&self.path).unwrap();
            drop(database.begin_read().unwrap());
            database.close().unwrap();
        }
        options().open_inproc(&self.path).unwrap_err();
    }

    fn descriptors(&self) -> [usize; 2] {
        [
            descriptors_of(&self.path),
            descriptors_of(&beside(&self.path, "-shm")),
        ]
    }
}

#[test]
#[serial]
fn opening_again_takes_no_more_descriptors() {
    let shared = Shared::new();
    shared.open_in_each_way();
    let first = shared.descriptors();
    // One that can be written through, and one that cannot.
    assert!(first.iter().all(|count| *count <= 2), "{first:?}");
    for _ in 0..20 {
        shared.open_in_each_way();
    }
    assert_eq!(shared.descriptors(), first);
    shared.peer.end().unwrap();
}

#[test]
#[serial]
fn threads_that_open_at_once_take_descriptors_for_each_at_most() {
    const THREADS: usize = 4;
    let shared = Shared::new();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..40 {
                    let wait = options().busy_timeout(WATCHDOG);
                    drop(wait.open(&shared.path).unwrap());
                    drop(options().immutable(true).open(&shared.path).unwrap());
                    options().open_inproc(&shared.path).unwrap_err();
                }
            });
        }
    });
    let left = shared.descriptors();
    // Each thread uses two kinds.
    assert!(left.iter().all(|count| *count <= 2 * THREADS), "{left:?}");
    shared.peer.end().unwrap();
}

#[test]
#[serial]
fn close_takes_no_longer_beside_thousands_of_descriptors() {
    const OTHERS: usize = 6000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pages");
    // The shortest of some, as other processes have the processors too.
    let shortest_close = || {
        let close = |_| {
            let database = options().open(&path).unwrap();
            let started = Instant::now();
            database.close().unwrap();
            started.elapsed()
        };
        (0..20).map(close).min().unwrap()
    };
    let alone = shortest_close();
    let others: Vec<_> = (0..OTHERS / 2)
        .map(|_| File::open("/dev/null").unwrap())
        .collect();
    for number in 0..OTHERS / 2 {
        let parked = directory.path().join(number.to_string());
        drop(OsFile::open_for_locks(&parked, OpenMode::Create).unwrap());
    }
    let beside_others = shortest_close();
    drop(others);
    println!("{alone:?} alone, {beside_others:?} beside {OTHERS} descriptors");
    assert!(beside_others < 4 * alone + Duration::from_millis(1));
}

/// In a child, since the limit is for the whole process.
#[test]
#[serial]
fn open_without_room_tells_what_keeps_descriptors() {
    const LIMIT: u64 = 64;
    let directory = TempDir::new().unwrap();
    let path = |number: u64| directory.path().join(number.to_string());
    let child = fork(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard)?;
        let open_and_close = |options: &Options, number| options.open(path(number))?.close();
        let closing = options().close_descriptors(true);
        for number in 0..2 * LIMIT {
            open_and_close(&closing, number)?;
        }
        let refused = (0..2 * LIMIT).find_map(|number| open_and_close(&options(), number).err());
        let message = refused.context("there is always room")?.to_string();
        for said in [
            "databases that it has closed",
            "RLIMIT_NOFILE",
            "`close_descriptors`",
        ] {
            ensure!(message.contains(said), "{message}");
        }
        // Those of files that are gone make room.
        for number in 0..LIMIT / 2 {
            fs::remove_file(path(number))?;
        }
        Ok(open_and_close(&options(), 2 * LIMIT)?)
    });
    child.unwrap().finish(WATCHDOG).unwrap();
}

#[test]
#[serial]
fn descriptors_of_removed_databases_are_closed_by_later_closes() {
    const DATABASES: usize = 200;
    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    let directory = TempDir::new().unwrap();
    let before = count();
    for number in 0..DATABASES {
        let path = directory.path().join(number.to_string());
        options().open(&path).unwrap().close().unwrap();
        fs::remove_file(path).unwrap();
    }
    let more = count().saturating_sub(before);
    assert!(more < DATABASES / 4, "{more} descriptors are left");
}

#[test]
#[serial]
fn descriptors_are_closed_if_each_user_has_allowed_it() {
    let shared = Shared::new();
    let open = |close| {
        let options = options().close_descriptors(close);
        options.open(&shared.path).unwrap()
    };
    drop(open(true));
    assert_eq!(shared.descriptors(), [0, 0]);
    for [first, second] in [[true, false], [false, true]] {
        let handles = (open(first), open(second));
        assert_eq!(shared.descriptors(), [1, 1], "they share an attachment");
        drop(handles);
        assert_eq!(shared.descriptors(), [1, 1], "{first} and {second}");
        drop(open(true));
        assert_eq!(shared.descriptors(), [0, 0], "used again and closed");
    }
    shared.peer.end().unwrap();
    let owner = options().close_descriptors(true);
    owner.open_inproc(&shared.path).unwrap().close().unwrap();
    assert_eq!(descriptors_of(&shared.path), 0);
}

/// A close of any descriptor would drop the classic locks of the other handle.
#[test]
#[serial]
fn handle_that_may_close_costs_another_one_no_classic_lock() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pages");
    let mut onlooker = Worker::spawn().unwrap();
    let classic = options().lock_kind(LockKind::Classic);
    let database = classic.open(&path).unwrap();
    let closing = options().close_descriptors(true);
    drop(closing.clone().immutable(true).open(&path).unwrap());
    closing.open_inproc(&path).unwrap_err();
    for (file, bytes) in [
        (path.clone(), database_bytes::SHARED),
        (beside(&path, "-shm"), shm_bytes::DMS),
    ] {
        let held = onlooker.probe(&file, bytes.start).unwrap();
        assert!(held.is_some(), "{} is not locked", file.display());
    }
    database.close().unwrap();
    onlooker.end().unwrap();
}
