//! Acquires `WRITE` in the order of the writer queue.
//!
//! # Protocol
//! `WRITE` is a lock that is only tried, so the process that tries most often gets it, and one
//! that waits starves beside a busy one. So the waiting writers of this library are in a
//! [queue](crate::wait::WriterQueue), and each new one goes to its end. The lock alone
//! decides: stock SQLite does not see the queue, and a writer that gives up tries once more,
//! wherever it is in the queue. A busy handler that asks has pauses of its own, and does not
//! queue; an engine, which waits in one call and tries in another, queues by [`super::queued_try`].
//!
//! # Crash
//! A waiter that dies in the queue is skipped after a moment; see [`crate::wait`].

use std::sync::Arc;
use std::time::Instant;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::durability::pipeline::Commit;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::Waiter;
use crate::protocol::locking::guard::LockGuard;
use crate::sync::{AtomicU32, Ordering};
use crate::testing::{Point, rule, step};
use crate::types::{Lock, LockMode};
use crate::wait::{HEARTBEAT, Position, QueueSlot, WriterQueue, now, thread_number};

/// On which state a write transaction begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) enum Begin {
    /// On what another thread has just committed, if it passes `WRITE` on.
    OnNewest,
    OnPublished,
}

/// A writer that waits for `WRITE`, and its slot in the queue, if it has one.
pub(super) struct QueuedWriter<'l, C: WalCoordination> {
    pub(super) wal: &'l Arc<Wal<C>>,
    pub(super) queue: &'l WriterQueue,
    pub(super) thread: u32,
    pub(super) slot: Option<QueueSlot>,
    pub(super) on: Begin,
}

/// `WRITE`, as a waiter has acquired it.
#[derive(Debug)]
pub(in crate::protocol) struct HeldWrite<C: WalCoordination> {
    pub(in crate::protocol) write: LockGuard<C>,
    /// The commit after which it was taken over from another thread, before that
    /// is published perhaps; never with [`Begin::OnPublished`].
    pub(in crate::protocol) after: Option<Commit>,
}

impl<C: WalCoordination> Wal<C> {
    /// Acquires `WRITE`; `None` if it stayed busy until the waiter gave up.
    pub(super) fn wait_for_write(
        self: &Arc<Self>,
        waiter: &mut Waiter,
    ) -> Result<Option<LockGuard<C>>> {
        let held = self.wait_for_held_write(waiter, Begin::OnPublished)?;
        Ok(held.map(|held| held.write))
    }

    /// As [`Wal::wait_for_write`]; with [`Begin::OnNewest`] it may be taken over
    /// from another thread ([`crate::protocol::durability::pipelined_commit`]).
    pub(in crate::protocol) fn wait_for_held_write(
        self: &Arc<Self>,
        waiter: &mut Waiter,
        on: Begin,
    ) -> Result<Option<HeldWrite<C>>> {
        let Some(wait_state) = self
            .coordination()
            .wait_state()
            .filter(|_| !waiter.is_asked())
        else {
            let write = wait_for_write_unqueued(self, waiter)?;
            return Ok(write.map(HeldWrite::of_lock));
        };
        let mut waiting = QueuedWriter {
            wal: self,
            queue: wait_state.writer_queue(),
            thread: thread_number(),
            slot: None,
            on,
        };
        loop {
            // The word is loaded before the try: a release after it ends the
            // sleep at once.
            let word = waiting.word();
            if let Some(held) = waiting.take_over() {
                return Ok(Some(held));
            }
            let may_try = waiting.may_try();
            if may_try && let Some(held) = waiting.try_write()? {
                return Ok(Some(held));
            }
            if waiting.enters() {
                continue;
            }
            if waiting.slot.is_none()
                && let Some(held) = waiting.try_write()?
            {
                // The queue is full, and this writer does without order.
                return Ok(Some(held));
            }
            if self.waits_for_itself(waiter) {
                return Ok(None);
            }
            step(Point::WaitForWrite);
            let sleep = |until: Instant| self.sleep(word, waiting.sleep_until(may_try, until));
            if !waiter.again(Lock::Write, sleep)? {
                return match waiting.take_over() {
                    Some(held) => Ok(Some(held)),
                    None => waiting.try_write(),
                };
            }
        }
    }

