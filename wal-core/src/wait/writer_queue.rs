//! The queue of the writers that wait for `WRITE`, so that each gets it in its order.
//!
//! # Protocol
//! A writer that fails to acquire `WRITE` draws a ticket and occupies a queue slot. The first
//! in the queue, the one with the oldest ticket, retries when it is woken; a writer that
//! releases `WRITE` wakes it. To hand `WRITE` over at each commit would cost a context switch
//! for each, so a writer that acquires it has a *time slice*: within it the writer may acquire
//! `WRITE` again ahead of the queue, and afterwards it queues like every other one. The first
//! release wakes the first in the queue in any case, so if the writer does not come back, no
//! writer waits for the end of its slice. A first in the queue that was woken unsuccessfully
//! *defers* its next wake-up to the end of the slice.
//!
//! Each waiter shows at intervals that it is alive. A waiter that has not for [`GONE`] is dead
//! or stopped, and is skipped; if it continues, it queues again.
//!
//! # Ordering
//! A waiter occupies its slot, or is woken, and then tries the lock; the holder releases the
//! lock, then looks at the queue. A fence lies between the two in both, at each try, so the
//! holder sees the waiter or the waiter sees the lock released. A waiter loads the word that it
//! sleeps on before its try, so a wake-up after that ends the sleep.
//!
//! # Crash
//! The slot of a dead waiter delays those behind it by [`GONE`] at most, once. Garbage is the
//! slot of a dead waiter.

mod observe;

use std::fmt;
use std::time::Duration;

use super::clock::between;
use super::identity::NamedProcess;
#[cfg(not(loom))]
use super::identity::ProcessName;
use crate::sync::{AtomicU32, Ordering, fence};
use observe::WaiterNote;
pub use observe::{TimeSlice, WaitingWriter};

/// How many writers can be in the queue; any more retry at intervals, as stock SQLite does. A
/// model looks through all of them at each step.
const SLOTS: usize = if cfg!(loom) { 3 } else { 128 };
/// How long a time slice is. A longer one costs fewer context switches and delays the queue.
const TIME_SLICE: Duration = Duration::from_millis(1);
/// After this time without a sign of life a waiter is skipped.
const GONE: Duration = Duration::from_millis(20);
/// After this time a waiter that has [stepped aside](WriterQueue::step_aside) is skipped. A longer
/// time delays the queue when the waiter does not return.
const ASIDE: Duration = Duration::from_millis(2);
/// At least how often a waiter shows that it is alive. In a model, where no waiter seems to be
/// dead, it sleeps until it is woken, so that a lost wake-up shows.
pub const HEARTBEAT: Duration = match cfg!(loom) {
    true => Duration::from_secs(3600),
    false => Duration::from_millis(5),
};

/// The queue, in memory that all users share; zeros are an empty one. Times are microseconds
/// of the monotonic clock, and wrap.
#[repr(C)]
pub struct WriterQueue {
    /// The ticket that was drawn last.
    drawn: AtomicU32,
    /// Not 0 if a slot may be occupied.
    in_use: AtomicU32,
    /// The thread that has the time slice.
    slice_of: AtomicU32,
    /// When the slice began.
    slice_since: AtomicU32,
    /// The process of that thread, for observers.
    slice_process: NamedProcess,
    unused: [AtomicU32; 10],
    waiters: [QueuedWaiter; SLOTS],
    /// The waiter in each slot, for observers. It lies apart from `waiters`, which each
    /// release of `WRITE` goes through.
    notes: [WaiterNote; SLOTS],
}

crate::shared_memory!(WriterQueue {
    drawn,
    in_use,
    slice_of,
    slice_since,
    slice_process,
    unused,
    waiters,
    notes,
});

impl fmt::Debug for WriterQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterQueue")
            .field("drawn", &self.drawn)
            .field("in_use", &self.in_use)
            .field("slice_of", &self.slice_of)
            .finish_non_exhaustive()
    }
}

/// The waiter in a slot.
#[repr(C)]
#[derive(Debug, Default)]
struct QueuedWaiter {
    /// 0 if the slot is free.
    ticket: AtomicU32,
    /// The word that the waiter sleeps on; each wake-up changes it.
    woken: AtomicU32,
    /// When the waiter showed last that it is alive.
    alive: AtomicU32,
    /// Not 0 if the waiter is not to be woken before the time slice is over.
    deferred: AtomicU32,
}

crate::shared_memory!(QueuedWaiter {
    ticket,
    woken,
    alive,
    deferred,
});

impl Default for WriterQueue {
    fn default() -> Self {
        WriterQueue {
            drawn: AtomicU32::new(0),
            in_use: AtomicU32::new(0),
            slice_of: AtomicU32::new(0),
            slice_since: AtomicU32::new(0),
            slice_process: NamedProcess::default(),
            unused: Default::default(),
            waiters: std::array::from_fn(|_| QueuedWaiter::default()),
            notes: std::array::from_fn(|_| WaiterNote::default()),
        }
    }
}

