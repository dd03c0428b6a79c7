//! How long an operation pauses before it tries again, and until when it waits.

use std::time::{Duration, Instant};

use crate::testing::{Point, step};

/// When `timeout` has passed; a day for what is longer than time can be told.
pub(in crate::protocol) fn deadline_after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout)
        .unwrap_or(now + Duration::from_secs(24 * 60 * 60))
}

/// The first attempts follow at once; then the pauses grow, as SQLite's do,
/// because whoever is in the way may have lost its processor.
#[inline]
pub(in crate::protocol) fn pause_before(attempt: u32) {
    if attempt > 1 {
        pause(attempt);
    }
}

#[cold]
fn pause(attempt: u32) {
    if attempt > 5 {
        step(Point::TryAgain);
    }
    match attempt {
        // Under loom another thread is let on at once: that it is looked for in
        // vain four times more shows nothing new, and takes for ever.
        #[cfg(loom)]
        _ => loom::thread::yield_now(),
        #[cfg(not(loom))]
        0..=5 => {}
        #[cfg(not(loom))]
        6..=9 => std::thread::yield_now(),
        #[cfg(not(loom))]
        _ => std::thread::sleep(Duration::from_micros(u64::from(attempt - 9).pow(2) * 39)),
    }
}
