//! The extension in the process of the test, where several threads and connections share it:
//! threads, an application's own busy handler, a shared cache, the backup API, a process without
//! rights.
//!
//! A program of its own, because the extension stays the default VFS of the process.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::queue::{self, Language, Order, Writer};
use integration::rights::{NOBODY, as_nobody};
use integration::stock::{self, StockKind, StockSqlite};
use nix::unistd::{Uid, chown, geteuid};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;
use wal_core::storage::beside;

const INCREMENT: &str = "UPDATE t SET n = n + 1 WHERE id = 1";

struct Scene {
    directory: TempDir,
    database: std::path::PathBuf,
}

impl Scene {
    fn new() -> Self {
        stock::load(queue::library().unwrap().as_os_str()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("app.db");
        queue::create(&database, 1).unwrap();
        Scene {
            directory,
            database,
        }
    }

    /// A connection in the queue.
    fn open(&self, timeout: Duration) -> Connection {
        let connection = Connection::open(&self.database).unwrap();
        connection.busy_timeout(timeout).unwrap();
        connection
    }
}

fn count(connection: &Connection) -> u32 {
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let count = "SELECT n FROM t WHERE id = 1";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

#[test]
fn threads_of_a_process_share_the_lock() {
    const THREADS: usize = 8;
    let scene = Scene::new();
    let end = Instant::now() + Duration::from_secs(2);
    let work = || {
        let connection = scene.open(Duration::from_secs(20));
        let mut commits = 0_u32;
        while Instant::now() < end {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            connection.execute(INCREMENT, []).unwrap();
            thread::sleep(Duration::from_millis(2));
            connection.execute_batch("COMMIT").unwrap();
            commits += 1;
        }
        commits
    };
    let commits: Vec<u32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let commits = threads.into_iter().map(|thread| thread.join().unwrap());
        commits.collect()
    });
    let connection = scene.open(Duration::ZERO);
    assert_eq!(count(&connection), commits.iter().sum::<u32>());
    let (least, most) = (commits.iter().min(), commits.iter().max());
    assert!(least.unwrap() * 2 > *most.unwrap(), "{commits:?}");
}

/// How often the handler was called, and which count it was given last.
static CALLS: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicI32 = AtomicI32::new(-1);
const PATIENCE: i32 = 7;

#[test]
fn own_busy_handler_is_called_until_it_declines() {
    let scene = Scene::new();
    let mut holder = StockSqlite::spawn(StockKind::Bundled, &scene.database, None).unwrap();
    holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
    let mut connection = scene.open(Duration::ZERO);
    fn handler(calls: i32) -> bool {
        CALLS.fetch_add(1, Ordering::SeqCst);
        LAST.store(calls, Ordering::SeqCst);
        calls < PATIENCE
    }
    connection.busy_handler(Some(handler)).unwrap();
    let error = connection.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    assert!(is_busy(&error), "{error}");
    assert_eq!(LAST.load(Ordering::SeqCst), PATIENCE);
    assert_eq!(CALLS.load(Ordering::SeqCst), PATIENCE.cast_unsigned() + 1);
    holder.run("COMMIT").unwrap().unwrap();
    connection.execute(INCREMENT, []).unwrap();
    assert_eq!(count(&connection), 1);
}

#[test]
fn own_busy_handler_that_sleeps_gets_the_lock_beside_the_queue() {
    let scene = Scene::new();
    let mut order = Order::new(&scene.database, 1, 1.5).unwrap();
    // So the lock is seldom free, and never without a writer in the queue.
    order.pause_ms = 2;
    let mut writers = [Language::Rust; 3].map(|language| Writer::start(language, &order).unwrap());
    for writer in &mut writers {
        writer.wait_until_ready().unwrap();
    }
    let mut connection = scene.open(Duration::ZERO);
    fn handler(_: i32) -> bool {
        thread::sleep(Duration::from_micros(200));
        true
    }
    connection.busy_handler(Some(handler)).unwrap();
    for writer in &mut writers {
        writer.go().unwrap();
    }
    // As long as they write, but for the last.
    let end = Instant::now() + Duration::from_secs(1);
    let mut own = 0_u32;
    while Instant::now() < end {
        connection.execute(INCREMENT, []).unwrap();
        own += 1;
    }
    let theirs = writers.map(|writer| writer.finish().unwrap());
    assert!(theirs.iter().all(|outcome| outcome.locked == 0));
    let theirs: u64 = theirs.iter().map(|outcome| outcome.commits).sum();
    assert!(own > 10, "{own} commits beside {theirs}");
    assert_eq!(u64::from(count(&connection)), u64::from(own) + theirs);
}

