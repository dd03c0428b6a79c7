//! A writer in the queue that waits in one call and tries to acquire `WRITE` in another.
//!
//! # Protocol
//! An engine such as SQLite opens a snapshot, tries to acquire `WRITE`, and if that is busy,
//! ends the snapshot and calls its busy handler, which waits. A wait inside the try would leave
//! the engine with a stale snapshot. So the handler waits in the queue until the writer may
//! try, and the slot stays occupied while the engine opens the next snapshot and tries: the
//! writers behind it do not try in between.
//!
//! # Ordering
//! That of the [queue](crate::wait::WriterQueue). The word of the slot is loaded before
//! [`QueuedTry::wait`] returns, and so before the try: a release that the try does not see
//! ends the next wait at once.
//!
//! # Crash
//! An engine that does not try again leaves its slot until the value is dropped, and that of a
//! dead waiter is skipped after a moment.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::coordination::WalCoordination;
use crate::protocol::handle::Wal;
use crate::protocol::locking::queued_write::{Begin, QueuedWriter};
use crate::testing::{Point, step};
use crate::wait::{QueueSlot, thread_number};

/// A writer that waits for `WRITE` in the writer queue, and tries in calls of its own.
///
/// The queue is a hint: what this returns grants nothing, and
/// [`ReadTx::upgrade_queued`](crate::protocol::ReadTx::upgrade_queued) tries the lock. Without
/// a wait state ([`WalCoordination::wait_state`]) there is no queue, and the writer polls.
pub struct QueuedTry<C: WalCoordination> {
    wal: Arc<Wal<C>>,
    slot: Option<QueueSlot>,
    /// The value of the slot's word before the last try.
    seen: Option<u32>,
    /// The last try has found `WRITE` busy, and the writer has not waited since.
    failed: bool,
}

impl<C: WalCoordination> fmt::Debug for QueuedTry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedTry")
            .field("slot", &self.slot)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl<C: WalCoordination> QueuedTry<C> {
    /// Returns a writer on `wal` that is not in the queue.
    pub fn new(wal: &Arc<Wal<C>>) -> Self {
        QueuedTry {
            wal: wal.clone(),
            slot: None,
            seen: None,
            failed: false,
        }
    }

    /// True if no other writer is to try before this one. Otherwise the caller does not try,
    /// but waits.
    pub fn may_try(&mut self) -> bool {
        let may_try = self.as_writer(|writer| {
            let seen = writer.word().map(|(_, seen)| seen);
            (seen, writer.may_try())
        });
        may_try.is_none_or(|(seen, may_try)| {
            self.seen = seen;
            may_try
        })
    }

    /// Occupies a slot of the queue, if this writer has none, and waits until it may try; false
    /// if `until` has passed before. The caller has failed to acquire `WRITE`, or may not try.
    /// A try at the end of a timeout is allowed wherever the writer is in the queue.
    pub fn wait(&mut self, until: Instant) -> bool {
        let (seen, failed) = (self.seen, std::mem::take(&mut self.failed));
        let waited = self.as_writer(|writer| wait(writer, seen, failed, until));
        let Some((seen, may_try)) = waited else {
            let in_time = Instant::now() < until;
            self.wal.sleep(None, until);
            return in_time;
        };
        self.seen = seen;
        may_try
    }

    /// Notes that this writer has acquired `WRITE`.
    pub(in crate::protocol) fn acquired(&mut self) {
        self.as_writer(|writer| writer.acquired());
    }

    /// Notes that a try has failed, because `WRITE` `is_busy` or for another reason:
    /// [`QueuedTry::wait`] then sleeps before the next one.
    /// [`ReadTx::upgrade_queued`](crate::protocol::ReadTx::upgrade_queued) does that itself.
    pub fn failed(&mut self, is_busy: bool) {
        self.failed = is_busy;
    }

    /// Runs `act` with the writer in the queue that this is; `None` if there is no queue.
    fn as_writer<T>(&mut self, act: impl FnOnce(&mut QueuedWriter<'_, C>) -> T) -> Option<T> {
        let wait_state = self.wal.coordination().wait_state()?;
        let mut writer = QueuedWriter {
            wal: &self.wal,
            queue: wait_state.writer_queue(),
            thread: thread_number(),
            slot: self.slot,
            // It begins on what readers see.
            on: Begin::OnPublished,
        };
        let outcome = act(&mut writer);
        self.slot = writer.slot.take();
        Some(outcome)
    }
}

impl<C: WalCoordination> Drop for QueuedTry<C> {
    /// A writer that gives up may have been woken to try, and wakes the next one. In a forked
    /// child the slot is the parent's.
    fn drop(&mut self) {
        if self.slot.is_some() && !self.wal.process().is_over() {
            self.as_writer(|writer| writer.leave());
            self.wal.wake_next_writer();
        }
    }
}

/// Waits in the queue for [`QueuedTry::wait`] until `writer` may try, or until `until`. Returns the
/// value of the word before the try that follows, and whether `writer` may try.
fn wait<C: WalCoordination>(
    writer: &mut QueuedWriter<'_, C>,
    seen: Option<u32>,
    failed: bool,
    until: Instant,
) -> (Option<u32>, bool) {
    // A writer that has just entered tries once more before it sleeps: a release before it
    // entered did not wake it.
    let mut failed = failed && !writer.enters();
    let mut word = writer
        .word()
        .zip(seen)
        .map(|((word, _), seen)| (word, seen));
    loop {
        if !failed {
            word = writer.word();
            if writer.may_try() {
                return (word.map(|(_, seen)| seen), true);
            }
            if writer.enters() {
                continue;
            }
        }
        if Instant::now() >= until {
            return (None, false);
        }
        step(Point::WaitForWrite);
        writer.wal.sleep(word, writer.sleep_until(failed, until));
        if writer.slot.is_none() {
            // The queue is full, and this writer does without order.
            return (None, true);
        }
        failed = false;
    }
}
