//! Read locks linger for the next reader of a process, and hold nobody up:
//! neither a log that stock SQLite keeps short, nor who truncates it.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod stamped;

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{
    Checkpoint, Command, HeldByte, Load, LoadReport, Role, Settings, Stamp, Synchronous, WATCHDOG,
    Worker,
};
use rusqlite::types::Value;
use wal_core::io::{ByteLocks, LockKind, beside, shm_bytes};
use wal_core::{Lock, LockMode, ReadSlot};

const LINGER: Duration = Duration::from_millis(5);
/// How often stock SQLite commits beside the readers.
const COMMITS: u32 = 6_000;

struct Scene {
    settings: Settings,
    pages: Range<u32>,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let pages = stamped::create(&path, 1024, 4, "CREATE TABLE t(n); INSERT INTO t VALUES(0)");
        let mut settings = Settings::new(&path);
        settings.linger = LINGER;
        Scene {
            settings,
            pages: pages.unwrap(),
            _directory: directory,
        }
    }

    fn stock(&self) -> StockSqlite {
        let mut stock = StockSqlite::spawn(StockKind::Bundled, &self.settings.path, None).unwrap();
        stock.set_busy_timeout(WATCHDOG / 2).unwrap();
        stock
    }

    fn worker(&self) -> Worker {
        Worker::open(&self.settings).unwrap()
    }

    /// Runs `act` beside three processes that read back to back, from before it
    /// begins until after it ends.
    fn beside_readers(&self, act: impl FnOnce()) {
        let load = Load {
            threads: 1,
            role: Role::Reader,
            pages: self.pages.clone(),
            seed: 1,
            duration: 100 * WATCHDOG,
        };
        let mut onlooker = self.worker();
        let mut readers: Vec<Worker> = (0..3).map(|_| self.worker()).collect();
        for reader in &mut readers {
            reader.send(&Command::Load(load.clone())).unwrap();
        }
        self.until_read(&mut onlooker);
        act();
        self.until_read(&mut onlooker);
        for mut reader in readers {
            let failed = reader.finish::<LoadReport>(Duration::ZERO).unwrap_err();
            assert!(failed.to_string().contains("did not answer"), "{failed:#}");
            reader.kill().unwrap();
        }
    }

    /// Waits until a process reads.
    fn until_read(&self, onlooker: &mut Worker) {
        let end = Instant::now() + WATCHDOG;
        while self.held_slots(onlooker).is_empty() {
            assert!(Instant::now() < end, "nobody reads");
        }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        beside(&self.settings.path, suffix)
    }

    /// Which read slots somebody holds, as `onlooker` sees it.
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

fn truncated(stock: &mut StockSqlite) -> bool {
    let row = stock.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    row.unwrap().0[0][0] == Value::Integer(0)
}

fn stamp(sequence: u64) -> Stamp {
    let writer = 1;
    Stamp { writer, sequence }
}

/// Reads again and again, so quickly that the lock lingers.
fn read_thrice(worker: &mut Worker) {
    for name in ["one", "two", "three"] {
        worker.begin_read(name).unwrap();
        worker.end_read(name).unwrap();
    }
}

#[test]
fn a_lock_lingers_and_is_gone_before_long() {
    let scene = Scene::new();
    let (mut reader, mut onlooker) = (scene.worker(), scene.worker());
    // The commands may come too slowly for a lock to linger, now and then.
    let end = Instant::now() + WATCHDOG;
    loop {
        read_thrice(&mut reader);
        if !scene.held_slots(&mut onlooker).is_empty() {
            break;
        }
        assert!(Instant::now() < end, "no lock ever lingered");
    }
    let since = Instant::now();
    while !scene.held_slots(&mut onlooker).is_empty() {
        assert!(since.elapsed() < WATCHDOG, "the lock stays");
        thread::yield_now();
    }
    println!("gone after {:?}", since.elapsed());
}

#[test]
fn a_lock_that_lingers_for_long_is_given_back_to_who_waits_for_it() {
    let mut scene = Scene::new();
    scene.settings.linger = 10 * WATCHDOG;
    scene.settings.checkpoint_patience = WATCHDOG;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    for sequence in 1..=20 {
        writer.commit(scene.pages.clone(), stamp(sequence)).unwrap();
        read_thrice(&mut reader);
        assert_eq!(scene.held_slots(&mut writer).len(), 1);
        let truncate = Command::Checkpoint(Checkpoint::Truncate);
        assert!(writer.ask::<bool>(truncate).unwrap());
        assert_eq!(fs::metadata(scene.file("-wal")).unwrap().len(), 0);
    }
}

#[test]
fn to_close_a_database_does_not_take_as_long_as_its_locks_linger() {
    for (side_file, linger) in [
        (true, 10 * WATCHDOG),
        (false, 10 * WATCHDOG),
        (true, Duration::MAX),
    ] {
        let scene = Scene::new();
        let options = wal::Options::new().linger(linger).side_file(side_file);
        let database = options.open(&scene.settings.path).unwrap();
        for _ in 0..3 {
            database.begin_read().unwrap();
        }
        let mut onlooker = Worker::spawn().unwrap();
        assert_eq!(scene.held_slots(&mut onlooker), [ReadSlot::DATABASE]);
        let since = Instant::now();
        database.close().unwrap();
        assert!(since.elapsed() < WATCHDOG, "{side_file} {linger:?}");
    }
}

