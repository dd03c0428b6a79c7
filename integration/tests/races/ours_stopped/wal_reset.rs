//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2, in both directions: ours is no
//! checkpointer that falls for it, and no writer that lets an old SQLite fall
//! for it. A checkpointer that has read the header of a log that is all
//! backfilled must not take the backfilled count of the log that replaces it
//! for a count of the old one.
#![allow(unsafe_code)] // What gives a lock up is handed on.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use integration::stock::{Control, StockKind, StockSqlite};
use wal::{CheckpointMode, Salts};
use wal_core::index::{IndexBlock, WritableBlock};
use wal_core::protocol::{Expected, Wal, inspect};
use wal_core::storage::{OpenMode, OsFile, OsStorage};
use wal_core::wait::WaitState;
use wal_core::{Lock, LockMode, ReadSlot, Result, WalCoordination};
use wal_shm::{ShmOptions, ShmWalCoordination};

use crate::{Ours, Scene, Start, WAIT, values};

/// Coordination with others in which something happens between a
/// checkpointer's look at the header and its look at the backfilled count.
struct WithGap {
    shm: ShmWalCoordination,
    gap: Mutex<Gap>,
}

enum Gap {
    /// Once Checkpoint is held.
    Ahead(Box<dyn FnOnce() + Send>),
    /// Once block 0 was looked at for the header.
    HeaderComes(Box<dyn FnOnce() + Send>),
    /// With the next look at block 0.
    Next(Box<dyn FnOnce() + Send>),
    Over,
}

impl WithGap {
    fn advance(&self, seen: Option<Lock>) {
        let mut gap = self.gap.lock().unwrap();
        *gap = match (std::mem::replace(&mut *gap, Gap::Over), seen) {
            (Gap::Ahead(event), Some(Lock::Checkpoint)) => Gap::HeaderComes(event),
            (Gap::HeaderComes(event), None) => Gap::Next(event),
            (Gap::Next(event), None) => {
                event();
                Gap::Over
            }
            (unmoved, _) => unmoved,
        };
    }
}

impl WalCoordination for WithGap {
    const HAS_FOREIGN_PEERS: bool = ShmWalCoordination::HAS_FOREIGN_PEERS;

    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        if index == 0 {
            self.advance(None);
        }
        self.shm.block(index)
    }

    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool> {
        let locked = self.shm.try_lock(lock, mode);
        self.advance(Some(lock));
        locked
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        self.shm.grow(index)
    }

    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        self.shm.try_lock_mark(slot, mark)
    }

    unsafe fn unlock(&self, lock: Lock, mode: LockMode) {
        // SAFETY: as the caller says.
        unsafe { self.shm.unlock(lock, mode) };
    }

    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        // SAFETY: as the caller says.
        unsafe { self.shm.downgrade(slot) }
    }

    fn holders(&self, lock: Lock) -> Vec<u32> {
        self.shm.holders(lock)
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        self.shm.mark(slot)
    }

    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        // SAFETY: as the caller says.
        unsafe { self.shm.set_mark(slot, mark) };
    }

    fn wait_state(&self) -> Option<&WaitState> {
        self.shm.wait_state()
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        self.shm.sleep(word, seen, deadline);
    }

    fn wake(&self, word: &AtomicU32) {
        self.shm.wake(word);
    }

    fn detach(&self) -> Result<bool> {
        self.shm.detach()
    }

    fn remove(&self) -> Result<()> {
        self.shm.remove()
    }
}

fn update(stock: &mut StockSqlite, times: usize) {
    for _ in 0..times {
        stock.run("UPDATE t SET n=n+1").unwrap().unwrap();
    }
}

