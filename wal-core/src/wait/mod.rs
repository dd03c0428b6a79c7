//! The memory in which the users of a database wait for each other: for a
//! commit, in the line of those who want to write, or for a sync of the log.
//!
//! It holds hints: whatever stands there, zeros, garbage or what the dead left,
//! who waits looks again by itself within a bound, and what it waits for is
//! decided elsewhere, by the header and by the lock. So a backend may lose it,
//! or have none. [`SyncedLog`] alone is believed: zeros say that nothing is
//! known, and only who has synced the log writes to it. It is not shared with
//! those who do not keep the protocol.
//!
//! # Ordering
//! That somebody sleeps is a bit of the word itself: who rings changes the word,
//! takes the bit back and learns of it in one step, so whoever sleeps on the word
//! as it was has been seen, or does not fall asleep. A sleeper that is killed
//! leaves the bit to the next waker, at the price of one needless system call.

mod clock;
mod delayed;
mod line;
#[cfg(all(feature = "step-points", not(loom)))]
#[doc(hidden)]
pub mod manual_clock;
mod synced;

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use crate::sync::{AtomicU32, Ordering};

pub use clock::POLL_INTERVAL;
#[doc(hidden)]
pub use clock::now;
pub use delayed::DelayedReleases;
pub(crate) use line::STILL_HERE;
#[doc(hidden)]
pub use line::who;
pub use line::{Line, Place, Turn};
pub use synced::{LEASE, SyncedLog};

/// The words, in memory that all users share; zeros are an empty room.
#[repr(C)]
#[derive(Default)]
pub struct WaitingRoom {
    commits: Bell,
    cared_for: CaredFor,
    reclaim: Bell,
    unused: [AtomicU32; 3],
    delayed: DelayedReleases,
    synced: SyncedLog,
    line: Line,
}

crate::shared_memory!(WaitingRoom {
    commits,
    cared_for,
    reclaim,
    unused,
    delayed,
    synced,
    line,
});

impl fmt::Debug for WaitingRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingRoom")
            .field("commits", &self.commits)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What follows a room in a file begins a cache line.
#[cfg(not(loom))]
const _: () = assert!(size_of::<WaitingRoom>().is_multiple_of(64));

impl WaitingRoom {
    /// Rings at each commit.
    pub fn commits(&self) -> &Bell {
        &self.commits
    }

    /// Who keeps the log short.
    pub(crate) fn cared_for(&self) -> &CaredFor {
        &self.cared_for
    }

    /// Notified when a checkpoint waits for readers: every process then releases the read
    /// locks that it does not use.
    pub fn reclaim(&self) -> &Bell {
        &self.reclaim
    }

    /// The slots whose release some process delays.
    pub fn delayed(&self) -> &DelayedReleases {
        &self.delayed
    }

    /// How far the log is synced, and who waits for that.
    pub fn synced(&self) -> &SyncedLog {
        &self.synced
    }

    /// The line of those who want to write.
    pub fn line(&self) -> &Line {
        &self.line
    }
}

/// Whether the last commit is of somebody who keeps the log short, and waits for
/// readers to that end; a peer that does not know of this word is none.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CaredFor {
    /// One more than the change counter of that commit.
    change_plus_one: AtomicU32,
}

crate::shared_memory!(CaredFor { change_plus_one });

impl CaredFor {
    /// Says it of the commit that is number `change`, before it is published.
    pub(crate) fn say(&self, change: u32) {
        self.change_plus_one
            .store(change.wrapping_add(1), Ordering::Relaxed);
    }

    /// True if the commit that is number `change` is one of which it was said.
    pub(crate) fn is_said(&self, change: u32) -> bool {
        self.change_plus_one.load(Ordering::Relaxed) == change.wrapping_add(1)
    }
}

/// How often who waits for a sync lets others run before it sleeps. A sync of a
/// fast disk is over soon, and to sleep and be woken takes more of the processor
/// than a commit.
const YIELDS: u32 = 60;
/// The processors are busy with something else if it takes so long to be let on
/// again.
const LONG_YIELD: Duration = Duration::from_millis(2);
/// Within how many waits that has to come again before a thread takes it for the
/// rule: a checkpoint by another one takes as long, but comes seldom.
const SOON: u32 = 16;
/// How often a thread then sleeps at once.
const SLEEPS: u32 = 100;

