//! What the table says, and what the system holds.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::main_file::MainFile;
use crate::shm_file::ShmFile;
use wal_core::ReadSlot;
use wal_core::storage::{ByteLocks, LockKind, OpenMode, OsFile};

const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// A file with a table, and a peer's view of the same file.
struct Scene {
    table: LockTable,
    file: ShmFile,
    peer: std::fs::File,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db-shm");
        let database = OsFile::open(&dir.path().join("db"), OpenMode::Create).unwrap();
        let file = ShmFile::open(&MainFile::Own(Arc::new(database)), LOCKS)
            .unwrap()
            .unwrap();
        let peer = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        Scene {
            table: LockTable::new(None, None),
            file,
            peer,
            _dir: dir,
        }
    }

    fn take(&self, lock: Lock, mode: LockMode) -> bool {
        self.table.try_lock(&self.file, lock, mode).unwrap()
    }

    fn give(&self, lock: Lock, mode: LockMode) {
        self.table.unlock(&self.file, lock, mode).unwrap();
    }

    /// How the peer sees `lock`.
    fn seen(&self, lock: Lock) -> Option<LockMode> {
        let conflict = LOCKS.conflict(&self.peer, shm_bytes::of(lock)).unwrap();
        conflict.map(|conflict| conflict.mode)
    }
}

const READ_1: Lock = Lock::Read(ReadSlot::MARKED[0]);

/// Another process holds what is tried exclusively, and during that call another thread
/// looks whether a lock is kept.
struct Looking<'t> {
    table: &'t Arc<LockTable>,
    seen: Sender<bool>,
    looked: Receiver<bool>,
    first: Cell<Option<bool>>,
}

impl<'t> Looking<'t> {
    fn new(table: &'t Arc<LockTable>) -> Self {
        let (seen, looked) = channel();
        Looking {
            table,
            seen,
            looked,
            first: Cell::new(None),
        }
    }
}

impl Beyond for Looking<'_> {
    fn try_lock(&self, _bytes: Range<u64>, mode: LockMode) -> Result<bool> {
        if mode == LockMode::Exclusive {
            let (table, seen) = (self.table.clone(), self.seen.clone());
            std::thread::spawn(move || seen.send(table.keeps_any()));
            // Without an answer, if that thread waits for the end of the call.
            let first = self.looked.recv_timeout(Duration::from_millis(100));
            self.first.set(first.ok());
        }
        Ok(mode == LockMode::Shared)
    }

    fn unlock(&self, _bytes: Range<u64>, _mode: LockMode) -> Result<()> {
        Ok(())
    }

    fn is_held_by_others(&self, _bytes: Range<u64>) -> bool {
        false
    }
}

/// The system with nobody in the way: a lock that is given back is gone, however often
/// it was taken.
#[derive(Default)]
struct Recording(AtomicU8);

fn bits(bytes: &Range<u64>) -> u8 {
    let first = shm_bytes::of(Lock::Write).start;
    bytes.clone().map(|byte| 1 << (byte - first)).sum()
}

impl Beyond for Recording {
    fn try_lock(&self, bytes: Range<u64>, _mode: LockMode) -> Result<bool> {
        self.0.fetch_or(bits(&bytes), Ordering::SeqCst);
        Ok(true)
    }

    fn unlock(&self, bytes: Range<u64>, _mode: LockMode) -> Result<()> {
        let held = self.0.fetch_and(!bits(&bytes), Ordering::SeqCst);
        assert_eq!(held & bits(&bytes), bits(&bytes), "it was not held");
        Ok(())
    }

    fn is_held_by_others(&self, _bytes: Range<u64>) -> bool {
        false
    }
}

