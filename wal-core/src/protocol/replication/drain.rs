//! A tail that ends a generation of the log beside writers that never pause.
//!
//! # Protocol
//! [`Tail::restart_log`] needs a moment at which the tail has seen everything and all of it is
//! in the database file. Beside a busy writer there is none: it commits between the last look
//! and the moment when `WRITE` is acquired. So here the tail
//! 1. acquires `CKPT`, backfills up to its own mark and syncs the database file, while
//!    writers go on;
//! 2. acquires `WRITE`: from here on nothing is added;
//! 3. hands out the frames that are left, and moves its mark behind them;
//! 4. backfills them, and waits for other readers of the log;
//! 5. restarts the log, and stands at its beginning.
//!
//! Writers wait from step 2 on: for the receiver of at most so many frames as the caller
//! allows, and in steps 4 and 5 for a bounded time. A sync of the database file that has
//! begun is not interrupted. A receiver that is slower than the writer slows the writer down.
//!
//! # Crash
//! A tail that dies before step 5 leaves a log that is as usable as before. One that dies
//! behind it has handed everything out; no frame tells that the next generation follows, so
//! the replica needs a new copy, as after [`Tail::restart_log`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::IndexHeader;
use crate::protocol::checkpoint::backfill::Backfill;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Cancel, Waiter};
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::locking::pause::deadline_after;
use crate::protocol::replication::tail::{Tail, TailFrames, TailPosition};
use crate::types::Lock;

/// How long other checkpointers and writers are waited for by default.
const WAIT: Duration = Duration::from_secs(5);
/// How many frames are handed out by default while writers wait.
const MOST_FRAMES: u32 = 10_000;
/// How long writers wait by default for what follows.
const HOLD: Duration = Duration::from_millis(200);

/// How long [`Tail::drain_log`] waits, and keeps writers waiting.
#[derive(Clone, Debug)]
pub struct DrainOptions {
    busy: BusyHandler,
    most_frames: u32,
    hold: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        DrainOptions {
            busy: BusyHandler::timeout(WAIT),
            most_frames: MOST_FRAMES,
            hold: HOLD,
        }
    }
}

impl DrainOptions {
    /// The defaults that each method names.
    pub fn new() -> Self {
        Self::default()
    }

    /// What to do while other checkpointers and writers are at work; to wait up to five
    /// seconds by default.
    #[must_use]
    pub fn busy(mut self, busy: impl Into<BusyHandler>) -> Self {
        self.busy = busy.into();
        self
    }

    /// How many frames may be handed out while writers wait; 10,000 by default.
    /// More lets a slower receiver restart the log, and keeps writers waiting for longer.
    #[must_use]
    pub fn most_frames(mut self, frames: u32) -> Self {
        self.most_frames = frames;
        self
    }

    /// How long writers wait, once the frames are handed out, until these are in the
    /// database file and other readers of the log are done; 200 ms by default.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}

/// What came of [`Tail::drain_log`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Drained {
    /// The log was restarted. The tail stands at the beginning of the next generation.
    Restarted {
        /// Where the generation before ended: what the next one follows
        /// ([`crate::protocol::ApplyTx::begin_generation`]).
        end: TailPosition,
    },
    /// A lock could not be acquired within the bounds. Try again.
    HeldBack {
        /// The lock.
        by: Lock,
    },
    /// The frames could not be moved to the database file within the bounds. They are, once
    /// it is tried again, while writers go on.
    TooSlow,
    /// More frames are left than may be handed out while writers wait, and none was.
    /// Hand out what [`Tail::advance`] gives, and try again.
    TooManyLeft {
        /// How many.
        frames: u32,
    },
}

