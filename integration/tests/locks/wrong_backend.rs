//! A coordination in safe code that breaks its contract: it grants every lock. That costs
//! whoever uses it the database, and takes nothing else in the process to undefined
//! behaviour.
#![allow(unsafe_code)]
// What gives a lock up is unsafe to call, so it is to implement.
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use integration::kind::kind_at;
use integration::stock::{StockKind, StockSqlite};
use wal_core::index::{IndexBlock, WritableBlock};
use wal_core::protocol::{CheckpointMode, Expected, Wal, WalConfig, inspect};
use wal_core::storage::{OpenMode, OsFile, OsStorage};
use wal_core::wait::WaitState;
use wal_core::{Error, Lock, LockMode, PageNo, ReadSlot, Result, WalCoordination};
use wal_shm::{Access, ShmOptions, ShmWalCoordination};

/// Grants every lock to everybody.
struct Granting(ShmWalCoordination);

impl WalCoordination for Granting {
    const HAS_FOREIGN_PEERS: bool = true;

    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        self.0.block(index)
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        self.0.grow(index)
    }

    fn try_lock(&self, _lock: Lock, _mode: LockMode) -> Result<bool> {
        Ok(true)
    }

    fn try_lock_mark(&self, _slot: ReadSlot, _mark: u32) -> Result<bool> {
        Ok(true)
    }

    unsafe fn unlock(&self, _lock: Lock, _mode: LockMode) {}

    unsafe fn downgrade(&self, _slot: ReadSlot) -> Result<bool> {
        Ok(true)
    }

    fn holders(&self, _lock: Lock) -> Vec<u32> {
        Vec::new()
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        self.0.mark(slot)
    }

    unsafe fn set_mark(&self, _slot: ReadSlot, _mark: u32) {}

    fn wait_state(&self) -> Option<&WaitState> {
        None
    }

    fn sleep(&self, _word: &AtomicU32, _seen: u32, _deadline: Instant) {}

    fn wake(&self, _word: &AtomicU32) {}

    fn detach(&self) -> Result<bool> {
        Ok(false)
    }

    fn remove(&self) -> Result<()> {
        Ok(())
    }
}

/// An attachment made by safe code, of files that are mapped.
fn attach(path: &Path, access: Access) -> Arc<Wal<Granting>> {
    let mut options = ShmOptions::default();
    options.access = access;
    let expected = Expected {
        kind: Some(kind_at(path)),
        ..Expected::default()
    };
    let look = |file: &OsFile| inspect(file, expected);
    let opened = ShmWalCoordination::open(path, OpenMode::Existing, options, look);
    let (shm, config): (_, WalConfig) = opened.unwrap();
    let database = shm.database().unwrap().clone();
    let storage = OsStorage::open(database, true).unwrap();
    Wal::new(Granting(shm), Box::new(storage), config)
}

fn commit(wal: &Arc<Wal<Granting>>, byte: u8) -> Result<()> {
    let mut tx = wal.begin_write(Duration::ZERO)?;
    tx.page_mut(PageNo::ONE)?.fill(byte);
    tx.commit().map(drop)
}

#[test]
fn page_stays_as_it_is_though_every_lock_is_granted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    std::fs::write(&path, [0; 4096]).unwrap();
    let wal = attach(&path, Access::ReadWrite);
    commit(&wal, 1).unwrap();
    wal.checkpoint(CheckpointMode::Passive).unwrap();
    let read = wal.begin_read().unwrap();
    let of_database = read.page(PageNo::ONE).unwrap();
    commit(&wal, 2).unwrap();
    let read = wal.begin_read().unwrap();
    let of_log = read.page(PageNo::ONE).unwrap();
    wal.checkpoint(CheckpointMode::Truncate).unwrap();
    commit(&wal, 3).unwrap();
    assert_eq!(*black_box(&*of_database), [1; 4096]);
    assert_eq!(*black_box(&*of_log), [2; 4096]);
}

/// The index is mapped for reading alone, so a store would be a signal.
#[test]
fn read_only_index_takes_no_store_though_every_lock_is_granted() {
    for kind in StockKind::available() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
        let made = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x);";
        peer.run(made).unwrap().unwrap();
        let wal = attach(&path, Access::ReadOnly);
        let mut tx = wal.begin_write(Duration::ZERO).unwrap();
        tx.page_mut(PageNo::ONE).unwrap()[60] ^= 1;
        let refused = tx.commit();
        let is_read_only = matches!(refused, Err(Error::ReadOnly { .. }));
        assert!(is_read_only, "{kind}: {refused:?}");
        let refused = wal.checkpoint(CheckpointMode::Passive);
        let is_read_only = matches!(refused, Err(Error::ReadOnly { .. }));
        assert!(is_read_only, "{kind}: {refused:?}");
        peer.close().unwrap();
    }
}