    /// Acquires `WRITE`; `None` if another writer holds it. Every write transaction begins
    /// with it, but one that inherits `WRITE` from another thread.
    pub(in crate::protocol) fn try_begin_write_tx(
        self: &Arc<Self>,
    ) -> Result<Option<LockGuard<C>>> {
        self.try_lock(Lock::Write, LockMode::Exclusive)
    }

    /// Wakes the first writer in the queue, once `WRITE` is released.
    pub(super) fn wake_next_writer(&self) {
        if let Some(wait_state) = self.coordination().wait_state()
            && let Some(word) = wait_state.writer_queue().next_to_wake(thread_number(), now)
        {
            self.coordination().wake(word);
        }
    }
}

impl<C: WalCoordination> HeldWrite<C> {
    fn of_lock(write: LockGuard<C>) -> Self {
        HeldWrite { write, after: None }
    }
}

impl<'l, C: WalCoordination> QueuedWriter<'l, C> {
    /// Returns the word to sleep on, and its value.
    pub(super) fn word(&self) -> Option<(&'l AtomicU32, u32)> {
        let word = self.queue.word(self.slot?);
        Some((word, word.load(Ordering::SeqCst)))
    }

    /// True if this writer may try to acquire `WRITE`.
    pub(super) fn may_try(&mut self) -> bool {
        let Some(slot) = self.slot else {
            return rule!(WriterQueueOrder, self.queue.may_bypass(self.thread, now()));
        };
        let position = self.queue.position(slot, now());
        if position == Position::Removed {
            self.leave();
        }
        position == Position::First
    }

    /// Queues; false if this writer is in the queue already, or the queue is full.
    pub(super) fn enters(&mut self) -> bool {
        if self.slot.is_none() {
            self.slot = self.queue.enter(now());
            if let Some(slot) = self.slot
                && self.on == Begin::OnNewest
            {
                self.wal.line_up_as_heir(slot);
            }
            return self.slot.is_some();
        }
        false
    }

    /// Leaves the queue. The slot may be another waiter's by now.
    pub(super) fn leave(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.queue.leave(slot);
            if self.on == Begin::OnNewest {
                self.wal.step_out_as_heir(slot);
            }
        }
    }

    /// Takes `WRITE` over from another thread that has left something unpublished.
    fn take_over(&mut self) -> Option<HeldWrite<C>> {
        if self.on == Begin::OnPublished {
            return None;
        }
        let (write, commit) = self.wal.take_write_over()?;
        self.leave();
        Some(HeldWrite {
            write,
            after: Some(commit),
        })
    }

    /// Until when this writer, which has `tried` unsuccessfully or is not the first in the
    /// queue, sleeps: at most until `until`. The one before it in the queue wakes it.
    pub(super) fn sleep_until(&self, tried: bool, until: Instant) -> Instant {
        let until = until.min(Instant::now() + HEARTBEAT);
        match self.slot {
            Some(slot) if tried => match self.queue.defer_wake_up(slot, now()) {
                Some(left) => until.min(Instant::now() + left),
                None => Wal::<C>::before_foreign_peers(until),
            },
            _ => until,
        }
    }

    /// Tries to acquire `WRITE`, and begins the time slice.
    fn try_write(&mut self) -> Result<Option<HeldWrite<C>>> {
        let write = self.wal.try_begin_write_tx()?;
        if write.is_some() {
            self.acquired();
        }
        Ok(write.map(HeldWrite::of_lock))
    }

    /// Begins the time slice of this writer, which has acquired `WRITE`, and frees its slot.
    pub(super) fn acquired(&mut self) {
        let from_queue = self.slot.is_some();
        self.queue.begin_slice(self.thread, now(), from_queue);
        self.leave();
    }
}

impl<C: WalCoordination> Drop for QueuedWriter<'_, C> {
    /// A writer that gives up may have been woken to try, and wakes the next one.
    fn drop(&mut self) {
        if self.slot.is_some() {
            self.leave();
            self.wal.wake_next_writer();
        }
    }
}

fn wait_for_write_unqueued<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    waiter: &mut Waiter,
) -> Result<Option<LockGuard<C>>> {
    loop {
        if let Some(write) = wal.try_begin_write_tx()? {
            return Ok(Some(write));
        }
        if wal.waits_for_itself(waiter) {
            return Ok(None);
        }
        step(Point::WaitForWrite);
        if !waiter.again(Lock::Write, |until| wal.sleep(None, until))? {
            return Ok(None);
        }
    }
}
