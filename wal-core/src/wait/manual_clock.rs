//! A clock that a test advances by hand.
//!
//! A thread that runs by it is never late, however long the system leaves it
//! without a processor: no waiter is skipped as dead, and a time slice ends
//! when the test says so.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{AtomicU32, Ordering};

thread_local! {
    static CLOCK: RefCell<Option<ManualClock>> = const { RefCell::new(None) };
}

/// Microseconds that stand still until they are advanced. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU32>);

impl ManualClock {
    /// Runs `act`, in which the calling thread reads this clock instead of the
    /// machine's.
    pub fn run<T>(&self, act: impl FnOnce() -> T) -> T {
        let _restore = Restore(CLOCK.replace(Some(self.clone())));
        act()
    }

    /// Advances the clock by `time`, for all threads that run by it.
    pub fn advance(&self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

/// Puts the clock back that the thread had before, also if it panics.
struct Restore(Option<ManualClock>);

impl Drop for Restore {
    fn drop(&mut self) {
        CLOCK.set(self.0.take());
    }
}

/// Returns the time of the calling thread's manual clock, if it runs by one.
pub(super) fn now() -> Option<u32> {
    CLOCK.with_borrow(|clock| Some(clock.as_ref()?.0.load(Ordering::SeqCst)))
}
