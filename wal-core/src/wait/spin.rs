//! Whether a waiter yields before it blocks.
//!
//! A sync of a fast disk is over soon, and to block and be woken takes more of the processor
//! than a commit. Where the processors are busy with other work, a thread that yields runs
//! again far later than one that is woken, so a thread that has seen that blocks at once for a
//! while.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How many times a waiter yields before it blocks.
const YIELDS: u32 = 60;
/// A thread that runs again only after this time shows that the processors are busy with other
/// work.
const LONG_YIELD: Duration = Duration::from_millis(2);
/// Within how many waits there is a second long yield if the processors stay busy: a checkpoint
/// by another thread takes as long, but comes seldom.
const SOON: u32 = 16;
/// How many times a thread then blocks at once.
const BLOCKS: u32 = 100;

/// What a thread has learned from its yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Yielding {
    /// For how many more waits the thread remembers a long yield: it blocks at once in all but
    /// the last [`SOON`].
    remembers: u32,
}

impl Yielding {
    /// True if the thread yields in this wait.
    fn may_begin(&mut self) -> bool {
        let may = self.remembers <= SOON;
        self.remembers = self.remembers.saturating_sub(1);
        may
    }

    /// Notes that a yield took `time`; true if the thread may yield again.
    fn may_repeat_after(&mut self, time: Duration) -> bool {
        let is_long = time > LONG_YIELD;
        if is_long {
            let again = if self.remembers > 0 { BLOCKS } else { 0 };
            self.remembers = again + SOON;
        }
        !is_long
    }
}

/// Yields until `has_happened`; false if that has not happened soon, and the caller blocks.
///
/// A model checks once: what may happen between two checks may happen before the first.
pub(crate) fn yield_until(has_happened: impl Fn() -> bool) -> bool {
    if cfg!(loom) {
        return has_happened();
    }
    thread_local! {
        static YIELDING: Cell<Yielding> = const { Cell::new(Yielding { remembers: 0 }) };
    }
    let mut yielding = YIELDING.get();
    let mut may_yield = yielding.may_begin();
    let mut happened = false;
    let mut before = Instant::now();
    for _ in 0..YIELDS {
        if !may_yield || happened {
            break;
        }
        std::thread::yield_now();
        let now = Instant::now();
        may_yield = yielding.may_repeat_after(now - before);
        happened = has_happened();
        before = now;
    }
    YIELDING.set(yielding);
    happened
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_long_yields_make_a_thread_block_at_once_for_a_while() {
        let long = 2 * LONG_YIELD;
        let mut yielding = Yielding::default();
        let at_once = |yielding: &mut Yielding| (0..1000).position(|_| yielding.may_begin());
        assert!(yielding.may_begin() && yielding.may_repeat_after(LONG_YIELD));
        assert!(!yielding.may_repeat_after(long));
        assert!((0..SOON).all(|_| yielding.may_begin()), "it was one");
        assert!(!yielding.may_repeat_after(long));
        for _ in 0..3 {
            assert!(yielding.may_begin() && !yielding.may_repeat_after(long));
            assert_eq!(at_once(&mut yielding), Some(100));
        }
        assert!((1..SOON).all(|_| yielding.may_begin()));
        assert!(!yielding.may_repeat_after(long));
        assert_eq!(at_once(&mut yielding), Some(0), "that was long ago");
    }
}
