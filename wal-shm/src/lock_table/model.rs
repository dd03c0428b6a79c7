//! Every interleaving of a few threads on one table, whose readers are on different
//! stripes, under the C11 memory model as loom explores it.
//!
//! What a slot guards is a loom `UnsafeCell`, which fails the test on any two accesses
//! that the table has not ordered; and the system that stands behind the table fails it
//! if a lock is given back that is not held, or is not held while somebody counts on it.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p wal-shm --release --lib lock_table
// The guarded cell is reached through raw pointers; loom checks each access.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::AtomicU8 as Unseen;

use loom::cell::UnsafeCell;
use loom::thread::{self, JoinHandle};

use super::*;

const SLOT: ReadSlot = ReadSlot::MARKED[0];
const READ: Lock = Lock::Read(SLOT);
const FREE: u8 = 0;
const SHARED: u8 = 1;
const EXCLUSIVE: u8 = 2;

/// What the system holds of one slot; nobody else wants it. Its calls are made one at a
/// time, so loom need not see them.
#[derive(Default)]
struct System(Unseen);

impl System {
    fn holds(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Beyond for System {
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool> {
        assert_eq!(bytes, shm_bytes::of(READ));
        let held = match mode {
            LockMode::Shared => SHARED,
            LockMode::Exclusive => EXCLUSIVE,
        };
        self.0.store(held, Ordering::SeqCst);
        Ok(true)
    }

    fn unlock(&self, bytes: Range<u64>, _mode: LockMode) -> Result<()> {
        assert_eq!(bytes, shm_bytes::of(READ));
        assert_ne!(self.0.swap(FREE, Ordering::SeqCst), FREE, "it was not held");
        Ok(())
    }

    fn is_held_by_others(&self, _bytes: Range<u64>) -> bool {
        false
    }
}

/// A table, the system behind it, and what one slot guards.
struct Scene {
    table: LockTable,
    system: System,
    guarded: UnsafeCell<u32>,
}

// SAFETY: `guarded` is reached only while the slot is held in the matching way; that
// this is enough is what the tests check.
unsafe impl Sync for Scene {}
// SAFETY: as above.
unsafe impl Send for Scene {}

impl Scene {
    fn new() -> Arc<Self> {
        // Threads are numbered as they come: this one is at the first stripe, the next
        // one at the second.
        let scene = Scene {
            table: LockTable::with_stripes(None, None, 2),
            system: System::default(),
            guarded: UnsafeCell::new(0),
        };
        assert!(scene.take(LockMode::Shared));
        scene.give(LockMode::Shared);
        assert_eq!(scene.system.holds(), FREE);
        Arc::new(scene)
    }

    fn take(&self, mode: LockMode) -> bool {
        self.table.try_lock(&self.system, READ, mode).unwrap()
    }

    fn give(&self, mode: LockMode) {
        self.table.unlock(&self.system, READ, mode).unwrap();
    }

    /// What a shared holder does.
    fn look(&self) -> u32 {
        assert_eq!(self.system.holds(), SHARED);
        self.guarded.with(|guarded| {
            // SAFETY: the pointer is the cell's own, and loom has just checked that
            // every write to it happened before.
            unsafe { *guarded }
        })
    }

    /// Changes what is guarded, if the slot can be had alone.
    fn write(&self) -> bool {
        let granted = self.take(LockMode::Exclusive);
        if granted {
            self.change();
            self.give(LockMode::Exclusive);
        }
        granted
    }

    /// What an exclusive holder does.
    fn change(&self) {
        assert_eq!(self.system.holds(), EXCLUSIVE);
        self.guarded.with_mut(|guarded| {
            // SAFETY: the pointer is the cell's own, and loom has just checked that
            // every other access to it happened before.
            unsafe { *guarded += 1 }
        });
    }

    /// Reads, if the slot can be had, and releases it; later, if that is `delayed`.
    fn read(&self, delayed: bool) -> bool {
        let granted = self.take(LockMode::Shared);
        if granted {
            self.look();
            if !delayed || !self.table.unlock_delayed(&self.system, SLOT, || false) {
                self.give(LockMode::Shared);
            }
        }
        granted
    }

    fn assert_free(&self) {
        assert_eq!(self.system.holds(), FREE);
        assert!(!self.table.holds(READ) && !self.table.keeps_any());
        assert!(self.write());
        assert!(self.read(false));
    }
}

fn spawn<T: 'static>(
    scene: &Arc<Scene>,
    work: impl FnOnce(&Scene) -> T + 'static,
) -> JoinHandle<T> {
    let scene = scene.clone();
    thread::spawn(move || work(&scene))
}

#[test]
fn a_reader_of_any_stripe_and_who_has_the_slot_alone_exclude_each_other() {
    loom::model(|| {
        let scene = Scene::new();
        let reader = spawn(&scene, |scene| scene.read(false));
        let written = scene.write();
        let read = reader.join().unwrap();
        assert!(written || read);
        scene.assert_free();
    });
}

#[test]
fn of_two_readers_that_leave_the_last_one_gives_the_lock_back() {
    loom::model(|| {
        let scene = Scene::new();
        assert!(scene.take(LockMode::Shared));
        let reader = spawn(&scene, |scene| assert!(scene.read(false)));
        scene.look();
        scene.give(LockMode::Shared);
        reader.join().unwrap();
        scene.assert_free();
    });
}

#[test]
fn a_hold_is_given_back_on_another_thread_while_others_come() {
    loom::model(|| {
        let scene = Scene::new();
        assert!(scene.take(LockMode::Shared));
        let other = spawn(&scene, |scene| {
            scene.look();
            scene.give(LockMode::Shared);
        });
        assert!(scene.read(false));
        other.join().unwrap();
        scene.assert_free();
    });
}

#[test]
fn kept_lock_is_joined_or_swept_or_acquired_exclusively() {
    loom::model(|| {
        let scene = Scene::new();
        scene.table.start_delaying();
        assert!(scene.read(true));
        assert!(scene.table.keeps_any());
        let reader = spawn(&scene, |scene| assert!(scene.read(true)));
        scene.table.stop_delaying(&scene.system);
        reader.join().unwrap();
        scene.table.start_delaying();
        let writer = spawn(&scene, |scene| scene.write());
        let read = scene.read(true);
        assert!(writer.join().unwrap() || read);
        scene.table.stop_delaying(&scene.system);
        scene.assert_free();
    });
}

#[test]
fn no_lock_is_kept_behind_a_sweeper_that_has_stopped() {
    loom::model(|| {
        let scene = Scene::new();
        scene.table.start_delaying();
        let reader = spawn(&scene, |scene| assert!(scene.read(true)));
        scene.table.stop_delaying(&scene.system);
        reader.join().unwrap();
        assert_eq!(scene.system.holds(), FREE);
        scene.assert_free();
    });
}

#[test]
fn who_holds_a_slot_takes_it_again_while_another_tries_to_have_it_alone() {
    loom::model(|| {
        let scene = Scene::new();
        // At the stripe that is looked at last.
        let held = spawn(&scene, |scene| scene.take(LockMode::Shared));
        assert!(held.join().unwrap());
        let writer = spawn(&scene, |scene| scene.write());
        scene.table.join_again(SLOT);
        scene.look();
        assert!(!writer.join().unwrap());
        scene.give(LockMode::Shared);
        scene.give(LockMode::Shared);
        scene.assert_free();
    });
}

#[test]
fn a_slot_that_is_lowered_is_joined_and_not_had_alone() {
    loom::model(|| {
        let scene = Scene::new();
        assert!(scene.take(LockMode::Exclusive));
        let reader = spawn(&scene, |scene| scene.read(false));
        scene.change();
        assert!(scene.table.downgrade(&scene.system, SLOT).unwrap());
        assert!(!scene.take(LockMode::Exclusive));
        assert_eq!(scene.look(), 1);
        scene.give(LockMode::Shared);
        reader.join().unwrap();
        scene.assert_free();
    });
}