fn open_shared(path: &Path) -> Connection {
    let uri = format!("file:{}?cache=shared", path.display());
    let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

#[test]
fn shared_cache_locks_tables_and_queues_for_the_log() {
    let scene = Scene::new();
    let (first, second) = (open_shared(&scene.database), open_shared(&scene.database));
    first.execute_batch("BEGIN IMMEDIATE").unwrap();
    first.execute(INCREMENT, []).unwrap();
    // The lock of a shared cache, which no busy handler waits for.
    let error = second.execute(INCREMENT, []).unwrap_err();
    let code = error.sqlite_error_code();
    assert_eq!(code, Some(ErrorCode::DatabaseLocked), "{error}");
    first.execute_batch("COMMIT").unwrap();
    second.execute(INCREMENT, []).unwrap();
    // A peer outside the cache queues with both.
    let other = scene.open(Duration::from_secs(20));
    first.busy_timeout(Duration::from_secs(20)).unwrap();
    let write = |connection: Connection| {
        for _ in 0..100 {
            connection.execute(INCREMENT, []).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(move || write(other));
        write(first);
    });
    assert_eq!(count(&second), 202);
}

#[test]
fn backup_is_a_snapshot_beside_writers_in_the_queue() {
    let scene = Scene::new();
    let order = Order::new(&scene.database, 1, 1.0).unwrap();
    let mut writer = Writer::start(Language::Rust, &order).unwrap();
    writer.wait_until_ready().unwrap();
    writer.go().unwrap();
    let source = scene.open(Duration::from_secs(20));
    for round in 0..3 {
        let path = scene.directory.path().join(format!("copy-{round}.db"));
        let mut copy = Connection::open(&path).unwrap();
        let backup = Backup::new(&source, &mut copy).unwrap();
        while backup.step(1).unwrap() != StepResult::Done {}
        drop(backup);
        assert!(count(&copy) <= count(&source));
        copy.execute(INCREMENT, []).unwrap();
        copy.close().unwrap();
        assert!(!beside(&path, "-coord").exists());
    }
    assert_eq!(writer.finish().unwrap().locked, 0);
}

#[test]
fn side_file_that_may_not_be_opened_leaves_writers_at_work() {
    for mode in [0o444, 0o000] {
        let scene = Scene::new();
        let side_file = beside(&scene.database, "-coord");
        fs::write(&side_file, b"").unwrap();
        fs::set_permissions(&side_file, Permissions::from_mode(mode)).unwrap();
        if geteuid().is_root() {
            // The side file stays root's.
            for path in [scene.directory.path(), &scene.database] {
                chown(path, Some(Uid::from_raw(NOBODY)), None).unwrap();
            }
        }
        as_nobody(|| {
            let [first, second] = [(); 2].map(|()| scene.open(Duration::ZERO));
            first.execute_batch("BEGIN IMMEDIATE").unwrap();
            first.execute(INCREMENT, []).unwrap();
            assert!(is_busy(&second.execute(INCREMENT, []).unwrap_err()));
            first.execute_batch("COMMIT").unwrap();
            second.busy_timeout(Duration::from_secs(20)).unwrap();
            second.execute(INCREMENT, []).unwrap();
            assert_eq!(count(&first), 2);
            let left = fs::metadata(&side_file).unwrap();
            assert_eq!(left.len(), 0, "the side file of another user was changed");
        });
    }
}

#[test]
fn connection_that_names_another_vfs_stays_as_it_is() {
    let scene = Scene::new();
    let flags = OpenFlags::default();
    let plain = Connection::open_with_flags_and_vfs(&scene.database, flags, c"unix").unwrap();
    plain.execute(INCREMENT, []).unwrap();
    assert!(!beside(&scene.database, "-coord").exists());
    let queued = scene.open(Duration::ZERO);
    queued.execute(INCREMENT, []).unwrap();
    assert!(beside(&scene.database, "-coord").exists());
    assert_eq!(count(&plain), 2);
}
