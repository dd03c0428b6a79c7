//! A log as a writer in the queue, which waits in the busy handler of its connection.
//!
//! # Protocol
//! The log tries to acquire `WRITE` when a write transaction begins. If that fails, or a writer
//! that waits is to try before it, the log answers that it is busy and leaves a wish to the
//! [handler](crate::busy). The handler waits in the queue, and the slot stays occupied until
//! the log has `WRITE`, gives up, or begins a transaction of another kind.
//!
//! The engine calls its handler only where a transaction begins with a write; a read transaction
//! that becomes a write transaction gets the answer, and may have succeeded. So the log refuses
//! without a try only what waits: it asks the connection that runs the statement. A connection
//! that is not known, as the statement is run by other code than this crate's, counts as a
//! connection that waits once its handler has taken a wish, where it has read no page but page 1.
//! A wish that no handler has taken, because the application has its own, ends that for either
//! kind.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use wal_core::protocol::{QueuedTry, ReadTx, UpgradeRefused, Wal, WriteTx};
use wal_core::sync::Unpoison;
use wal_core::{Error, Lock, WalCoordination};

use crate::busy::{self, Outcome, Wishes};

/// The writer that a log is.
pub(crate) struct LogWriter<C: WalCoordination>(Arc<Mutex<Writer<C>>>);

struct Writer<C: WalCoordination> {
    /// Its slot in the queue, from the first refusal on. It has the attachment, so it is
    /// dropped with the log, whichever thread is about to wait with it.
    queued: Option<QueuedTry<C>>,
    state: State,
    /// False if the handler has not taken the wish of a refusal without a try; `None` before the
    /// first wish that it has taken.
    answered: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// The log has answered that `WRITE` is busy, after a try or without one.
    Refused {
        tried: bool,
    },
    /// The handler has waited, and the engine begins again.
    Retries(Outcome),
    /// The same, and the engine has begun its read transaction.
    Begun(Outcome),
}

impl<C: WalCoordination> Wishes for Writer<C> {
    fn wait(&mut self, until: Instant) -> bool {
        // It is gone if the log was closed or opened again.
        self.queued.as_mut().is_none_or(|queued| queued.wait(until))
    }

    fn end(&mut self, outcome: Outcome) {
        self.answered = Some(true);
        self.state = match outcome {
            Outcome::GaveUp => State::Idle,
            retries => State::Retries(retries),
        };
        if outcome != Outcome::Retry {
            self.queued = None;
        }
    }
}

impl<C: WalCoordination> LogWriter<C> {
    pub(crate) fn new() -> Self {
        LogWriter(Arc::new(Mutex::new(Writer {
            queued: None,
            state: State::Idle,
            answered: None,
        })))
    }

    fn writer(&self) -> MutexGuard<'_, Writer<C>> {
        self.0.lock().unpoison()
    }

    /// Notes that a read transaction begins, which may be one to retry with.
    pub(crate) fn begin_read(&self) {
        let mut writer = self.writer();
        match writer.state {
            State::Retries(outcome) => writer.state = State::Begun(outcome),
            state => {
                if state == (State::Refused { tried: false }) {
                    writer.answered = Some(false);
                }
                writer.state = State::Idle;
                writer.queued = None;
            }
        }
    }

    /// Makes a write transaction of `read`, which is `untouched` if the engine has read no page
    /// but page 1. After [`Error::Busy`] and [`Error::BusySnapshot`] the engine may wait by the
    /// handler.
    pub(crate) fn upgrade(
        &self,
        wal: &Arc<Wal<C>>,
        read: ReadTx<C>,
        untouched: bool,
    ) -> Result<WriteTx<C>, Box<UpgradeRefused<C>>> {
        let mut writer = self.writer();
        let state = std::mem::replace(&mut writer.state, State::Idle);
        let refused = |read, error| Err(Box::new(UpgradeRefused { read, error }));
        if state == State::Begun(Outcome::Interrupted) {
            return refused(read, Error::Cancelled);
        }
        let mut queued = writer.queued.take().unwrap_or_else(|| QueuedTry::new(wal));
        let has_waited = matches!(state, State::Begun(_));
        let would_wait = busy::would_wait();
        let waits = match would_wait {
            Some(would_wait) => would_wait && writer.answered != Some(false),
            None => untouched && writer.answered == Some(true),
        };
        let tries = !waits || has_waited || queued.may_try();
        let upgraded = if tries {
            read.upgrade_queued(&mut queued)
        } else {
            let error = Error::Busy {
                path: wal.path().to_owned(),
                lock: Lock::Write,
                holders: Vec::new(),
            };
            refused(read, error)
        };
        if let Err(refused) = &upgraded
            && matches!(refused.error, Error::Busy { .. } | Error::BusySnapshot)
            && (untouched || would_wait == Some(true))
        {
            writer.queued = Some(queued);
            writer.state = State::Refused { tried: tries };
            drop(writer);
            self.leave_wish();
        }
        upgraded
    }

    /// Leaves a wish to the handler that a checkpoint calls which has failed to acquire
    /// `WRITE`. The slot stays occupied until [`LogWriter::leave_queue`].
    pub(crate) fn wish(&self, wal: &Arc<Wal<C>>) {
        let mut writer = self.writer();
        let queued = writer.queued.get_or_insert_with(|| QueuedTry::new(wal));
        queued.failed(true);
        drop(writer);
        self.leave_wish();
    }

    fn leave_wish(&self) {
        let wish = Arc::downgrade(&self.0);
        busy::wish(wish);
    }

    /// Leaves the queue.
    pub(crate) fn leave_queue(&self) {
        let mut writer = self.writer();
        writer.queued = None;
        writer.state = State::Idle;
    }
}

impl<C: WalCoordination> Drop for LogWriter<C> {
    /// The attachment goes with the log. A handler on another thread may be about to look.
    fn drop(&mut self) {
        self.leave_queue();
    }
}
