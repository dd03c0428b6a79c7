//! What observers see of the queue: the writers that wait, and the writer that has the time slice.

use std::time::Duration;

use super::super::identity::{NamedProcess, ProcessName};
use crate::sync::AtomicU32;

#[cfg(not(loom))]
use super::super::identity::thread_number;
#[cfg(not(loom))]
use super::{WriterQueue, between};
#[cfg(not(loom))]
use crate::sync::Ordering;

/// What a waiter stores for observers when it occupies its slot. The protocol loads none of it.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct WaiterNote {
    process: NamedProcess,
    thread: AtomicU32,
    /// When the waiter occupied the slot.
    since: AtomicU32,
}

crate::shared_memory!(WaiterNote {
    process,
    thread,
    since,
});

/// A writer that waits in the queue, for observers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WaitingWriter {
    /// How many waiters are before it.
    pub ahead: usize,
    /// How many tickets were drawn after its own.
    pub tickets_since: u32,
    /// How long it has waited in this slot.
    pub waited: Duration,
    /// How long ago it showed that it is alive. A waiter that is silent for 20 ms is skipped.
    pub silent: Duration,
    /// Whether it is woken at the end of the time slice, and not before.
    pub is_deferred: bool,
    /// The number of its thread.
    pub thread: u32,
    /// Its process.
    pub process: ProcessName,
}

/// The writer that may acquire `WRITE` again ahead of the queue, for observers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TimeSlice {
    /// The number of its thread.
    pub thread: u32,
    /// Its process.
    pub process: ProcessName,
    /// What is left of the slice.
    pub left: Duration,
}

/// What observers see. Nothing is stored, and what is loaded may be out of date at once.
#[cfg(not(loom))]
impl WriterQueue {
    /// The waiters at `now`, first to last, those that seem to be dead included.
    ///
    /// ```
    /// use wal_core::wait::{WriterQueue, now};
    ///
    /// let queue = WriterQueue::default();
    /// assert!(queue.waiting_writers(now()).is_empty());
    /// let slot = queue.enter(now()).unwrap();
    /// let [waiting] = queue.waiting_writers(now())[..] else {
    ///     panic!("one writer waits");
    /// };
    /// assert_eq!(waiting.process.pid(), Some(std::process::id()));
    /// queue.leave(slot);
    /// ```
    pub fn waiting_writers(&self, now: u32) -> Vec<WaitingWriter> {
        let waiters = self.waiters.iter().zip(&self.notes);
        let mut waiting: Vec<WaitingWriter> = waiters
            .filter_map(|(waiter, note)| {
                let ticket = waiter.ticket.load(Ordering::SeqCst);
                (ticket != 0).then(|| WaitingWriter {
                    ahead: 0,
                    tickets_since: self.age(ticket),
                    waited: passed(note.since.load(Ordering::Relaxed), now),
                    silent: passed(waiter.alive.load(Ordering::Relaxed), now),
                    is_deferred: waiter.deferred.load(Ordering::Relaxed) != 0,
                    thread: note.thread.load(Ordering::Relaxed),
                    process: note.process.load(),
                })
            })
            .collect();
        waiting.sort_by_key(|writer| std::cmp::Reverse(writer.tickets_since));
        for (ahead, writer) in waiting.iter_mut().enumerate() {
            writer.ahead = ahead;
        }
        waiting
    }

    /// The writer that has the time slice at `now`; `None` if the slice is over.
    pub fn time_slice(&self, now: u32) -> Option<TimeSlice> {
        let left = self.left_of_slice(now)?;
        let thread = self.slice_of.load(Ordering::Relaxed);
        (thread != 0).then(|| TimeSlice {
            thread,
            process: self.slice_process.load(),
            left,
        })
    }
}

/// The time from `then` to `now`; zero if `then` comes later, by another thread's look at the
/// clock.
#[cfg(not(loom))]
fn passed(then: u32, now: u32) -> Duration {
    let passed = between(then, now);
    match passed <= between(now, then) {
        true => passed,
        false => Duration::ZERO,
    }
}

#[cfg(not(loom))]
impl WaiterNote {
    pub(super) fn store(&self, now: u32) {
        self.process.store(ProcessName::current());
        self.thread.store(thread_number(), Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Position, QueueSlot, TIME_SLICE};
    use super::*;

    const TWO: u32 = 2;
    const MS: u32 = 1000;

    #[test]
    fn observer_sees_waiters_in_order_and_stores_nothing() {
        let queue = WriterQueue::default();
        queue.drawn.store(u32::MAX, Ordering::Relaxed);
        assert!(queue.waiting_writers(0).is_empty());
        let slots: Vec<QueueSlot> = (0..3).map(|at| queue.enter(at * MS).unwrap()).collect();
        queue.leave(slots[1]);
        let last = queue.enter(5 * MS).unwrap();
        assert_eq!(queue.position(slots[0], 7 * MS), Position::First);
        queue.begin_slice(TWO, 6 * MS, true);
        queue.defer_wake_up(slots[0], 6 * MS);
        let before = format!("{:?}{:?}", queue.waiters, queue.notes);
        let seen = queue.waiting_writers(9 * MS);
        let of = |waited: u32, silent: u32, tickets_since: u32, ahead: usize| WaitingWriter {
            ahead,
            tickets_since,
            waited: Duration::from_micros(u64::from(waited * MS)),
            silent: Duration::from_micros(u64::from(silent * MS)),
            is_deferred: ahead == 0,
            thread: thread_number(),
            process: ProcessName::current(),
        };
        assert_eq!(seen, [of(9, 2, 3, 0), of(7, 7, 1, 1), of(4, 4, 0, 2)]);
        let slice = queue.time_slice(6 * MS).unwrap();
        assert_eq!((slice.thread, slice.left), (TWO, TIME_SLICE));
        assert_eq!(slice.process.pid(), Some(std::process::id()));
        assert_eq!(queue.time_slice(8 * MS), None);
        assert_eq!(before, format!("{:?}{:?}", queue.waiters, queue.notes));
        queue.leave(last);
        assert_eq!(queue.waiting_writers(9 * MS).len(), 2);
    }

    #[test]
    fn waiter_ahead_of_the_observers_clock_has_waited_no_time() {
        let queue = WriterQueue::default();
        queue.enter(100).unwrap();
        let [waiting] = queue.waiting_writers(50)[..] else {
            panic!("one writer waits");
        };
        assert_eq!((waiting.waited, waiting.silent), Default::default());
    }
}
