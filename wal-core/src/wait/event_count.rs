//! An event count: a word on which threads of all processes sleep until an event.
//!
//! # Protocol
//! A waiter prepares, checks once more that the event has not happened, and sleeps as long as
//! the word is what it was when it prepared. A notifier changes the word after the event, and
//! wakes the sleepers if a waiter has prepared since the last notification.
//!
//! # Ordering
//! The lowest bit of the word says that a waiter may sleep. A notifier changes the word,
//! clears the bit and learns of it by one exchange. So it learns of a waiter that has prepared
//! before, and a waiter that prepares later sees the event.
//!
//! # Crash
//! A waiter that is killed leaves the bit set, which costs one needless system call.

use crate::sync::{AtomicU32, Ordering};

/// A word to sleep on until an event.
#[repr(C)]
#[derive(Debug, Default)]
pub struct EventCount {
    /// Grows by two with each notification; the lowest bit is [`SLEEPERS`].
    word: AtomicU32,
}

crate::shared_memory!(EventCount { word });

/// A waiter may sleep.
const SLEEPERS: u32 = 1;

impl EventCount {
    /// Returns the word to sleep on.
    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// Returns the value of the word to sleep with: a notification after this call ends the
    /// sleep. The caller checks between this and the sleep whether the event has happened.
    pub fn prepare_wait(&self) -> u32 {
        self.word.fetch_or(SLEEPERS, Ordering::SeqCst) | SLEEPERS
    }

    /// Notifies of an event that has happened. If it returns true, a waiter may be asleep, and
    /// the caller wakes the sleepers of the word.
    #[must_use]
    pub fn notify(&self) -> bool {
        let notified = |word: u32| Some((word | SLEEPERS).wrapping_add(1));
        let before = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, notified);
        before.is_ok_and(|before| before & SLEEPERS != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn waiter_that_prepared_is_to_be_woken_once() {
        let event = EventCount::default();
        assert!(!event.notify(), "no waiter sleeps");
        let seen = event.prepare_wait();
        assert!(event.notify());
        assert_ne!(event.word().load(Ordering::SeqCst), seen);
        assert!(!event.notify(), "the bit was cleared");
        assert_ne!(event.prepare_wait(), seen);
        assert!(event.notify());
        event.word.store(u32::MAX, Ordering::SeqCst);
        let seen = event.prepare_wait();
        assert!(event.notify() && event.prepare_wait() != seen, "it wraps");
    }
}
