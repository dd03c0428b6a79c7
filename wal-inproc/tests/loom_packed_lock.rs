//! Every interleaving of a few threads on one `PackedLock`, under the C11
//! memory model as loom explores it.
//!
//! The guarded data is a loom `UnsafeCell`, which fails the test on any two
//! accesses that the lock has not ordered. Where a test is about the ordering
//! of one release, the data is written *after* the last `set_value`, which is
//! itself a release and would otherwise stand in for a missing one.
//!
//! Loom runs the spawning thread first and goes back only to the latest access
//! that a new one conflicts with. Every store here follows a load by its own
//! thread, which hides earlier loads by others. So where a test is about what
//! a load finds, the stores are made by the spawning thread.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p wal-inproc --release --test loom_packed_lock
#![cfg(loom)]

mod guarded;

use guarded::spawn;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use wal_inproc::packed_lock::PackedLock;

type Guarded = guarded::Guarded<PackedLock>;

impl Guarded {
    fn new() -> Arc<Self> {
        Guarded::by(PackedLock::new(0))
    }

    /// Writes the data under the exclusive lock, if it can be had.
    fn write(&self, value: u32) -> bool {
        let granted = self.lock.try_write();
        if granted {
            self.set(value);
            self.lock.unlock_write();
        }
        granted
    }

    /// Reads the data under the shared lock, if it can be had.
    fn read(&self) -> Option<u32> {
        self.lock.try_read().then(|| {
            let data = self.get();
            self.lock.unlock_read();
            data
        })
    }

    fn assert_free(&self, value: u32) {
        assert!(!self.lock.is_write_locked());
        assert_eq!(self.lock.readers(), 0);
        assert_eq!(self.lock.value(), value);
        assert!(self.lock.try_write());
    }
}

#[test]
fn writers_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let increment = |guarded: &Guarded| {
            let granted = guarded.lock.try_write();
            if granted {
                guarded.set(guarded.get() + 1);
                guarded.lock.unlock_write();
            }
            u32::from(granted)
        };
        let first = spawn(&guarded, increment);
        let second = spawn(&guarded, increment);
        let granted = increment(&guarded) + first.join().unwrap() + second.join().unwrap();

        assert!(granted >= 1, "somebody is always first");
        assert_eq!(guarded.read(), Some(granted));
        guarded.assert_free(0);
    });
}

#[test]
fn a_reader_and_a_writer_exclude_each_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let writer = spawn(&guarded, |guarded| guarded.write(1));
        let seen = guarded.read();
        let written = writer.join().unwrap();

        assert!(written || seen.is_some(), "somebody is always first");
        assert!(matches!(seen, None | Some(0 | 1)));
        guarded.assert_free(0);
    });
}

#[test]
fn a_writer_comes_after_every_reader_and_not_just_the_last() {
    loom::model(|| {
        let guarded = Guarded::new();
        let first = spawn(&guarded, |guarded| guarded.read());
        let second = spawn(&guarded, |guarded| guarded.read());
        guarded.write(1);
        first.join().unwrap();
        second.join().unwrap();
        guarded.assert_free(0);
    });
}

#[test]
fn only_the_sole_reader_upgrades() {
    loom::model(|| {
        let guarded = Guarded::new();
        let upgrade = |guarded: &Guarded| {
            if !guarded.lock.try_read() {
                return 0;
            }
            let seen = guarded.get();
            let granted = guarded.lock.try_upgrade();
            if granted {
                assert_eq!(guarded.get(), seen, "nobody wrote before the upgrade");
                guarded.set(seen + 1);
                guarded.lock.unlock_write();
            } else {
                assert_eq!(guarded.get(), seen, "nobody wrote beside a reader");
                guarded.lock.unlock_read();
            }
            u32::from(granted)
        };
        let other = spawn(&guarded, upgrade);
        let granted = upgrade(&guarded) + other.join().unwrap();

        assert_eq!(guarded.read(), Some(granted));
        guarded.assert_free(0);
    });
}

#[test]
fn two_readers_that_both_hold_the_lock_never_both_upgrade() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.lock.try_read());
        assert!(guarded.lock.try_read());
        // Neither gives its shared hold back before the other has tried.
        let try_only = |guarded: &Guarded| guarded.lock.try_upgrade();
        let other = spawn(&guarded, try_only);
        let granted = [try_only(&guarded), other.join().unwrap()];

        assert_eq!(granted, [false, false]);
        assert_eq!(guarded.lock.readers(), 2);
    });
}

#[test]
fn of_two_readers_the_second_to_insist_upgrades_once_the_first_has_left() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.lock.try_read());
        assert!(guarded.lock.try_read());
        let leaver = spawn(&guarded, |guarded| {
            guarded.get();
            guarded.lock.unlock_read();
        });
        if guarded.lock.try_upgrade() {
            guarded.set(1);
            guarded.lock.unlock_write();
        } else {
            guarded.lock.unlock_read();
        }
        leaver.join().unwrap();
        guarded.assert_free(0);
    });
}

