//! When writers are stopped next so that the log can be restarted: seldom while that fails.

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// By how many times the threshold the log grows, at most, before it is tried
/// again.
const LONGEST_STEP: u32 = 16;

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CaughtUp {
    /// The log is short now.
    Yes,
    /// Somebody held a lock, or too much was left; or nothing is in the way of the
    /// next commit.
    NotNow,
    /// Readers did not go.
    InVain,
}

/// When it is tried next.
#[derive(Debug, Default)]
pub(super) struct TriedAt {
    /// The first salt of the generation in which it was tried.
    generation: AtomicU32,
    /// How long the log was then, if it is long still; 0 if it is not.
    frames: AtomicU32,
    /// By how much it is to grow.
    step: AtomicU32,
    /// A thread is at it.
    is_tried: AtomicBool,
}

/// Tries until it is dropped, alone of all threads.
pub(super) struct Trying<'t>(&'t TriedAt);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.is_tried.store(false, Ordering::Relaxed);
    }
}

impl TriedAt {
    pub(super) fn begin(&self) -> Option<Trying<'_>> {
        let is_tried = self.is_tried.swap(true, Ordering::Relaxed);
        (!is_tried).then(|| Trying(self))
    }

    /// True while a thread tries it.
    pub(super) fn is_tried(&self) -> bool {
        self.is_tried.load(Ordering::Relaxed)
    }

    /// True if it is to be tried in a log of `generation` with `log_frames`.
    pub(super) fn is_due(&self, generation: u32, log_frames: u32) -> bool {
        let tried = self.frames.load(Ordering::Relaxed);
        let grown = log_frames.checked_sub(tried);
        tried == 0
            || self.generation.load(Ordering::Relaxed) != generation
            || grown.is_none_or(|grown| grown >= self.step.load(Ordering::Relaxed))
    }

    pub(super) fn note(
        &self,
        generation: u32,
        log_frames: u32,
        threshold: u32,
        caught_up: CaughtUp,
    ) {
        self.generation.store(generation, Ordering::Relaxed);
        let last = self.step.load(Ordering::Relaxed);
        let (tried, step) = match caught_up {
            CaughtUp::Yes => (0, 0),
            CaughtUp::NotNow => (log_frames, threshold),
            CaughtUp::InVain => {
                let longest = threshold.saturating_mul(LONGEST_STEP);
                (log_frames, last.saturating_mul(2).clamp(threshold, longest))
            }
        };
        self.step.store(step, Ordering::Relaxed);
        self.frames.store(tried, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_stopped_in_vain_seldom_while_the_log_grows() {
        let tried = TriedAt::default();
        let (mut log, mut steps) = (1000, Vec::new());
        for _ in 0..7 {
            assert!(tried.is_due(7, log));
            tried.note(7, log, 1000, CaughtUp::InVain);
            let due = |more: &u32| tried.is_due(7, log + more);
            let step = (0..20_000).find(due).unwrap();
            steps.push(step);
            log += step;
        }
        assert_eq!(steps, [1000, 2000, 4000, 8000, 16_000, 16_000, 16_000]);
        assert!(tried.is_due(8, log), "another log");
    }

    #[test]
    fn a_lock_that_is_held_makes_no_longer_pause() {
        let tried = TriedAt::default();
        for log in [1000, 2000, 3000] {
            assert!(tried.is_due(7, log));
            tried.note(7, log, 1000, CaughtUp::NotNow);
            assert!(!tried.is_due(7, log + 999));
        }
        tried.note(7, 4000, 1000, CaughtUp::Yes);
        assert!(tried.is_due(7, 1000));
    }
}