/// What a thread does again and again: bits of `turn` choose.
fn take_and_give(table: &LockTable, beyond: &Recording, turn: u32) {
    let slot = ReadSlot::MARKED[usize::from(turn & 1 != 0)];
    let lock = Lock::Read(slot);
    let exclusive = turn & 2 != 0;
    let mode = match exclusive {
        true => LockMode::Exclusive,
        false => LockMode::Shared,
    };
    if !table.try_lock(beyond, lock, mode).unwrap() {
        return;
    }
    assert!(table.holds(lock));
    assert_ne!(beyond.0.load(Ordering::SeqCst) & bits_of(lock), 0);
    let mode = match exclusive && turn & 4 != 0 {
        true => {
            assert!(table.downgrade(beyond, slot).unwrap());
            LockMode::Shared
        }
        false => mode,
    };
    let delayed = mode == LockMode::Shared && turn & 8 != 0;
    if !delayed || !table.unlock_delayed(beyond, slot, || false) {
        table.unlock(beyond, lock, mode).unwrap();
    }
    if turn & 48 == 48 {
        // A look long ago, as far as this table goes.
        let mut seen = table.seen();
        table.look(beyond, &mut seen);
    }
    match turn & 448 {
        0 => table.start_delaying(),
        64 => table.stop_delaying(beyond),
        _ => {}
    }
}

#[test]
fn system_holds_what_the_table_says_whatever_threads_do() {
    let (table, beyond) = (LockTable::new(None, None), Recording::default());
    for seed in 1..=40_u64 {
        let work = |seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..500 {
                take_and_give(&table, &beyond, random.u32(..));
            }
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|thread| drop(scope.spawn(move || work(seed * 4 + thread))));
        });
        table.stop_delaying(&beyond);
        let held = (0..Lock::COUNT).filter(|&at| table.bytes[at].state() != State::Free);
        assert_eq!(held.count(), 0, "seed {seed}");
        assert_eq!(beyond.0.load(Ordering::SeqCst), 0, "seed {seed}");
    }
}

#[test]
fn lock_is_kept_while_another_thread_tries_it_exclusively() {
    let table = Arc::new(LockTable::new(None, None));
    let beyond = Looking::new(&table);
    assert!(table.try_lock(&beyond, READ_1, LockMode::Shared).unwrap());
    table.start_delaying();
    assert!(table.unlock_delayed(&beyond, ReadSlot::MARKED[0], || false));
    assert!(
        !table
            .try_lock(&beyond, READ_1, LockMode::Exclusive)
            .unwrap()
    );
    let seen = beyond.first.get();
    let patience = Duration::from_secs(60);
    let seen = seen.map_or_else(|| beyond.looked.recv_timeout(patience), Ok);
    assert_eq!(seen, Ok(true), "the sweeper would miss it");
}

#[test]
fn a_shared_lock_stays_until_its_last_holder_in_the_process_goes() {
    let scene = Scene::new();
    assert!(scene.take(READ_1, LockMode::Shared));
    assert!(scene.take(READ_1, LockMode::Shared));
    scene.give(READ_1, LockMode::Shared);
    assert_eq!(scene.seen(READ_1), Some(LockMode::Shared));
    scene.give(READ_1, LockMode::Shared);
    assert_eq!(scene.seen(READ_1), None);
}

#[test]
fn an_exclusive_lock_does_not_run_over_a_shared_one_of_the_same_process() {
    let scene = Scene::new();
    assert!(scene.take(READ_1, LockMode::Shared));
    for lock in [READ_1, Lock::ReadMarks, Lock::Readers] {
        assert!(!scene.take(lock, LockMode::Exclusive), "{lock}");
        assert_eq!(scene.seen(READ_1), Some(LockMode::Shared), "{lock}");
    }
    scene.give(READ_1, LockMode::Shared);
    assert!(scene.take(Lock::ReadMarks, LockMode::Exclusive));
    assert!(!scene.take(READ_1, LockMode::Shared));
    assert_eq!(scene.seen(Lock::ReadMarks), Some(LockMode::Exclusive));
    scene.give(Lock::ReadMarks, LockMode::Exclusive);
    assert_eq!(scene.seen(Lock::ReadMarks), None);
}

#[test]
fn a_slot_that_is_lowered_is_shared_and_free_for_others_to_share() {
    let scene = Scene::new();
    assert!(scene.take(READ_1, LockMode::Exclusive));
    let slot = ReadSlot::MARKED[0];
    assert!(scene.table.downgrade(&scene.file, slot).unwrap());
    assert_eq!(scene.seen(READ_1), Some(LockMode::Shared));
    assert!(!scene.take(READ_1, LockMode::Exclusive));
    assert!(scene.take(READ_1, LockMode::Shared));
    scene.give(READ_1, LockMode::Shared);
    assert_eq!(scene.seen(READ_1), Some(LockMode::Shared));
    scene.give(READ_1, LockMode::Shared);
    assert_eq!(scene.seen(READ_1), None);
}