impl<C: WalCoordination> Tail<C> {
    /// Hands out all frames that are left, moves them to the database file, and restarts the
    /// log, while writers wait: so that the log of a database whose writers never pause stays
    /// short. To be held back is no error; the tail goes on as before.
    ///
    /// `hand_out` gets the frames behind the tail, as from [`Tail::advance`], unless they are
    /// too many. If it writes this database it gets [`Error::OwnWrite`].
    ///
    /// # Errors
    /// What `hand_out` returns: the tail then stands where it stood. [`Error::Cancelled`],
    /// [`Error::SnapshotGone`] as for [`Tail::advance`], and those of
    /// [`Wal::checkpoint_with`].
    pub fn drain_log<E: From<Error>>(
        &mut self,
        options: &DrainOptions,
        hand_out: impl FnOnce(TailFrames<'_, C>) -> Result<(), E>,
    ) -> Result<Drained, E> {
        let wal = self.at.wal().clone();
        wal.check_writable()?;
        let mut waiter = Waiter::new(options.busy.clone());
        let Some(checkpoint) = wal.wait_for_lock(Lock::Checkpoint, &mut waiter)? else {
            return Ok(held_back(Lock::Checkpoint));
        };
        let held = LocksHeld {
            write: None,
            checkpoint: Some(&checkpoint),
        };
        match backfill_beside_writers(&wal, &held, &mut waiter) {
            Err(Error::Busy { lock, .. }) => return Ok(held_back(lock)),
            moved => moved?,
        }
        let Some(write) = wal.wait_for_lock(Lock::Write, &mut waiter)? else {
            return Ok(held_back(Lock::Write));
        };
        let held = LocksHeld {
            write: Some(&write),
            checkpoint: Some(&checkpoint),
        };
        let left = wal.settled_header(&held)?.max_frame();
        let left = left.saturating_sub(self.at.snapshot().max_frame());
        if left > options.most_frames {
            return Ok(Drained::TooManyLeft { frames: left });
        }
        self.hand_out_rest(&held, hand_out)?;
        Ok(self.restart_drained(&held, options.hold)?)
    }

    /// Hands out what is left, and moves the tail behind it. The caller holds `WRITE`.
    fn hand_out_rest<E: From<Error>>(
        &mut self,
        held: &LocksHeld<'_, C>,
        hand_out: impl FnOnce(TailFrames<'_, C>) -> Result<(), E>,
    ) -> Result<(), E> {
        let numbers = self.numbers();
        // The old mark is released once the frames are handed out: after an error they
        // are handed out again.
        let wal = self.at.wal().clone();
        let pinned = wal.pin_newest(held)?;
        self.check_follows(&pinned)?;
        let staying = wal.own_write().begin_operation();
        hand_out(TailFrames::new(&pinned, numbers))?;
        drop(staying);
        self.at = pinned;
        Ok(())
    }

    /// Moves what is left to the database file, and restarts the log. The caller holds
    /// `CKPT` and `WRITE`, and the tail has handed everything out.
    fn restart_drained(&mut self, held: &LocksHeld<'_, C>, hold: Duration) -> Result<Drained> {
        let wal = self.at.wal().clone();
        let header = self.at.snapshot().header;
        let end = self.position();
        if header.max_frame() == 0 {
            // Another tail has restarted it, or there was nothing to hand out.
            return Ok(Drained::Restarted { end });
        }
        let too_late = Cancel::new();
        let handler = BusyHandler::timeout(hold).cancelled_by(&too_late);
        let mut waiter = Waiter::new(handler);
        let restarted = backfill_rest(&wal, &header, &mut waiter, &too_late, hold)
            .and_then(|()| self.restart_backfilled(held, &header, &mut waiter));
        match restarted {
            Ok(()) => Ok(Drained::Restarted { end }),
            Err(Error::Busy { lock, .. }) => Ok(held_back(lock)),
            Err(Error::Cancelled) => Ok(Drained::TooSlow),
            Err(e) => Err(e),
        }
    }
}

fn held_back(by: Lock) -> Drained {
    Drained::HeldBack { by }
}

/// Backfills what readers allow, durably, so that little is left for the time in which
/// writers wait. The caller holds `CKPT`.
fn backfill_beside_writers<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    held: &LocksHeld<'_, C>,
    waiter: &mut Waiter,
) -> Result<()> {
    let header = wal.settled_header(held)?;
    wal.mend_log_for_checkpoint(&header, false)?;
    let before = wal.checkpoint_info()?.backfilled();
    let mut backfill = Backfill::new(wal, header, None, waiter, false);
    backfill.names_holders = false;
    let report = backfill.run(u32::MAX)?;
    if report.backfilled != before && wal.tuning().synchronous() != Synchronous::Off {
        wal.sync_database()?;
    }
    Ok(())
}

/// Backfills all of the log. The caller holds `CKPT` and `WRITE`.
///
/// # Errors
/// [`Error::Busy`] if readers do not allow it until `waiter` gives up, and
/// [`Error::Cancelled`], by `too_late`, if `hold` is over between two writes.
fn backfill_rest<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    header: &IndexHeader,
    waiter: &mut Waiter,
    too_late: &Cancel,
    hold: Duration,
) -> Result<()> {
    wal.mend_log_for_checkpoint(header, true)?;
    let until = deadline_after(hold);
    let mut look_at_clock = |_| {
        if Instant::now() >= until {
            too_late.cancel();
        }
    };
    let mut backfill = Backfill::new(wal, *header, Some(&mut look_at_clock), waiter, true);
    backfill.names_holders = false;
    let report = backfill.run(u32::MAX)?;
    match report.held_back_by {
        Some(held) => Err(wal.busy_again(held.lock)),
        None => Ok(()),
    }
}
