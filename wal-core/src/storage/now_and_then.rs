//! Something that is worth doing now and then, but not every time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Says when a check that costs system calls is due again.
#[derive(Debug)]
pub struct NowAndThen {
    started: Instant,
    pause: Duration,
    /// When it is due next, in nanoseconds after `started`.
    due: AtomicU64,
}

impl NowAndThen {
    /// Due at once, and again each time that `pause` has passed.
    pub fn new(pause: Duration) -> Self {
        NowAndThen {
            started: Instant::now(),
            pause,
            due: AtomicU64::new(0),
        }
    }

    /// True if it is due; then it is not again until the pause has passed.
    /// Threads that ask at the same moment may both be told so.
    pub fn is_due(&self) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(self.started.elapsed());
        if now < self.due.load(Ordering::Relaxed) {
            return false;
        }
        self.due
            .store(now.saturating_add(nanos(self.pause)), Ordering::Relaxed);
        true
    }

    /// Makes it due at once: what was found now is to be found the next time.
    pub fn make_due(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_at_once_and_then_not_before_the_pause_has_passed() {
        let rarely = NowAndThen::new(Duration::from_secs(3600));
        assert!(rarely.is_due());
        assert!(!rarely.is_due());
        rarely.make_due();
        assert!(rarely.is_due());
        let always = NowAndThen::new(Duration::ZERO);
        assert!(always.is_due());
        assert!(always.is_due());
    }
}
