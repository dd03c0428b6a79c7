//! The power fails at each step of commits of stock SQLite that share their syncs by the
//! extension `wal-queue`, beside a careless peer: each acknowledged commit is there, and
//! nothing is torn.
//!
//! A program of its own, because the extension stays the default VFS of the process.
//! `WAL_POWER_SCRIPTS` is how many scripts are run, `WAL_TEST_SEED` where they begin.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use integration::power::{Crash, Disk, Image, SIMULATED_VFS, SimulatedDatabase};
use integration::worker::WATCHDOG;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use wal_core::storage::beside;

/// How many commits a script has.
const COMMITS: usize = 12;
/// How many survivor sets are tried for each step.
const IMAGES: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |value| value.parse().unwrap())
}

/// A database on a simulated disk, with the connections of two users and a careless one.
struct Scene {
    disk: Disk,
    database: Arc<SimulatedDatabase>,
    path: PathBuf,
    _directory: TempDir,
}

/// State `number` has the rows 1 to `number`.
const CREATE: &str = "PRAGMA page_size = 512; PRAGMA journal_mode = WAL;
    CREATE TABLE state(number); INSERT INTO state VALUES(0);
    CREATE TABLE rows(n INTEGER PRIMARY KEY, data);";

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("app.db");
        let first = beside(&path, "-first");
        // Before the first scene the default VFS is that of the system.
        Connection::open(&first)
            .unwrap()
            .execute_batch(CREATE)
            .unwrap();
        let image = Image {
            database: fs::read(&first).unwrap(),
            log: None,
        };
        // The side file lies beside a file of the system.
        fs::write(&path, "").unwrap();
        let disk = Disk::new(&image, 0);
        let database = Arc::new(SimulatedDatabase::new(&path, &disk));
        wal_queue::register().unwrap();
        Scene {
            disk,
            database,
            path,
            _directory: directory,
        }
    }

    /// A user at FULL, whose commits share their syncs.
    fn user(&self) -> Connection {
        let uri = format!("file:{}?walqueue_group=1", self.path.display());
        let connection = Connection::open(uri).unwrap();
        connection.busy_timeout(WATCHDOG).unwrap();
        connection
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")
            .unwrap();
        connection
    }

    /// A user that syncs nothing, without the extension.
    fn careless(&self) -> Connection {
        let connection = open_without_extension(&self.path);
        // It does not wait for readers.
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection
            .execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0")
            .unwrap();
        connection
    }

    /// Checks what is left on the disk when the power fails at `crash`.
    fn judge(&self, crash: &Crash, image: &Image, at: &str) {
        let path = beside(&self.path, "-left");
        let _left = SimulatedDatabase::new(&path, &Disk::new(image, 0));
        let connection = open_without_extension(&path);
        let integer = |sql: &str| {
            let row = connection.query_row(sql, [], |row| row.get::<_, u32>(0));
            let number = row.unwrap_or_else(|error| panic!("{at}: {sql}: {error}"));
            usize::try_from(number).unwrap()
        };
        let number = integer("SELECT number FROM state");
        let states = crash.floor..=crash.ceiling;
        assert!(
            states.contains(&number),
            "{at}: {number}, and not {states:?}"
        );
        let last = integer("SELECT coalesce(max(n), 0) FROM rows");
        let rows = integer("SELECT count(*) FROM rows WHERE length(data) = n * 40 % 900");
        assert_eq!((last, rows), (number, number), "{at}");
        let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        let verdict: String = check.unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(verdict, "ok", "{at}");
    }
}

fn open_without_extension(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), SIMULATED_VFS).unwrap()
}

/// Writes the next state, and returns its number. The transaction is open.
fn write(connection: &Connection, disk: &Disk) -> rusqlite::Result<usize> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let number = "UPDATE state SET number = number + 1 RETURNING number";
    let number: u32 = connection.query_row(number, [], |row| row.get(0))?;
    let insert = "INSERT INTO rows VALUES(?1, randomblob(?1 * 40 % 900))";
    connection.execute(insert, [number])?;
    let number = usize::try_from(number).unwrap();
    disk.attempt(number);
    Ok(number)
}