/// Reads at `slot` as the coordination does; true if the lock was kept.
fn read(table: &LockTable, beyond: &Recording, slot: ReadSlot) -> bool {
    let start = || {
        table.start_delaying();
        true
    };
    let lock = Lock::Read(slot);
    assert!(table.try_lock(beyond, lock, LockMode::Shared).unwrap());
    let kept = table.unlock_delayed(beyond, slot, start);
    if !kept {
        table.unlock(beyond, lock, LockMode::Shared).unwrap();
    }
    assert_eq!(beyond.0.load(Ordering::SeqCst) & bits_of(lock) != 0, kept);
    kept
}

/// A table for which all reads of a test follow each other closely.
fn long_delays() -> LockTable {
    LockTable::new(Delay::new(Duration::from_secs(100_000)), None)
}

#[test]
fn release_is_delayed_after_a_streak_of_reads_and_again_after_another() {
    let (table, beyond) = (long_delays(), Recording::default());
    for streak in [16, 15] {
        let kept = (0..20).map(|_| read(&table, &beyond, ReadSlot::DATABASE));
        // The first read of all follows no other.
        assert_eq!(kept.filter(|&kept| !kept).count(), streak);
        table.stop_delaying(&beyond);
        assert_eq!(beyond.0.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn sweeper_goes_on_while_enough_readers_are_spared_a_system_call() {
    let (table, beyond) = (long_delays(), Recording::default());
    let [one, two, ..] = ReadSlot::MARKED;
    table.start_delaying();
    assert!(read(&table, &beyond, one));
    let mut seen = table.seen();
    let mut look = |slots: &[ReadSlot]| {
        slots
            .iter()
            .for_each(|slot| assert!(read(&table, &beyond, *slot)));
        table.look(&beyond, &mut seen)
    };
    assert!(look(&[one; 10]));
    assert!(!look(&[one; 9]));
    assert!(!look(&[one, two].repeat(20)), "each needed a call");
    assert!(look(&[two; 11]));
    assert_eq!(beyond.0.load(Ordering::SeqCst), bits_of(Lock::Read(two)));
    assert!(!look(&[]));
    assert_eq!(beyond.0.load(Ordering::SeqCst), 0, "no reader came");
}

#[test]
fn slot_in_use_is_drained_while_another_process_checkpoints() {
    let scene = Scene::new();
    let mut seen = scene.table.seen();
    let checkpoint = shm_bytes::of(Lock::Checkpoint);
    let at_checkpoint = LOCKS.try_lock(&scene.peer, checkpoint.clone(), LockMode::Exclusive);
    assert!(at_checkpoint.unwrap());
    assert!(scene.take(READ_1, LockMode::Shared));
    assert!(scene.table.look(&scene.file, &mut seen));
    assert!(
        !scene.take(READ_1, LockMode::Shared),
        "readers go elsewhere"
    );
    assert_eq!(
        scene.seen(READ_1),
        Some(LockMode::Shared),
        "one is still there"
    );
    scene.table.join_again(ReadSlot::MARKED[0]);
    scene.give(READ_1, LockMode::Shared);
    assert_eq!(scene.seen(READ_1), Some(LockMode::Shared), "and came twice");
    scene.give(READ_1, LockMode::Shared);
    assert_eq!(scene.seen(READ_1), None);
    assert!(scene.take(Lock::Read(ReadSlot::MARKED[1]), LockMode::Shared));
    LOCKS.unlock(&scene.peer, checkpoint).unwrap();
    scene.table.look(&scene.file, &mut seen);
    assert!(scene.take(READ_1, LockMode::Shared));
}

#[test]
fn lock_of_a_peer_is_respected_and_leaves_no_trace_in_the_table() {
    let scene = Scene::new();
    let write = shm_bytes::of(Lock::Write);
    assert!(
        LOCKS
            .try_lock(&scene.peer, write.clone(), LockMode::Exclusive)
            .unwrap()
    );
    assert!(!scene.take(Lock::Write, LockMode::Exclusive));
    LOCKS.unlock(&scene.peer, write).unwrap();
    assert!(scene.take(Lock::Write, LockMode::Exclusive));
}
