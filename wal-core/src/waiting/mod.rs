//! The memory in which the users of a database wait for each other: for a
//! commit, or in the line of those who want to write.
//!
//! It holds hints and nothing else. Whatever stands in it, zeros, garbage or
//! what the dead left: who waits looks again by itself within a bound, and
//! what it waits for is decided elsewhere, by the header and by the lock. So
//! a backend may lose it, or have none.
//!
//! # Ordering
//! A sleeper says that it sleeps and then looks once more; a waker changes the
//! word and then looks for sleepers. All of it is sequentially consistent, so
//! at least one of the two sees the other. A sleeper that is killed leaves a
//! flag that the next waker takes back, at the price of one needless system
//! call.

mod line;

use std::sync::atomic::{AtomicU32, Ordering};

pub use line::{Line, Place, Turn};
pub(crate) use line::{STILL_HERE, now, who};

/// The words, in memory that all users share; zeros are an empty room.
#[repr(C)]
#[derive(Debug, Default)]
pub struct WaitingRoom {
    /// Counts commits up.
    commits: AtomicU32,
    /// Not 0 if somebody may sleep on `commits`.
    sleepers: AtomicU32,
    unused: [AtomicU32; 14],
    line: Line,
}

/// What follows a room in a file begins a cache line.
const _: () = assert!(size_of::<WaitingRoom>().is_multiple_of(64));

impl WaitingRoom {
    /// The line of those who want to write.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// The word that counts commits, to be slept on.
    pub(crate) fn commits(&self) -> &AtomicU32 {
        &self.commits
    }

    /// How many commits were told, as the number to sleep with; what is
    /// committed behind this call ends the sleep.
    pub(crate) fn expect_commit(&self) -> u32 {
        self.sleepers.store(1, Ordering::SeqCst);
        self.commits.load(Ordering::SeqCst)
    }

    /// Tells of a commit; true if somebody may be asleep, and is to be woken.
    pub(crate) fn tell_commit(&self) -> bool {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.sleepers.load(Ordering::SeqCst) != 0 && self.sleepers.swap(0, Ordering::SeqCst) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_expects_a_commit_is_to_be_woken_once() {
        let room = WaitingRoom::default();
        assert!(!room.tell_commit(), "nobody sleeps");
        let seen = room.expect_commit();
        assert!(room.tell_commit());
        assert_ne!(room.commits().load(Ordering::SeqCst), seen);
        assert!(!room.tell_commit(), "the flag was taken back");
    }
}
