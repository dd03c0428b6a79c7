//! Lets threads sleep until a word changes, as a futex does.
//!
//! # Ordering
//! A sleeper looks at its word with a mutex held, and gives that up only by
//! falling asleep. A waker has changed the word before it takes the mutex: so
//! the sleeper has seen the change, or is asleep and is woken.

use std::time::Instant;

use wal_core::sync::{AtomicU32, Condvar, Mutex, Ordering, Unpoison};

/// Words that fall to the same one wake each other's sleepers for nothing. A model has one:
/// where the words lie differs between its executions.
const BUCKETS: usize = if cfg!(loom) { 1 } else { 64 };

/// A sleep in a model that is shorter ends as soon as all other threads sleep or have ended,
/// as time stands still there. A longer one ends with a wake-up alone, so that the model
/// checker reports one that is lost.
#[cfg(loom)]
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

/// Everybody who sleeps.
#[derive(Debug)]
pub(crate) struct Sleepers([Bucket; BUCKETS]);

#[derive(Debug, Default)]
struct Bucket {
    mutex: Mutex<()>,
    condvar: Condvar,
}

impl Default for Sleepers {
    fn default() -> Self {
        Sleepers(std::array::from_fn(|_| Bucket::default()))
    }
}

impl Sleepers {
    fn bucket(&self, word: &AtomicU32) -> &Bucket {
        // Waiters in line have a word in every 16 bytes.
        let address: *const AtomicU32 = word;
        &self.0[address.addr() / 16 % BUCKETS]
    }

    /// Sleeps until `word` is not `seen`, or until `deadline`.
    pub(crate) fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        let bucket = self.bucket(word);
        let mut held = bucket.mutex.lock().unpoison();
        while word.load(Ordering::SeqCst) == seen {
            let left = deadline.checked_duration_since(Instant::now());
            // However little of it is left by the real clock, an execution is the same.
            #[cfg(loom)]
            if left.is_none_or(|left| left < LONG) {
                drop(held);
                return loom::thread::yield_now();
            }
            let Some(left) = left else {
                break;
            };
            (held, _) = bucket.condvar.wait_timeout(held, left).unpoison();
        }
    }

    /// Wakes everybody who sleeps on `word`.
    pub(crate) fn wake(&self, word: &AtomicU32) {
        let bucket = self.bucket(word);
        drop(bucket.mutex.lock().unpoison());
        bucket.condvar.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_sleeper_is_woken_when_its_word_changes() {
        let sleepers = Sleepers::default();
        let word = AtomicU32::new(0);
        for seen in 0..1000 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    word.fetch_add(1, Ordering::SeqCst);
                    sleepers.wake(&word);
                });
                let deadline = Instant::now() + Duration::from_secs(20);
                sleepers.sleep(&word, seen, deadline);
                assert!(Instant::now() < deadline, "the wake-up was lost");
            });
        }
    }

    #[test]
    fn a_sleep_ends_at_its_deadline() {
        let deadline = Instant::now() + Duration::from_millis(5);
        Sleepers::default().sleep(&AtomicU32::new(0), 0, deadline);
        assert!(Instant::now() >= deadline);
    }
}
