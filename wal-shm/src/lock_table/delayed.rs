//! Delayed release: begun by a reader, ended by the sweeper.
//!
//! # Ordering
//! A reader that leaves a lock behind counts itself out, then loads `delaying`; the
//! sweeper that stops stores `delaying`, then loads the counts. All four are `SeqCst`, so
//! either the sweeper finds the lock unused, or the reader finds that no sweeper is left
//! and releases the lock itself.

use std::time::{Duration, Instant};

use wal_core::storage::shm_bytes;
use wal_core::sync::Ordering;
use wal_core::{Lock, ReadSlot};

use super::{Beyond, Changing, LockTable, Seen, bits_of};
use crate::lock_byte::State;
use crate::read_rate::Delay;

/// How long a slot is drained at a time. Stock SQLite sleeps for 1, 2, 5 and more
/// milliseconds between its tries.
const DRAIN: Duration = Duration::from_millis(5);

/// How much longer than to the second look from now a note says that a lock may be kept:
/// a sweeper that gets no processor is late.
const LATE: Duration = Duration::from_millis(5);

impl LockTable {
    /// Whether release is delayed now.
    #[inline]
    pub(crate) fn delays(&self) -> bool {
        self.delaying.load(Ordering::SeqCst)
    }

    /// A shared holder of `slot` leaves, and the system's lock stays for the next one; false,
    /// and nothing has changed, if that is not worth it, or if `start` finds no sweeper to
    /// look after the lock. `start` calls [`LockTable::start_delaying`].
    #[inline]
    pub(crate) fn unlock_delayed(
        &self,
        beyond: &impl Beyond,
        slot: ReadSlot,
        start: impl FnOnce() -> bool,
    ) -> bool {
        if self.drains(Lock::Read(slot)) || !self.delays() && !self.starts(slot, start) {
            return false;
        }
        let (at, _) = Lock::Read(slot).span();
        self.bytes[at].leave();
        if !self.delays() {
            let _changing = self.changing();
            self.release_where(beyond, |_, _| true);
        }
        true
    }

    #[cold]
    fn starts(&self, slot: ReadSlot, start: impl FnOnce() -> bool) -> bool {
        let Some(delay) = self.delay else {
            return false;
        };
        // The mutex is free again before the sweeper is started.
        let is_worth_it = self.changing().rate.is_high(delay, Instant::now);
        if !is_worth_it || !start() {
            return false;
        }
        self.note_delayed(slot);
        true
    }

    /// From now on release is delayed.
    pub(crate) fn start_delaying(&self) {
        self.delaying.store(true, Ordering::SeqCst);
    }

    /// From now on release is not delayed; what is unused is released.
    pub(crate) fn stop_delaying(&self, beyond: &impl Beyond) {
        self.delaying.store(false, Ordering::SeqCst);
        let mut changing = self.changing();
        changing.rate.reset();
        self.drain(&mut changing, 0);
        self.release_where(beyond, |_, _| true);
    }

    /// Notes that `slot` may be kept without a reader. The process may be ahead of the note
    /// by an instant, which costs a checkpoint of that instant its completeness.
    pub(super) fn note_delayed(&self, slot: ReadSlot) {
        let wait_state = self.side.as_ref().and_then(|side| side.wait_state());
        if let (Some(delay), Some(wait_state)) = (self.delay, wait_state) {
            wait_state.delayed().note(slot, delay.longest() + LATE);
        }
    }

    /// What is to be seen of the readers now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen_in(&self.changing())
    }

    fn seen_in(&self, changing: &Changing) -> Seen {
        Seen {
            arrivals: std::array::from_fn(|at| self.bytes[at].arrivals()),
            acquisitions: changing.rate.count(),
        }
    }

    /// Releases each lock without a reader since `before`, which is updated. False if release
    /// is not worth delaying any more: too few readers since then were spared a system call.
    pub(crate) fn look(&self, beyond: &impl Beyond, before: &mut Seen) -> bool {
        let mut changing = self.changing();
        let now = self.seen_in(&changing);
        let since = now.since(before);
        *before = now;
        self.drain_beside_a_checkpoint(beyond, &mut changing, &since);
        let drains = self.draining.load(Ordering::Relaxed) != 0;
        self.release_where(beyond, |at, _| drains || since.arrivals[at] == 0);
        for slot in ReadSlot::ALL {
            let (at, _) = Lock::Read(slot).span();
            // A transaction to which no reader came is not one that a checkpoint could reclaim.
            if since.arrivals[at] > 0 && self.bytes[at].state() == State::Shared {
                self.note_delayed(slot);
            }
        }
        // While slots are drained, a sweeper has to end that.
        drains || since.spared() >= Delay::READS_BETWEEN_LOOKS
    }

    /// Drains the slots with marks that are in use while another process holds CKPT, for
    /// [`DRAIN`] at a time; then those that are in use by then.
    fn drain_beside_a_checkpoint(
        &self,
        beyond: &impl Beyond,
        changing: &mut Changing,
        since: &Seen,
    ) {
        let bit = |at: usize| u8::from(since.arrivals[at] > 0) << at;
        let used = (0..Lock::COUNT).map(bit).sum::<u8>() & bits_of(Lock::ReadMarks);
        let drained = changing.drained_since.map(|since| since.elapsed());
        if used == 0 && drained.is_none() {
            return;
        }
        let checkpoint = shm_bytes::of(Lock::Checkpoint);
        match (beyond.is_held_by_others(checkpoint), drained) {
            (false, _) => self.drain(changing, 0),
            (true, Some(time)) if time < DRAIN => {}
            (true, _) => self.drain(changing, used),
        }
    }

    fn drain(&self, changing: &mut Changing, bytes: u8) {
        changing.drained_since = (bytes != 0).then(Instant::now);
        self.draining.store(bytes, Ordering::Relaxed);
    }

    /// True if a lock is kept without a reader. A thread that tries to acquire one
    /// exclusively is waited for: it has closed the byte, and opens it again if it fails.
    #[cfg(test)]
    pub(crate) fn keeps_any(&self) -> bool {
        let _changing = self.changing();
        self.bytes.iter().any(super::LockByte::is_unused)
    }
}

impl Seen {
    /// What has come since `before`.
    fn since(&self, before: &Seen) -> Seen {
        Seen {
            arrivals: std::array::from_fn(|at| self.arrivals[at].wrapping_sub(before.arrivals[at])),
            acquisitions: self.acquisitions.wrapping_sub(before.acquisitions),
        }
    }

    /// How many readers needed no system call.
    fn spared(&self) -> u32 {
        let (first, count) = Lock::Readers.span();
        let came = self.arrivals[first..first + count].iter();
        let came = came.fold(0, |sum: u32, came| sum.saturating_add(*came));
        came.saturating_sub(self.acquisitions)
    }
}
