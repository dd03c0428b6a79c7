//! Takes Write when it is one's turn.
//!
//! # Protocol
//! Write is a lock that is only tried, so who tries most often gets it: a
//! process that waits starves beside one that is busy. So those of ours that
//! wait stand in a [line](crate::wait::Line), and who comes goes to its
//! end. The lock alone decides: stock SQLite does not see the line, and who
//! gives up tries once more, whoever's turn it is. A busy handler that asks
//! has pauses of its own, and does not line up.
//!
//! # Crash
//! Who dies in line is passed over after a moment; see [`crate::wait`].

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
use crate::wait::{Line, Place, STILL_HERE, Turn, now, who};

/// On which state a write transaction begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) enum Begin {
    /// On what another thread has just committed, if it passes Write on.
    OnNewest,
    OnPublished,
}

/// Somebody who wants Write, and its place in line, if it has one.
struct InLine<'l, C: WalCoordination> {
    wal: &'l Arc<Wal<C>>,
    line: &'l Line,
    who: u32,
    place: Option<Place>,
    on: Begin,
}

/// Write, as who waited has got it.
#[derive(Debug)]
pub(in crate::protocol) struct HeldWrite<C: WalCoordination> {
    pub(in crate::protocol) write: LockGuard<C>,
    /// The commit after which it was taken over from another thread, before that
    /// is published perhaps; never with [`Begin::OnPublished`].
    pub(in crate::protocol) after: Option<Commit>,
}

impl<C: WalCoordination> Wal<C> {
    /// Takes Write; `None` if it stayed busy until the waiter gave up.
    pub(super) fn wait_for_write(
        self: &Arc<Self>,
        waiter: &mut Waiter,
    ) -> Result<Option<LockGuard<C>>> {
        let held = self.wait_for_turn(waiter, Begin::OnPublished)?;
        Ok(held.map(|held| held.write))
    }

    /// As [`Wal::wait_for_write`]; with [`Begin::OnNewest`] it may be taken over
    /// from another thread ([`crate::protocol::durability::pipelined_commit`]).
    pub(in crate::protocol) fn wait_for_turn(
        self: &Arc<Self>,
        waiter: &mut Waiter,
        on: Begin,
    ) -> Result<Option<HeldWrite<C>>> {
        let Some(room) = self
            .coordination()
            .waiting_room()
            .filter(|_| !waiter.is_asked())
        else {
            let write = wait_for_write_out_of_line(self, waiter)?;
            return Ok(write.map(HeldWrite::of_lock));
        };
        let mut waiting = InLine {
            wal: self,
            line: room.line(),
            who: who(),
            place: None,
            on,
        };
        loop {
            // The word is read before the try: a release after it ends the
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
            if waiting.place.is_none()
                && let Some(held) = waiting.try_write()?
            {
                // The line is full, and does without order.
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

    /// Wakes the first in line, once Write is released.
    pub(super) fn wake_next_writer(&self) {
        if let Some(room) = self.coordination().waiting_room()
            && let Some(word) = room.line().next(who(), now)
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

impl<'l, C: WalCoordination> InLine<'l, C> {
    /// What there is to sleep on.
    fn word(&self) -> Option<(&'l AtomicU32, u32)> {
        let word = self.line.word(self.place?);
        Some((word, word.load(Ordering::SeqCst)))
    }

    /// True if it is this one's turn to try.
    fn may_try(&mut self) -> bool {
        let Some(place) = self.place else {
            return rule!(WriterQueueOrder, self.line.may_pass(self.who, now()));
        };
        let turn = self.line.turn(place, now());
        if turn == Turn::Lost {
            self.leave();
        }
        turn == Turn::Try
    }

    /// Lines up; false if it is in line already, or nobody else can be.
    fn enters(&mut self) -> bool {
        if self.place.is_none() {
            self.place = self.line.enter(now());
            if let Some(place) = self.place
                && self.on == Begin::OnNewest
            {
                self.wal.line_up_as_heir(place);
            }
            return self.place.is_some();
        }
        false
    }

    /// Gives up the place, which may be another one's by now.
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.line.leave(place);
            if self.on == Begin::OnNewest {
                self.wal.step_out_as_heir(place);
            }
        }
    }

    /// Takes Write over from another thread that has left something unpublished.
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

    /// How long to sleep, at most until `until`: `tried` in vain, or not at
    /// the head of the line. Those further back wait for the ones before them,
    /// who stand in line as well.
    fn sleep_until(&self, tried: bool, until: Instant) -> Instant {
        let until = until.min(Instant::now() + STILL_HERE);
        match self.place {
            Some(place) if tried => match self.line.be_patient(place, now()) {
                Some(left) => until.min(Instant::now() + left),
                None => Wal::<C>::before_foreign_peers(until),
            },
            _ => until,
        }
    }

    /// Tries to take Write, and begins the turn.
    fn try_write(&mut self) -> Result<Option<HeldWrite<C>>> {
        let write = self.wal.try_begin_write_tx()?;
        if write.is_some() {
            let from_line = self.place.is_some();
            self.line.begin_turn(self.who, now(), from_line);
            self.leave();
        }
        Ok(write.map(HeldWrite::of_lock))
    }
}

impl<C: WalCoordination> Drop for InLine<'_, C> {
    /// Who gives up may have been woken for its turn, and passes that on.
    fn drop(&mut self) {
        if self.place.is_some() {
            self.leave();
            self.wal.wake_next_writer();
        }
    }
}

fn wait_for_write_out_of_line<C: WalCoordination>(
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