#[test]
fn locks_linger_in_a_long_log_if_the_last_commit_is_of_one_who_keeps_it_short() {
    let mut scene = Scene::new();
    scene.settings.linger = 10 * WATCHDOG;
    scene.settings.synchronous = Synchronous::Off;
    let mut careless = scene.worker();
    let (mut holder, mut reader) = (scene.worker(), scene.worker());
    scene.settings.auto_checkpoint = 1000;
    let (mut careful, mut stock) = (scene.worker(), scene.stock());
    holder.begin_read("old").unwrap();
    let held = scene.held_slots(&mut careless);
    for sequence in 1..=300 {
        careless
            .commit(scene.pages.clone(), stamp(sequence))
            .unwrap();
    }
    read_thrice(&mut reader);
    assert_eq!(scene.held_slots(&mut careless), held);

    careful.commit(scene.pages.clone(), stamp(301)).unwrap();
    read_thrice(&mut reader);
    assert_eq!(scene.held_slots(&mut careless).len(), held.len() + 1);

    stock.run("UPDATE t SET n = n + 1").unwrap().unwrap();
    read_thrice(&mut reader);
    assert_eq!(scene.held_slots(&mut careless), held);
}

#[test]
fn stock_sqlite_that_waits_truncates_a_log_that_was_just_read() {
    let scene = Scene::new();
    let mut stock = scene.stock();
    let mut readers: Vec<Worker> = (0..3).map(|_| scene.worker()).collect();
    for round in 0..20 {
        stock.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        readers.iter_mut().for_each(read_thrice);
        assert!(truncated(&mut stock), "round {round}");
        assert_eq!(fs::metadata(scene.file("-wal")).unwrap().len(), 0);
    }
}

#[test]
fn stock_sqlite_that_waits_truncates_a_log_that_is_being_read() {
    let scene = Scene::new();
    let mut stock = scene.stock();
    scene.beside_readers(|| {
        for round in 0..20 {
            stock.run("UPDATE t SET n = n + 1").unwrap().unwrap();
            assert!(truncated(&mut stock), "round {round}");
        }
    });
}

/// A reader is there, or its lock, whenever stock SQLite tries to move what it
/// has just committed, so that ours, which moves more at a time, has nothing to do.
#[test]
fn locks_do_not_linger_in_a_log_that_is_not_kept_short_in_spite_of_all() {
    const THRESHOLD: u32 = 1100;
    let mut scene = Scene::new();
    scene.settings.linger = 10 * WATCHDOG;
    scene.settings.synchronous = Synchronous::Off;
    let mut reader = scene.worker();
    scene.settings.auto_checkpoint = THRESHOLD;
    let (mut ours, mut stock) = (scene.worker(), scene.stock());
    for sequence in 1..=2_400 {
        ours.commit(scene.pages.clone(), stamp(sequence)).unwrap();
        read_thrice(&mut reader);
        stock.run("UPDATE t SET n = n + 1").unwrap().unwrap();
    }
    let frames = fs::metadata(scene.file("-wal")).unwrap().len() / (1024 + 24);
    println!("12,000 frames, a log of {frames}");
    assert!(frames < u64::from(5 * THRESHOLD), "the log has {frames}");
}

#[test]
fn the_log_of_a_stock_writer_stays_short_beside_readers() {
    let scene = Scene::new();
    let mut stock = scene.stock();
    scene.beside_readers(|| {
        for _ in 0..COMMITS {
            stock.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        }
    });
    let frames = fs::metadata(scene.file("-wal")).unwrap().len() / (1024 + 24);
    println!("{COMMITS} commits of stock SQLite, a log of {frames} frames");
    // It is checkpointed from 1000 frames on, and begins anew as soon as a
    // checkpoint came through.
    assert!(
        frames < u64::from(COMMITS) / 2,
        "the log has {frames} frames"
    );
}

/// New readers leave a slot that a checkpointer may wait for; who holds it does not.
#[test]
fn a_held_snapshot_is_read_again_beside_a_checkpoint_of_another() {
    let scene = Scene::new();
    let options = wal::Options::new().auto_checkpoint(0).linger(LINGER);
    let database = options.open(&scene.settings.path).unwrap();
    let commit = || {
        let mut write = database.begin_write().unwrap();
        let _ = write.page_mut(wal::PageNo::ONE).unwrap();
        write.commit().unwrap();
    };
    commit();
    let held = database.begin_read().unwrap().hold(WATCHDOG).unwrap();
    commit();
    let stranger = fs::File::options()
        .read(true)
        .write(true)
        .open(scene.file("-shm"));
    let stranger = stranger.unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let checkpoint = shm_bytes::of(Lock::Checkpoint);
    assert!(
        locks
            .try_lock(&stranger, checkpoint.clone(), LockMode::Exclusive)
            .unwrap()
    );
    // Some sweeps of the locks that linger, of which each may find the slot in use.
    let until = Instant::now() + 20 * LINGER;
    while Instant::now() < until {
        drop(database.begin_read().unwrap());
        drop(held.begin_read().unwrap());
    }
    locks.unlock(&stranger, checkpoint).unwrap();
    drop(held);
    database.close().unwrap();
}