#[test]
fn a_value_set_before_the_release_is_seen_with_its_data_by_the_next_reader() {
    loom::model(|| {
        let guarded = Guarded::new();
        let reader = spawn(&guarded, |guarded| {
            for mark in [7, 0] {
                if guarded.lock.try_read_if(mark) {
                    assert_eq!(guarded.get(), mark);
                    assert_eq!(guarded.lock.value(), mark);
                    guarded.lock.unlock_read();
                }
            }
        });
        let written = guarded.lock.try_write();
        if written {
            guarded.lock.set_value(7);
            guarded.set(7);
            guarded.lock.unlock_write();
        }
        reader.join().unwrap();

        let last = if written { 7 } else { 0 };
        assert!(guarded.lock.try_read_if(last));
        assert_eq!(guarded.get(), last);
        guarded.lock.unlock_read();
        guarded.assert_free(last);
    });
}

#[test]
fn the_value_stands_still_under_a_reader_that_named_it() {
    loom::model(|| {
        let guarded = Guarded::new();
        let reader = spawn(&guarded, |guarded| {
            let mark = guarded.lock.value();
            if guarded.lock.try_read_if(mark) {
                assert_eq!(guarded.lock.value(), mark);
                assert_eq!(guarded.lock.value(), mark);
                guarded.lock.unlock_read();
            }
        });
        let mut last = 0;
        for mark in [1, 2] {
            if guarded.lock.try_write() {
                guarded.lock.set_value(mark);
                guarded.lock.unlock_write();
                last = mark;
            }
        }
        reader.join().unwrap();
        guarded.assert_free(last);
    });
}

#[test]
fn refused_tries_do_not_disturb_the_holder_that_sets_the_value() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.lock.try_write());
        let intruder = spawn(&guarded, |guarded| {
            assert!(!guarded.lock.try_write());
            assert!(!guarded.lock.try_read());
            assert!(!guarded.lock.try_read_if(0));
            assert!(!guarded.lock.try_read_if(5));
            assert!(!guarded.lock.try_upgrade());
        });
        guarded.lock.set_value(5);
        guarded.set(5);
        intruder.join().unwrap();

        assert!(guarded.lock.is_write_locked());
        guarded.lock.unlock_write();
        guarded.assert_free(5);
    });
}

#[test]
fn a_value_carries_what_its_setter_knew_to_those_who_look_without_the_lock() {
    loom::model(|| {
        let guarded = Guarded::new();
        let log = Arc::new(AtomicU32::new(0));
        let onlooker = {
            let log = Arc::clone(&log);
            spawn(&guarded, move |guarded| {
                if guarded.lock.value() == 3 {
                    assert_eq!(log.load(Ordering::Relaxed), 3);
                }
            })
        };
        assert!(guarded.lock.try_write());
        log.store(3, Ordering::Relaxed);
        guarded.lock.set_value(3);
        // Still held, so that only `set_value` can have published.
        onlooker.join().unwrap();
        guarded.lock.unlock_write();
        guarded.assert_free(3);
    });
}

#[test]
fn no_writer_comes_between_a_downgrade_and_its_shared_hold() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.lock.try_write());
        let writer = spawn(&guarded, |guarded| guarded.write(2));
        guarded.set(1);
        guarded.lock.downgrade();
        assert_eq!(guarded.get(), 1);
        assert!(!guarded.lock.is_write_locked());
        guarded.lock.unlock_read();
        let written = writer.join().unwrap();

        assert_eq!(guarded.read(), Some(if written { 2 } else { 1 }));
        guarded.assert_free(0);
    });
}

#[test]
fn a_reader_beside_a_downgraded_holder_sees_what_it_wrote() {
    loom::model(|| {
        let guarded = Guarded::new();
        assert!(guarded.lock.try_write());
        let reader = spawn(&guarded, |guarded| guarded.read());
        guarded.set(1);
        guarded.lock.downgrade();
        // The shared hold stays, so that only the downgrade can have published.
        let seen = reader.join().unwrap();

        assert!(matches!(seen, None | Some(1)));
        guarded.lock.unlock_read();
        guarded.assert_free(0);
    });
}

#[test]
fn no_release_is_lost_among_threads_that_mix_every_operation() {
    // Three threads with this many steps have more interleavings than can be
    // walked; races that need more than two preemptions are left out.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let guarded = Guarded::new();
        let reader = spawn(&guarded, |guarded| guarded.read());
        let upgrader = spawn(&guarded, |guarded| {
            if guarded.lock.try_read() {
                if guarded.lock.try_upgrade() {
                    guarded.lock.set_value(guarded.lock.value() + 1);
                    guarded.lock.unlock_write();
                    return 1;
                }
                guarded.lock.unlock_read();
            }
            0
        });
        let mut changes = 0;
        if guarded.lock.try_write() {
            guarded.lock.set_value(guarded.lock.value() + 1);
            changes += 1;
            guarded.lock.downgrade();
            guarded.lock.unlock_read();
        }
        changes += upgrader.join().unwrap();
        reader.join().unwrap();
        guarded.assert_free(changes);
    });
}
