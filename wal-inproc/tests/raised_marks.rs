//! A tail of the in-process backend is in one slot, with its own mark.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use wal_core::protocol::{CheckpointMode, DatabaseKind, ReadTx, Wal, WalConfig};
use wal_core::storage::{File, MemoryFile, Storage};
use wal_core::{PageNo, PageSize, ReadSlot, Result, WalCoordination};
use wal_inproc::InProcessWalCoordination;

#[derive(Debug)]
struct Files([MemoryFile; 2]);

impl Storage for Files {
    fn database(&self) -> &dyn File {
        &self.0[0]
    }

    fn log(&self) -> &dyn File {
        &self.0[1]
    }

    fn remove_log(&self) -> Result<()> {
        self.0[1].set_len(0)
    }
}

type Handle = Arc<Wal<InProcessWalCoordination>>;

fn database() -> Handle {
    let files = Files(["database", "log"].map(|name| MemoryFile::new(name, Vec::new())));
    let config = WalConfig::new(DatabaseKind::RawPages, PageSize::MIN);
    let coordination = InProcessWalCoordination::in_memory("database".as_ref());
    Wal::new(coordination, Box::new(files), config)
}

fn commit(wal: &Handle, byte: u8) {
    let mut tx = wal.begin_write(Duration::ZERO).unwrap();
    tx.set_page_count(1).unwrap();
    tx.page_mut(PageNo::ONE).unwrap().fill(byte);
    tx.commit().unwrap();
}

fn backfilled(wal: &Handle) -> u32 {
    wal.checkpoint(CheckpointMode::Passive).unwrap().backfilled
}

/// Readers at marks of their own, which leave no slot but that of the tail.
fn fill_other_slots(wal: &Handle) -> Vec<ReadTx<InProcessWalCoordination>> {
    (1..=3)
        .map(|byte| {
            commit(wal, byte);
            wal.begin_read().unwrap()
        })
        .collect()
}

#[test]
fn tail_beside_three_older_readers_stands_at_its_own_mark() {
    let wal = database();
    let readers = fill_other_slots(&wal);
    commit(&wal, 4);
    let mut tail = wal.tail().unwrap();
    let slot = tail.state().snapshot().slot().unwrap();
    assert!(
        readers
            .iter()
            .all(|read| read.snapshot().slot() != Some(slot))
    );
    for byte in 5..9 {
        commit(&wal, byte);
        assert_eq!(tail.advance().unwrap().count(), 1);
        assert_eq!(tail.state().snapshot().slot(), Some(slot));
        assert_eq!(wal.coordination().mark(slot), u32::from(byte));
        assert_eq!(tail.state().page(PageNo::ONE).unwrap()[0], byte);
    }
    drop(readers);
    // All that it has handed out can be moved, and no more.
    assert_eq!(backfilled(&wal), 8);
    commit(&wal, 9);
    assert_eq!(backfilled(&wal), 8);
    assert_eq!(tail.advance().unwrap().count(), 1);
    assert_eq!(backfilled(&wal), 9);
}

#[test]
fn tail_takes_no_second_slot_from_readers() {
    let wal = database();
    commit(&wal, 1);
    let mut tail = wal.tail().unwrap();
    let slot = tail.state().snapshot().slot().unwrap();
    let others = ReadSlot::MARKED.into_iter().filter(|other| *other != slot);
    let marks = || others.clone().map(|slot| wal.coordination().mark(slot));
    let before: Vec<u32> = marks().collect();
    for byte in 2..6 {
        commit(&wal, byte);
        tail.advance().unwrap();
        assert_eq!(
            marks().collect::<Vec<_>>(),
            before,
            "it went through another"
        );
    }
}

#[test]
fn tail_that_shares_its_slot_leaves_the_mark_of_the_other_reader() {
    let wal = database();
    commit(&wal, 1);
    let mut tail = wal.tail().unwrap();
    let slot = tail.state().snapshot().slot().unwrap();
    let clone = tail.state().try_clone().unwrap();
    commit(&wal, 2);
    assert_eq!(tail.advance().unwrap().count(), 1);
    assert_eq!(wal.coordination().mark(slot), 1);
    assert_eq!(backfilled(&wal), 1);
    assert_eq!(clone.page(PageNo::ONE).unwrap()[0], 1);
    drop(clone);
    assert_eq!(backfilled(&wal), 2);
}
