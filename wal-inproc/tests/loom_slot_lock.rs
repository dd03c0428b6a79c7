//! Every interleaving of a few threads on one `SlotLock`, whose readers are on
//! different stripes, under the C11 memory model as loom explores it.
//!
//! The guarded data is a loom `UnsafeCell`, which fails the test on any two
//! accesses that the lock has not ordered.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p wal-inproc --release --test loom_slot_lock
#![cfg(loom)]

mod guarded;

use guarded::spawn;
use loom::sync::Arc;
use wal_inproc::slot_lock::SlotLock;

type Guarded = guarded::Guarded<SlotLock>;

impl Guarded {
    fn new() -> Arc<Self> {
        let slot = SlotLock::with_stripes(2, 0);
        // Threads are numbered as they come: this one is at the first stripe, the
        // next one at the second.
        assert_eq!(slot.mark(), 0);
        Guarded::by(slot)
    }

    /// Writes data and mark, if the slot can be had alone.
    fn write(&self, value: u32) -> bool {
        let granted = self.lock.try_write();
        if granted {
            self.lock.set_mark(value);
            self.set(value);
            self.lock.unlock_write();
        }
        granted
    }

    /// Reads the data, if the slot can be had with `mark`.
    fn read_if(&self, mark: u32) -> bool {
        let granted = self.lock.try_read_if(mark);
        if granted {
            assert_eq!(self.get(), mark);
            assert_eq!(self.lock.mark(), mark);
            self.lock.unlock_read();
        }
        granted
    }

    fn assert_free(&self, value: u32) {
        assert_eq!(self.lock.mark(), value);
        assert!(self.lock.try_write());
        self.lock.unlock_write();
        assert!(self.read_if(value));
    }
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
        let last = guarded.lock.mark();
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
        assert!(guarded.lock.try_read());
        assert!(guarded.lock.try_read());
        let other = spawn(&guarded, |guarded| {
            assert_eq!(guarded.get(), 0);
            guarded.lock.unlock_read();
            guarded.read_if(0);
        });
        assert!(!guarded.write(1), "the other hold is still there");
        other.join().unwrap();
        assert!(!guarded.write(1));
        guarded.lock.unlock_read();
        guarded.assert_free(0);
    });
}

#[test]
fn who_holds_a_slot_takes_it_again_on_any_thread_while_another_tries_to_have_it_alone() {
    loom::model(|| {
        let guarded = Guarded::new();
        // At the stripe that is looked at last.
        let held = spawn(&guarded, |guarded| guarded.lock.try_read());
        assert!(held.join().unwrap());
        let writer = spawn(&guarded, |guarded| guarded.write(1));
        assert!(guarded.lock.try_read(), "it is held");
        assert!(!writer.join().unwrap());
        guarded.lock.unlock_read();
        guarded.lock.unlock_read();
        guarded.assert_free(0);
    });
}

#[test]
fn nobody_has_a_slot_alone_between_a_downgrade_and_its_shared_hold() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.lock.try_write());
        let writer = spawn(&guarded, |guarded| guarded.write(2));
        guarded.lock.set_mark(1);
        guarded.set(1);
        guarded.lock.downgrade();
        assert_eq!(guarded.get(), 1);
        guarded.lock.unlock_read();
        let written = writer.join().unwrap();
        guarded.assert_free(if written { 2 } else { 1 });
    });
}

/// The reader is at the stripe that is looked at last.
fn held_by_another_stripe(guarded: &Arc<Guarded>) {
    let held = spawn(guarded, |guarded| guarded.lock.try_read());
    assert!(held.join().unwrap());
}

#[test]
fn only_holder_raises_the_mark_under_no_other_reader() {
    loom::model(|| {
        let guarded = Guarded::new();
        held_by_another_stripe(&guarded);
        let reader = spawn(&guarded, |guarded| {
            let granted = guarded.lock.try_read_if(0);
            if granted {
                assert_eq!(guarded.get(), 0);
                assert_eq!(guarded.lock.mark(), 0);
                guarded.lock.unlock_read();
            }
        });
        let raised = guarded.lock.try_upgrade();
        if raised {
            guarded.lock.set_mark(1);
            guarded.set(1);
            guarded.lock.downgrade();
        }
        assert_eq!(guarded.get(), u32::from(raised), "it is held all the time");
        reader.join().unwrap();
        guarded.lock.unlock_read();
        guarded.assert_free(u32::from(raised));
    });
}

#[test]
fn of_two_holders_none_upgrades_and_both_leave() {
    loom::model(|| {
        let guarded = Guarded::new();
        held_by_another_stripe(&guarded);
        assert!(guarded.lock.try_read());
        let other = spawn(&guarded, |guarded| {
            assert!(!guarded.lock.try_upgrade(), "there are two holders");
            // What is held can be taken again.
            assert!(guarded.lock.try_read());
            guarded.lock.unlock_read();
        });
        assert!(!guarded.lock.try_upgrade(), "there are two holders");
        other.join().unwrap();
        guarded.lock.unlock_read();
        guarded.lock.unlock_read();
        guarded.assert_free(0);
    });
}

#[test]
fn reader_that_leaves_beside_an_upgrade_finds_its_hold() {
    loom::model(|| {
        let guarded = Guarded::new();
        held_by_another_stripe(&guarded);
        assert!(guarded.lock.try_read());
        let leaving = spawn(&guarded, |guarded| guarded.lock.unlock_read());
        let raised = guarded.lock.try_upgrade();
        if raised {
            guarded.lock.set_mark(1);
            guarded.set(1);
            guarded.lock.downgrade();
        }
        leaving.join().unwrap();
        guarded.lock.unlock_read();
        guarded.assert_free(u32::from(raised));
    });
}

#[test]
fn upgrade_and_a_writer_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        held_by_another_stripe(&guarded);
        let writer = spawn(&guarded, |guarded| guarded.write(2));
        if guarded.lock.try_upgrade() {
            guarded.set(1);
            guarded.lock.set_mark(1);
            guarded.lock.downgrade();
        }
        assert!(!writer.join().unwrap(), "the slot is held all the time");
        let mark = guarded.lock.mark();
        guarded.lock.unlock_read();
        guarded.assert_free(mark);
    });
}
