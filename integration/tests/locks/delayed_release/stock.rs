//! Stock SQLite beside processes that read often: it truncates the log, and its
//! automatic checkpoints keep the log short.

use std::fs;
use std::time::{Duration, Instant};

use integration::stock::StockSqlite;
use integration::worker::{Command, Load, LoadReport, Role, WATCHDOG, Worker};
use wal_core::storage::{ByteLocks, LockKind, shm_bytes};
use wal_core::{Lock, LockMode};

use super::{DELAY, Scene, onlooker, read_often, stock_checkpoint, update};

/// How many times stock SQLite restarts the log beside the readers.
const RESTARTS: usize = 5;

/// Commits to which most of these logs have to be shorter.
const LONG: usize = 3_000;

fn patient_stock(scene: &Scene) -> StockSqlite {
    let mut stock = scene.stock();
    stock.set_busy_timeout(WATCHDOG / 2).unwrap();
    stock
}

/// Runs `act` beside three processes that read back to back, from before it
/// begins until after it ends.
fn beside_readers(scene: &Scene, act: impl FnOnce()) {
    let load = Load {
        threads: 1,
        role: Role::Reader,
        pages: scene.pages.clone(),
        seed: 1,
        duration: 100 * WATCHDOG,
    };
    let mut onlooker = onlooker();
    let mut readers: Vec<Worker> = (0..3).map(|_| scene.worker()).collect();
    for reader in &mut readers {
        reader.send(&Command::Load(load.clone())).unwrap();
    }
    wait_until_read(scene, &mut onlooker);
    act();
    wait_until_read(scene, &mut onlooker);
    for mut reader in readers {
        let failed = reader.finish::<LoadReport>(Duration::ZERO).unwrap_err();
        assert!(failed.to_string().contains("did not answer"), "{failed:#}");
        reader.kill().unwrap();
    }
}

fn wait_until_read(scene: &Scene, onlooker: &mut Worker) {
    let end = Instant::now() + WATCHDOG;
    while scene.held_slots(onlooker).is_empty() {
        assert!(Instant::now() < end, "no process reads");
    }
}

#[test]
fn stock_truncates_a_log_that_was_just_read() {
    let scene = Scene::new(DELAY);
    let mut stock = patient_stock(&scene);
    let mut readers: Vec<Worker> = (0..3).map(|_| scene.worker()).collect();
    for round in 0..20 {
        update(&mut stock);
        readers.iter_mut().for_each(read_often);
        assert!(stock_checkpoint(&mut stock, "TRUNCATE"), "round {round}");
        assert_eq!(fs::metadata(scene.file("-wal")).unwrap().len(), 0);
    }
}

#[test]
fn stock_truncates_a_log_that_is_being_read() {
    let scene = Scene::new(DELAY);
    let mut stock = patient_stock(&scene);
    beside_readers(&scene, || {
        for round in 0..20 {
            update(&mut stock);
            assert!(stock_checkpoint(&mut stock, "TRUNCATE"), "round {round}");
        }
    });
}

/// Stock SQLite checkpoints from 1000 frames on, and restarts the log once a checkpoint is
/// complete. One checkpoint may find a reader many times in a row, so that one log may be
/// long; a lock that stays makes all of them so.
#[test]
fn log_of_a_stock_writer_stays_short_beside_readers() {
    let scene = Scene::new(DELAY);
    let mut stock = patient_stock(&scene);
    let mut lengths = Vec::new();
    update(&mut stock);
    beside_readers(&scene, || {
        let (mut salts, mut commits) = (scene.salts(), 0);
        while lengths.len() < RESTARTS && commits < RESTARTS * LONG {
            update(&mut stock);
            commits += 1;
            let newest = scene.salts();
            if newest != salts {
                lengths.push(commits);
                (salts, commits) = (newest, 0);
            }
        }
    });
    println!("commits of stock SQLite in each log: {lengths:?}");
    let short = lengths.iter().filter(|&&commits| commits < LONG);
    assert!(
        short.count() > RESTARTS / 2,
        "the logs have {lengths:?} commits"
    );
}

/// New readers leave a slot that a checkpointer may wait for; its holder does not.
#[test]
fn held_snapshot_is_read_again_beside_a_foreign_checkpoint() {
    let scene = Scene::new(DELAY);
    let options = wal::Options::new().auto_checkpoint(0);
    let options = options.read_lock_delay(DELAY);
    let database = options.open(&scene.settings.path).unwrap();
    let commit = || {
        let mut write = database.begin_write().unwrap();
        let _ = write.page_mut(wal::PageNo::ONE).unwrap();
        write.commit().unwrap();
    };
    commit();
    let held = database.begin_read().unwrap().hold(WATCHDOG).unwrap();
    commit();
    let peer = fs::File::options()
        .read(true)
        .write(true)
        .open(scene.file("-shm"));
    let peer = peer.unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let checkpoint = shm_bytes::of(Lock::Checkpoint);
    let at_checkpoint = locks.try_lock(&peer, checkpoint.clone(), LockMode::Exclusive);
    assert!(at_checkpoint.unwrap());
    // Many looks of the sweeper, of which each may find the slot in use.
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        drop(database.begin_read().unwrap());
        drop(held.begin_read().unwrap());
    }
    locks.unlock(&peer, checkpoint).unwrap();
    drop(held);
    database.close().unwrap();
}