fn backfill(stock: &mut StockSqlite) {
    let rows = stock.run("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let [busy, frames, copied] = rows.unwrap().0[0].clone().try_into().unwrap();
    assert_eq!(busy, 0.into());
    assert_eq!(frames, copied);
}

#[test]
fn a_passive_checkpoint_of_ours_notices_that_stock_restarted_the_log_in_its_gap() {
    for kind in StockKind::available() {
        let scene = Scene::new(Start::Closed);
        let mut stock = scene.stock(kind);
        update(&mut stock, 3);
        backfill(&mut stock);

        let mut writer = scene.stock(kind);
        let options = ShmOptions::default();
        let look = |file: &OsFile| inspect(file, Expected::default());
        let opened = ShmWalCoordination::open(&scene.path, OpenMode::Existing, options, look);
        let (shm, config) = opened.unwrap();
        let storage = OsStorage::open(shm.database().unwrap().clone(), true).unwrap();
        let restart = Box::new(move || update(&mut writer, 1));
        let gap = Mutex::new(Gap::Ahead(restart));
        let wal = Wal::new(WithGap { shm, gap }, Box::new(storage), config);
        wal.checkpoint(CheckpointMode::Passive).unwrap();
        let over = matches!(*wal.coordination().gap.lock().unwrap(), Gap::Over);
        assert!(over, "the checkpoint did not come to its gap");
        wal.close().unwrap();
        drop(wal);

        // Up to where the old log ended these frames have pages of their own,
        // so that they are missed if they count as copied; then beyond it.
        stock
            .run("INSERT INTO u VALUES(zeroblob(3000))")
            .unwrap()
            .unwrap();
        update(&mut stock, 4);
        // Not from the cache of the one that wrote it.
        let rows = scene
            .keeper()
            .run("SELECT hex(a)=hex(zeroblob(3000)) FROM u")
            .unwrap();
        assert_eq!(rows.unwrap().integer().unwrap(), 1, "the row is not whole");
        let ours = Ours::open(&scene.path).unwrap();
        let (count, _) = scene.expect_sound(stock, ours);
        assert_eq!(count, 8, "commits of stock SQLite");
    }
}

fn salts(ours: &Ours) -> Salts {
    ours.database().begin_read().unwrap().snapshot().salts()
}

/// Commits while a checkpointer of stock SQLite is stopped at `point`; true if
/// that restarted the log.
fn restarts_beside(kind: StockKind, backfilled: bool, point: Option<&str>) -> bool {
    let scene = Scene::new(Start::Closed);
    let ours = Ours::open(&scene.path).unwrap();
    let control = Control::new().unwrap();
    let mut stock = StockSqlite::spawn(kind, &scene.path, Some(&control)).unwrap();
    update(&mut stock, 3);
    if backfilled {
        backfill(&mut stock);
    }
    let before = salts(&ours);
    if let Some(point) = point {
        control.arm(point, 1).unwrap();
        stock.send("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        control.wait_stopped(WAIT).unwrap();
    }
    ours.commit(1).unwrap();
    let after = salts(&ours);
    if point.is_some() {
        control.go().unwrap();
        stock.finish(WAIT).unwrap().unwrap();
    }
    update(&mut stock, 4);
    assert_eq!(values(&mut stock).unwrap(), 7);
    let (count, image) = scene.expect_sound(stock, ours);
    assert_eq!((count, image.sequence()), (7, 1));
    before != after
}

#[test]
fn a_writer_of_ours_does_not_restart_the_log_under_a_checkpointer_of_stock() {
    const HELD: [(bool, &str); 5] = [
        (false, "before shm:lock:EXCLUSIVE:READ0"),
        (false, "before shm:unlock:EXCLUSIVE:READ0"),
        (false, "before shm:unlock:EXCLUSIVE:CKPT"),
        (true, "after shm:lock:EXCLUSIVE:CKPT"),
        (true, "before shm:unlock:EXCLUSIVE:CKPT"),
    ];
    for kind in StockKind::available() {
        assert!(restarts_beside(kind, true, None), "it restarts otherwise");
        for (backfilled, point) in HELD {
            assert!(!restarts_beside(kind, backfilled, Some(point)), "{point}");
        }
    }
}