/// A slot of the queue that a waiter has occupied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSlot {
    at: usize,
    ticket: u32,
}

/// Where a waiter is in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// First: it may try to acquire `WRITE`.
    First,
    /// Behind another waiter: it sleeps until it is woken.
    Behind,
    /// Removed, because it seemed to be dead: it queues again.
    Removed,
}

impl WriterQueue {
    /// True if `thread`, which is not in the queue, may try to acquire `WRITE` at `now`: no
    /// writer waits, or it has the time slice.
    pub fn may_bypass(&self, thread: u32, now: u32) -> bool {
        self.is_empty() || self.left_of_slice_of(thread, now).is_some()
    }

    /// True if no slot is occupied: every thread may try to acquire `WRITE`.
    pub fn is_empty(&self) -> bool {
        self.in_use.load(Ordering::SeqCst) == 0
    }

    /// True if a time slice, of whichever thread, is not over at `now`.
    pub fn slice_runs(&self, now: u32) -> bool {
        self.left_of_slice(now).is_some()
    }

    fn left_of_slice(&self, now: u32) -> Option<Duration> {
        let since = self.slice_since.load(Ordering::Relaxed);
        TIME_SLICE.checked_sub(between(since, now))
    }

    /// What is left of the time slice, if it is that of `thread`.
    fn left_of_slice_of(&self, thread: u32, now: u32) -> Option<Duration> {
        let has_slice = self.slice_of.load(Ordering::Relaxed) == thread;
        self.left_of_slice(now).filter(|_| has_slice)
    }

    /// Notes that `thread` has acquired `WRITE` at `now`. Its time slice begins, unless it has
    /// acquired `WRITE` again within the slice and not `from_queue`.
    pub fn begin_slice(&self, thread: u32, now: u32, from_queue: bool) {
        if from_queue || self.left_of_slice_of(thread, now).is_none() {
            self.slice_since.store(now, Ordering::Relaxed);
            self.slice_of.store(thread, Ordering::Relaxed);
            #[cfg(not(loom))]
            self.slice_process.store(ProcessName::current());
        }
    }

