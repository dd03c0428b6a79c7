//! Every interleaving of a few threads on one `SlotLock`, whose readers are on
//! different stripes, under the C11 memory model as loom explores it.
//!
//! The guarded data is a loom `UnsafeCell`, which fails the test on any two
//! accesses that the lock has not ordered.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p wal-inproc --release --test loom_slot_lock
#![cfg(loom)]
// The guarded cell is reached through raw pointers; loom checks each access.
#![allow(unsafe_code)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use wal_inproc::slot_lock::SlotLock;

/// A slot and the data it guards.
struct Guarded {
    slot: SlotLock,
    data: UnsafeCell<u32>,
}

// SAFETY: `data` is reached only while `slot` is held in the matching way; that
// this is enough is what the tests check.
unsafe impl Sync for Guarded {}

impl Guarded {
    fn new() -> Arc<Self> {
        let slot = SlotLock::with_stripes(2, 0);
        // Threads are numbered as they come: this one is at the first stripe, the
        // next one at the second.
        assert_eq!(slot.mark(), 0);
        Arc::new(Self {
            slot,
            data: UnsafeCell::new(0),
        })
    }

    /// Reads the data; the caller holds the slot.
    fn get(&self) -> u32 {
        self.data.with(|data| {
            // SAFETY: the pointer is the cell's own, and loom has just checked
            // that every write to it happened before.
            unsafe { *data }
        })
    }

    /// Writes the data; the caller has the slot alone.
    fn set(&self, value: u32) {
        self.data.with_mut(|data| {
            // SAFETY: the pointer is the cell's own, and loom has just checked
            // that every other access to it happened before.
            unsafe { *data = value }
        });
    }

    /// Writes data and mark, if the slot can be had alone.
    fn write(&self, value: u32) -> bool {
        let granted = self.slot.try_write();
        if granted {
            self.slot.set_mark(value);
            self.set(value);
            self.slot.unlock_write();
        }
        granted
    }

    /// Reads the data, if the slot can be had with `mark`.
    fn read_if(&self, mark: u32) -> bool {
        let granted = self.slot.try_read_if(mark);
        if granted {
            assert_eq!(self.get(), mark);
            assert_eq!(self.slot.mark(), mark);
            self.slot.unlock_read();
        }
        granted
    }

    fn assert_free(&self, value: u32) {
        assert_eq!(self.slot.mark(), value);
        assert!(self.slot.try_write());
        self.slot.unlock_write();
        assert!(self.read_if(value));
    }
}

/// Runs `work` on a thread of its own.
fn spawn<T: 'static>(
    guarded: &Arc<Guarded>,
    work: impl FnOnce(&Guarded) -> T + 'static,
) -> thread::JoinHandle<T> {
    let guarded = Arc::clone(guarded);
    thread::spawn(move || work(&guarded))
}

#[test]
fn a_reader_of_any_stripe_and_a_writer_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let reader = spawn(&guarded, |guarded| guarded.read_if(0));
        let written = guarded.write(1);
        reader.join().unwrap();
        guarded.assert_free(u32::from(written));
    });
}

#[test]
fn writers_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let other = spawn(&guarded, |guarded| guarded.write(1));
        let mine = guarded.write(2);
        let others = other.join().unwrap();
        // Each may be refused for the sake of the other, who only tried.
        let last = guarded.slot.mark();
        assert!(match last {
            1 => others,
            2 => mine,
            _ => !mine && !others,
        });
        guarded.assert_free(last);
    });
}

#[test]
fn a_hold_is_given_back_on_another_thread_while_others_come_and_go() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.slot.try_read());
        assert!(guarded.slot.try_read());
        let other = spawn(&guarded, |guarded| {
            assert_eq!(guarded.get(), 0);
            guarded.slot.unlock_read();
            guarded.read_if(0);
        });
        assert!(!guarded.write(1), "the other hold is still there");
        other.join().unwrap();
        assert!(!guarded.write(1));
        guarded.slot.unlock_read();
        guarded.assert_free(0);
    });
}

#[test]
fn who_holds_a_slot_takes_it_again_on_any_thread_while_another_tries_to_have_it_alone() {
    loom::model(|| {
        let guarded = Guarded::new();
        // At the stripe that is looked at last.
        let held = spawn(&guarded, |guarded| guarded.slot.try_read());
        assert!(held.join().unwrap());
        let writer = spawn(&guarded, |guarded| guarded.write(1));
        assert!(guarded.slot.try_read(), "it is held");
        assert!(!writer.join().unwrap());
        guarded.slot.unlock_read();
        guarded.slot.unlock_read();
        guarded.assert_free(0);
    });
}

#[test]
fn nobody_has_a_slot_alone_between_a_downgrade_and_its_shared_hold() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.slot.try_write());
        let writer = spawn(&guarded, |guarded| guarded.write(2));
        guarded.slot.set_mark(1);
        guarded.set(1);
        guarded.slot.downgrade();
        assert_eq!(guarded.get(), 1);
        guarded.slot.unlock_read();
        let written = writer.join().unwrap();
        guarded.assert_free(if written { 2 } else { 1 });
    });
}
