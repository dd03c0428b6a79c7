//! Lets threads wait until something happens.
//!
//! # Ordering
//! The waiter counts itself in and then looks at the sequence; the notifier
//! counts the sequence up and then looks for waiters. Both are sequentially
//! consistent, so at least one of the two sees the other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// An event, and those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Happening {
    sequence: AtomicU32,
    waiters: AtomicU32,
    mutex: Mutex<()>,
    condvar: Condvar,
}

impl Happening {
    /// What a later [`Happening::wait`] compares with.
    pub(crate) fn ticket(&self) -> u32 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Waits until the event happens after `ticket`, or until `deadline`.
    pub(crate) fn wait(&self, ticket: u32, deadline: Instant) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut held = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        while self.sequence.load(Ordering::SeqCst) == ticket {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            (held, _) = self
                .condvar
                .wait_timeout(held, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(held);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes everybody who waits.
    pub(crate) fn notify(&self) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            // A waiter that has looked at the sequence and not slept yet
            // holds the mutex, so it cannot miss this.
            drop(self.mutex.lock().unwrap_or_else(PoisonError::into_inner));
            self.condvar.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_waiter_returns_when_the_event_happens_after_its_ticket() {
        let happening = Arc::new(Happening::default());
        for _ in 0..1000 {
            let ticket = happening.ticket();
            let notifier = {
                let happening = happening.clone();
                std::thread::spawn(move || happening.notify())
            };
            let deadline = Instant::now() + Duration::from_secs(20);
            happening.wait(ticket, deadline);
            assert!(Instant::now() < deadline, "the wake-up was lost");
            notifier.join().unwrap();
        }
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let happening = Happening::default();
        happening.wait(
            happening.ticket(),
            Instant::now() + Duration::from_millis(5),
        );
    }
}