    /// Notes that `thread` will not acquire `WRITE` again for a while: the release that follows
    /// wakes the next writer.
    pub fn end_slice(&self, thread: u32) {
        // Fails if another thread has the slice.
        let _ = self
            .slice_of
            .compare_exchange(thread, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Occupies a slot at the end of the queue; `None` if no slot is free.
    pub fn enter(&self, now: u32) -> Option<QueueSlot> {
        let mut ticket = 0;
        while ticket == 0 {
            ticket = self.drawn.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        }
        self.occupy(ticket, now)
    }

    fn occupy(&self, ticket: u32, now: u32) -> Option<QueueSlot> {
        let occupies = |waiter: &QueuedWaiter| {
            if waiter.ticket.load(Ordering::SeqCst) != 0 {
                return false;
            }
            // Before the slot is occupied: a thread that sees the ticket sees a live waiter.
            waiter.alive.store(now, Ordering::SeqCst);
            let claimed =
                waiter
                    .ticket
                    .compare_exchange(0, ticket, Ordering::SeqCst, Ordering::Relaxed);
            claimed.is_ok()
        };
        let at = self.waiters.iter().position(occupies).or_else(|| {
            // No live waiter may be left to remove the dead ones.
            for waiter in &self.waiters {
                waiter.is_removed_if_gone(waiter.ticket.load(Ordering::SeqCst), now);
            }
            self.waiters.iter().position(occupies)
        })?;
        self.waiters[at].deferred.store(0, Ordering::Relaxed);
        #[cfg(not(loom))] // Each store would multiply the executions of a model.
        self.notes[at].store(now);
        // After the ticket. An exchange, as the one that clears the mark is: of the two the
        // later one sees what came before the earlier one. So a thread that clears the mark
        // later sees the ticket, and one that clears it earlier leaves this mark.
        self.in_use.swap(1, Ordering::SeqCst);
        Some(QueueSlot { at, ticket })
    }

    /// Occupies a slot again, with the ticket of `left`, which the caller has left: its position
    /// in the queue is the same. `None` if no slot is free.
    pub fn enter_again(&self, left: QueueSlot, now: u32) -> Option<QueueSlot> {
        self.occupy(left.ticket, now)
    }

    /// Notes at `now` that the waiter in `slot` may not return: it is skipped soon, unless it
    /// shows before that it is alive.
    pub fn step_aside(&self, slot: QueueSlot, now: u32) {
        let [gone, aside] = [GONE, ASIDE].map(|time| u32::try_from(time.as_micros()).unwrap_or(0));
        let waiter = &self.waiters[slot.at];
        // The slot of a waiter that was skipped may be another one's. If that occupies it at this
        // very moment, it is skipped once, and keeps its ticket.
        if waiter.ticket.load(Ordering::SeqCst) == slot.ticket {
            let alive = now.wrapping_sub(gone - aside);
            waiter.alive.store(alive, Ordering::Relaxed);
        }
    }

    /// True if a waiter that is alive at `now` is in the queue. Waiters that are gone lose their
    /// slots.
    pub fn has_live_waiter(&self, now: u32) -> bool {
        self.waiters.iter().any(|waiter| {
            let ticket = waiter.ticket.load(Ordering::SeqCst);
            ticket != 0 && !waiter.is_removed_if_gone(ticket, now)
        })
    }

    /// Shows that the waiter in `slot` is alive at `now`, and returns where it is. Waiters
    /// before it that are gone lose their slots.
    pub fn position(&self, slot: QueueSlot, now: u32) -> Position {
        // After the caller's load of the word, and before its try: a release that the try does
        // not see finds here what the release before it has left.
        fence(Ordering::SeqCst);
        let own = &self.waiters[slot.at];
        if own.ticket.load(Ordering::SeqCst) != slot.ticket {
            return Position::Removed;
        }
        own.alive.store(now, Ordering::Relaxed);
        let before = |ticket: u32| ticket != 0 && self.age(ticket) > self.age(slot.ticket);
        for waiter in &self.waiters {
            let ticket = waiter.ticket.load(Ordering::SeqCst);
            if before(ticket) && !waiter.is_removed_if_gone(ticket, now) {
                return Position::Behind;
            }
        }
        Position::First
    }

    /// Returns the word that the waiter in `slot` sleeps on.
    pub fn word(&self, slot: QueueSlot) -> &AtomicU32 {
        &self.waiters[slot.at].woken
    }

    /// Changes the word that the waiter in `slot` sleeps on, and returns it: the caller wakes
    /// its sleeper.
    pub fn signal(&self, slot: QueueSlot) -> &AtomicU32 {
        self.waiters[slot.at].signal()
    }

    /// Called by the first in the queue that has found `WRITE` taken. Returns what is left at
    /// `now` of a time slice that is not over: the waiter is woken then, and not before.
    pub fn defer_wake_up(&self, slot: QueueSlot, now: u32) -> Option<Duration> {
        let left = self.left_of_slice(now);
        let deferred = &self.waiters[slot.at].deferred;
        deferred.store(u32::from(left.is_some()), Ordering::SeqCst);
        left
    }

    /// Frees `slot`.
    pub fn leave(&self, slot: QueueSlot) {
        let ticket = &self.waiters[slot.at].ticket;
        let _removed_before =
            ticket.compare_exchange(slot.ticket, 0, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Called when `thread` has released `WRITE`. Returns the word whose sleeper the caller
    /// wakes, and which is changed already; `None` if no waiter is to be woken at `now`.
    pub fn next_to_wake(&self, thread: u32, now: impl Fn() -> u32) -> Option<&AtomicU32> {
        fence(Ordering::SeqCst);
        if self.in_use.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let waiter = self.first().or_else(|| {
            // Cleared before the queue is looked at once more, so that a waiter which enters
            // concurrently is seen; see `enter`.
            self.in_use.swap(0, Ordering::SeqCst);
            let first = self.first()?;
            self.in_use.store(1, Ordering::SeqCst);
            Some(first)
        })?;
        let is_deferred = waiter.deferred.load(Ordering::SeqCst) != 0;
        if is_deferred && self.left_of_slice_of(thread, now()).is_some() {
            return None;
        }
        Some(waiter.signal())
    }

    fn first(&self) -> Option<&QueuedWaiter> {
        let ticket = |waiter: &QueuedWaiter| waiter.ticket.load(Ordering::SeqCst);
        let waiting = self.waiters.iter().filter(|waiter| ticket(waiter) != 0);
        waiting.max_by_key(|waiter| self.age(ticket(waiter)))
    }

    /// How many tickets were drawn after `ticket`.
    fn age(&self, ticket: u32) -> u32 {
        self.drawn.load(Ordering::SeqCst).wrapping_sub(ticket)
    }

    /// How many slots are occupied, those of dead waiters included.
    #[cfg(all(any(test, feature = "step-points"), not(loom)))]
    #[doc(hidden)]
    pub fn occupied_slots(&self) -> usize {
        let occupied = |waiter: &&QueuedWaiter| waiter.ticket.load(Ordering::SeqCst) != 0;
        self.waiters.iter().filter(occupied).count()
    }
}

impl QueuedWaiter {
    /// Changes the word that the waiter sleeps on.
    fn signal(&self) -> &AtomicU32 {
        self.woken.fetch_add(1, Ordering::SeqCst);
        &self.woken
    }

    /// Removes the waiter that has `ticket` if it has shown no sign of life for long.
    fn is_removed_if_gone(&self, ticket: u32, now: u32) -> bool {
        let alive = self.alive.load(Ordering::Relaxed);
        // A sign of life that comes at this moment may be ahead of `now`.
        let silent = between(alive, now);
        let gone = silent >= GONE && between(now, alive) >= GONE;
        if gone {
            // If it fails, that waiter has left, and one that has come since is behind.
            let _ = self
                .ticket
                .compare_exchange(ticket, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        gone
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