/// Whether a thread lets others run before it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Yielding {
    /// How many waits it remembers that it was not let on for long: it sleeps at
    /// once in all but the last [`SOON`].
    remembers: u32,
}

impl Yielding {
    /// True if it is worth it this time.
    fn may_begin(&mut self) -> bool {
        let may = self.remembers <= SOON;
        self.remembers = self.remembers.saturating_sub(1);
        may
    }

    /// Others ran for `time`; true if it may go on.
    fn goes_on_after(&mut self, time: Duration) -> bool {
        let is_long = time > LONG_YIELD;
        if is_long {
            let again = if self.remembers > 0 { SLEEPS } else { 0 };
            self.remembers = again + SOON;
        }
        !is_long
    }
}

/// Lets others run until something `has_come`; false if it has not soon. Where the
/// processors are busy with something else, it takes far longer to be let on than
/// to be woken, so a thread that has seen that sleeps for a while.
///
/// A model looks once: what may come between two looks may come before the one.
pub(crate) fn comes_soon(has_come: impl Fn() -> bool) -> bool {
    if cfg!(loom) {
        return has_come();
    }
    thread_local! {
        static YIELDING: Cell<Yielding> = const { Cell::new(Yielding { remembers: 0 }) };
    }
    let mut yielding = YIELDING.get();
    let mut goes_on = yielding.may_begin();
    let mut came = false;
    let mut before = Instant::now();
    for _ in 0..YIELDS {
        if !goes_on || came {
            break;
        }
        std::thread::yield_now();
        let now = Instant::now();
        goes_on = yielding.goes_on_after(now - before);
        came = has_come();
        before = now;
    }
    YIELDING.set(yielding);
    came
}

/// A word to sleep on until something has happened.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Bell {
    /// Even, and larger by two with each ring; the lowest bit says that somebody
    /// may sleep.
    word: AtomicU32,
}

crate::shared_memory!(Bell { word });

/// Somebody may sleep.
const SLEEPERS: u32 = 1;

impl Bell {
    /// The word to sleep on.
    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// The number to sleep with: what rings behind this call ends the sleep.
    pub fn expect(&self) -> u32 {
        self.word.fetch_or(SLEEPERS, Ordering::SeqCst) | SLEEPERS
    }

    /// Rings; true if somebody may be asleep, and is to be woken.
    #[must_use]
    pub fn ring(&self) -> bool {
        let rung = |word: u32| Some((word | SLEEPERS).wrapping_add(1));
        let before = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, rung);
        before.is_ok_and(|before| before & SLEEPERS != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_on_for_long_twice_sleeps_at_once_for_a_while() {
        let long = 2 * LONG_YIELD;
        let mut yielding = Yielding::default();
        let at_once = |yielding: &mut Yielding| (0..1000).position(|_| yielding.may_begin());
        assert!(yielding.may_begin() && yielding.goes_on_after(LONG_YIELD));
        assert!(!yielding.goes_on_after(long));
        assert!((0..SOON).all(|_| yielding.may_begin()), "it was one");
        assert!(!yielding.goes_on_after(long));
        for _ in 0..3 {
            assert!(yielding.may_begin() && !yielding.goes_on_after(long));
            assert_eq!(at_once(&mut yielding), Some(100));
        }
        assert!((1..SOON).all(|_| yielding.may_begin()));
        assert!(!yielding.goes_on_after(long));
        assert_eq!(at_once(&mut yielding), Some(0), "that was long ago");
    }

    #[test]
    fn who_expects_something_is_to_be_woken_once() {
        let bell = Bell::default();
        assert!(!bell.ring(), "nobody sleeps");
        let seen = bell.expect();
        assert!(bell.ring());
        assert_ne!(bell.word().load(Ordering::SeqCst), seen);
        assert!(!bell.ring(), "the bit was taken back");
        assert_ne!(bell.expect(), seen);
        assert!(bell.ring());
        bell.word.store(u32::MAX, Ordering::SeqCst);
        let seen = bell.expect();
        assert!(bell.ring() && bell.expect() != seen, "it wraps");
    }
}