/// Commits the next state, and acknowledges it.
fn commit(connection: &Connection, disk: &Disk) -> rusqlite::Result<usize> {
    let number = write(connection, disk)?;
    connection.execute_batch("COMMIT")?;
    disk.acknowledge(number, true);
    Ok(number)
}

/// Lets `other` commit the next state while a sync of the log is in progress: its frames come
/// too late for that, and it waits for another one. The result is the number of its state.
fn commit_during_sync(scene: &Scene, other: Connection) -> mpsc::Receiver<(usize, Connection)> {
    let (sender, receiver) = mpsc::channel();
    let (disk, database) = (scene.disk.clone(), scene.database.clone());
    let mut other = Some((other, sender));
    let releases = database.write_releases();
    scene.disk.during_log_sync(Some(Box::new(move || {
        // Else the sync is that of a log header: the commit still has `WRITE`.
        if database.write_releases() == releases {
            return false;
        }
        if let Some((other, sender)) = other.take() {
            let (disk, before) = (disk.clone(), database.write_releases());
            thread::spawn(move || {
                let number = commit(&other, &disk).unwrap();
                // The test has failed if it does not wait.
                let _ = sender.send((number, other));
            });
            let deadline = Instant::now() + WATCHDOG;
            while database.write_releases() == before {
                assert!(Instant::now() < deadline, "no commit");
                thread::sleep(Duration::from_micros(100));
            }
        }
        true
    })));
    receiver
}

/// Lets a careless peer act between the two phases of the next commit.
fn act_between_phases(scene: &Scene, rng: &mut Rng) {
    let (checkpoints, commits, loses_locks) = (rng.bool(), rng.bool(), rng.bool());
    let (disk, careless) = (scene.disk.clone(), scene.careless());
    let mode = *rng.choice(&["PASSIVE", "RESTART", "TRUNCATE"]).unwrap();
    let database = Arc::downgrade(&scene.database);
    scene.database.after_write_release(Box::new(move || {
        disk.void_promise();
        // The committing connection holds its read lock, so that no peer restarts the log.
        if loses_locks && let Some(database) = database.upgrade() {
            database.lose_read_locks();
        }
        if checkpoints {
            // A reader may bar it.
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            let _busy: i64 = careless.query_row(&sql, [], |row| row.get(0)).unwrap();
        }
        if commits {
            let number = write(&careless, &disk).unwrap();
            careless.execute_batch("COMMIT").unwrap();
            disk.acknowledge(number, false);
        }
        true
    }));
}

/// Commits by two users, in random order, with what `rng` chooses in between.
fn run(scene: &Scene, rng: &mut Rng) {
    let (mut user, mut other) = (scene.user(), scene.user());
    let mut number = 0;
    while number < COMMITS {
        std::mem::swap(&mut user, &mut other);
        match rng.u8(..8) {
            0 => {
                let _busy: i64 = user
                    .query_row("PRAGMA wal_checkpoint", [], |row| row.get(0))
                    .unwrap();
            }
            1 => user = scene.user(),
            2 | 3 => {
                act_between_phases(scene, rng);
                number = commit(&user, &scene.disk).unwrap();
            }
            4..=6 => {
                let committed = commit_during_sync(scene, other);
                commit(&user, &scene.disk).unwrap();
                (number, other) = committed.recv_timeout(WATCHDOG).unwrap();
                scene.disk.during_log_sync(None);
            }
            _ => number = commit(&user, &scene.disk).unwrap(),
        }
    }
}

