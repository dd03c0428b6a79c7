//! Which read slots processes hold although they do not use them, for the next reader.
//!
//! # Protocol
//! A process that delays the release of a slot notes until when it may hold the lock, and
//! notes it again at each look of its sweeper. A checkpoint that finds the slot busy
//! reclaims it only if the note has not expired: a lock that a reader uses is not worth a
//! wait. The notes are hints: an expired one costs a short checkpoint, one that outlives
//! its process or lock a wait of a bounded moment.
//!
//! # Crash
//! A process that is killed or stopped notes nothing more, and its note expires.

use std::time::Duration;

use super::clock::micros;
use crate::sync::{AtomicU64, Ordering};
use crate::types::{Lock, ReadSlot};

/// The notes of all processes; zeros are none.
#[repr(C)]
#[derive(Debug, Default)]
pub struct DelayedReleases {
    /// For each slot the latest moment that any process has noted, in microseconds of the
    /// monotonic clock.
    until: [AtomicU64; ReadSlot::ALL.len()],
}

crate::shared_memory!(DelayedReleases { until });

impl DelayedReleases {
    /// Notes that this process may hold `slot` without using it for as long as `time`.
    pub fn note(&self, slot: ReadSlot, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let until = micros().saturating_add(time);
        self.until[slot.index()].fetch_max(until, Ordering::Relaxed);
    }

    /// True if a process may hold a slot of `lock` without using it.
    pub(crate) fn includes(&self, lock: Lock) -> bool {
        let (first, count) = lock.span();
        let (readers, _) = Lock::Readers.span();
        let noted = |byte: usize| {
            let until = byte.checked_sub(readers).and_then(|at| self.until.get(at));
            until.is_some_and(|until| until.load(Ordering::Relaxed) > micros())
        };
        (first..first + count).any(noted)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn note_of_a_slot_counts_for_the_locks_that_span_it() {
        let delayed = DelayedReleases::default();
        let [first, second, ..] = ReadSlot::MARKED;
        delayed.note(second, LONG);
        for lock in [Lock::Read(second), Lock::ReadMarks, Lock::Readers] {
            assert!(delayed.includes(lock), "{lock}");
        }
        let others = [Lock::Read(first), Lock::Read(ReadSlot::DATABASE)];
        for lock in others.into_iter().chain([Lock::Write, Lock::Checkpoint]) {
            assert!(!delayed.includes(lock), "{lock}");
        }
    }

    #[test]
    fn note_expires_and_a_shorter_one_does_not_replace_it() {
        let delayed = DelayedReleases::default();
        let slot = ReadSlot::DATABASE;
        delayed.note(slot, Duration::ZERO);
        assert!(!delayed.includes(Lock::Read(slot)));
        delayed.note(slot, Duration::MAX);
        delayed.note(slot, Duration::ZERO);
        assert!(delayed.includes(Lock::Read(slot)));
    }
}