#[test]
fn stock_commit_that_shared_its_sync_survives_power_loss() {
    let first = setting("WAL_TEST_SEED", 1);
    let (mut steps, mut judged) = (0, 0);
    for seed in first..first + setting("WAL_POWER_SCRIPTS", 3) {
        let mut rng = Rng::with_seed(seed);
        let scene = Scene::new();
        run(&scene, &mut rng);
        for (step, crash) in scene.disk.take_crashes().into_iter().enumerate() {
            steps += 1;
            for survivors in 0..IMAGES {
                let image = crash.image(&mut rng);
                if !crash.void {
                    judged += 1;
                    let at = format!("seed {seed}, step {step}, image {survivors}");
                    scene.judge(&crash, &image, &at);
                }
            }
        }
    }
    println!("{steps} steps, {judged} images");
    assert!(judged > steps, "most of what is left is judged");
}

/// Whether the last sync of the log during `work` came after its commit was visible.
fn syncs_when_visible(scene: &Scene, work: impl FnOnce()) -> bool {
    let last = Arc::new(AtomicU64::new(0));
    let (seen, database) = (last.clone(), scene.database.clone());
    scene.disk.during_log_sync(Some(Box::new(move || {
        seen.store(1 + database.write_releases(), Ordering::SeqCst);
        false
    })));
    let before = scene.database.write_releases();
    work();
    scene.disk.during_log_sync(None);
    let last = last.load(Ordering::SeqCst);
    assert!(last > 0, "no sync");
    last > 1 + before
}

#[test]
fn transaction_over_two_databases_is_synced_before_it_is_visible() {
    let (scene, other) = (Scene::new(), Scene::new());
    let user = scene.user();
    let path = beside(&scene.path, "-rollback");
    let attach = format!(
        "ATTACH '{}' AS other; ATTACH '{}' AS rolled; CREATE TABLE rolled.t(n)",
        other.path.display(),
        path.display()
    );
    user.execute_batch(&attach).unwrap();
    // The first sync of a log is that of its header.
    user.execute_batch("UPDATE state SET number = 1; UPDATE other.state SET number = 1")
        .unwrap();
    let run = |sql: &str| syncs_when_visible(&scene, || user.execute_batch(sql).unwrap());
    let own = "UPDATE main.state SET number = number + 1";
    assert!(run(own), "one database");
    let reads =
        "BEGIN; UPDATE main.state SET number = number + (SELECT number FROM other.state); COMMIT";
    assert!(run(reads), "the other one is read");
    for second in [
        "UPDATE other.state SET number = number + 1",
        "INSERT INTO rolled.t VALUES(1)",
    ] {
        for sql in [format!("{own}; {second}"), format!("{second}; {own}")] {
            assert!(!run(&format!("BEGIN; {sql}; COMMIT")), "{sql}");
            assert!(run(own), "behind {sql}");
        }
    }
}

/// How often the log is synced during `work`.
fn log_syncs(scene: &Scene, work: impl FnOnce()) -> u64 {
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = syncs.clone();
    scene.disk.during_log_sync(Some(Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        false
    })));
    work();
    scene.disk.during_log_sync(None);
    syncs.load(Ordering::SeqCst)
}

/// In this mode SQLite releases no lock, and acquires none for a checkpoint.
#[test]
fn exclusive_mode_syncs_each_commit_and_each_checkpoint() {
    let scene = Scene::new();
    let user = scene.user();
    // The index is in shared memory, so there is a queue.
    commit(&user, &scene.disk).unwrap();
    user.execute_batch("PRAGMA locking_mode = EXCLUSIVE")
        .unwrap();
    let commits = || {
        commit(&user, &scene.disk).unwrap();
    };
    let checkpoint = || user.execute_batch("PRAGMA wal_checkpoint").unwrap();
    assert_eq!(log_syncs(&scene, commits), 1);
    assert_eq!(log_syncs(&scene, commits), 1);
    assert_eq!(log_syncs(&scene, checkpoint), 1);
    user.execute_batch("PRAGMA synchronous = NORMAL").unwrap();
    // The header of the new log.
    assert_eq!(log_syncs(&scene, commits), 1);
    assert_eq!(log_syncs(&scene, commits), 0);
    assert_eq!(log_syncs(&scene, checkpoint), 1);
}
