//! One sync for the commits of several threads of an attachment, before anybody
//! sees them.
//!
//! # Protocol
//! At [`super::Synchronous::Full`] a commit is synced, then published, and Write
//! is held until then. The sync takes many times as long as the rest, and needs
//! nothing of Write but that nobody else has it. So the thread that commits
//! writes its frames, leaves them *unpublished*, and passes Write on to another
//! thread of the attachment that waits for it, which begins on the state that the
//! first one left. Meanwhile one of those who have committed leads: it
//! 1. looks which unpublished commit is the newest;
//! 2. syncs the log, which has the frames of all up to that one;
//! 3. publishes it, and the older ones with it.
//!
//! The lock itself stays held, for nobody in particular, until all is published
//! and no thread writes; then it is given back. It is passed on within one turn
//! ([`crate::waiting::Line`]), so other processes wait for it no longer than for
//! one thread that comes back again and again.
//!
//! Who reads, here or elsewhere, goes by the header, and sees what is durable.
//! Only a write transaction that was passed Write sees what is not; it ends, by
//! commit or rollback, when that is.
//!
//! A commit that is published in another way (of another level, of an engine's
//! frames) waits until nothing is unpublished.
//!
//! # Ordering
//! The state is behind a mutex. Whoever has Write took it over through that mutex
//! or through the lock, so it sees the frames and entries of those before.
//!
//! # Crash
//! What is unpublished when the process dies lies above the header: the next
//! writer trims it. If the index is rebuilt from the log it is there, as a commit
//! that died between its sync and its header is. After a sync that failed nothing
//! of it is published any more, and the attachment is poisoned.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{LockGuard, Wal};
use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::testing::{Mutation, Point, mutated, step};
use crate::waiting::{Place, comes_soon, now};

/// A commit of this attachment, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Commit {
    pub(super) number: u64,
    /// The state that it makes.
    pub(super) header: IndexHeader,
}

/// Who has Write, as far as the relay has a say in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Baton {
    /// A guard, or nobody of this attachment.
    #[default]
    Elsewhere,
    /// Nobody, while what is unpublished is synced.
    Kept,
    /// The thread of that number, which has not come for it yet.
    Given(u32),
}

#[derive(Debug, Default)]
struct State {
    /// The newest commit, published or not.
    newest: Option<Commit>,
    /// The number of the newest one that is published.
    published: u64,
    /// Somebody syncs the log.
    is_led: bool,
    /// A sync has failed: nothing is published any more.
    has_failed: bool,
    baton: Baton,
    /// Threads that wait for Write, and their places in line.
    heirs: VecDeque<(u32, Place)>,
}

impl State {
    fn unpublished(&self) -> Option<Commit> {
        self.newest.filter(|newest| newest.number > self.published)
    }

    /// True if there is something that is going to be published.
    fn goes_on(&self) -> bool {
        self.unpublished().is_some() && !self.has_failed
    }
}

/// What threads of an attachment leave to each other.
#[derive(Debug, Default)]
pub(super) struct Relay {
    state: Mutex<State>,
    /// Changes with `published`, `is_led` and `has_failed`.
    changed: Condvar,
    /// Something is unpublished. Whoever has Write has set it, or has taken Write
    /// over from who did, so nobody who has Write misses it.
    has_unpublished: AtomicBool,
}

impl Relay {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, state: &State) {
        let unpublished = state.unpublished().is_some();
        self.has_unpublished.store(unpublished, Ordering::Release);
    }

    /// Lets thread `who`, which is at `place` in line, be passed Write.
    pub(super) fn line_up(&self, who: u32, place: Place) {
        self.state().heirs.push_back((who, place));
    }

    /// Thread `who` does not wait any more; true if it was passed Write, and has
    /// to do something with it.
    #[must_use]
    pub(super) fn step_out(&self, who: u32) -> bool {
        let mut state = self.state();
        state.heirs.retain(|&(heir, _)| heir != who);
        let given = state.baton == Baton::Given(who);
        if given {
            state.baton = Baton::Elsewhere;
        }
        given
    }
}

/// A commit that its thread has left unpublished, and waits for.
pub(super) struct Unpublished<C: WalCoordination> {
    wal: Arc<Wal<C>>,
    number: u64,
    is_waited_for: bool,
}

impl<C: WalCoordination> Unpublished<C> {
    /// Returns once it is durable, and published. Write was passed on before.
    ///
    /// # Errors
    /// As [`Wal::wait_until_published`].
    pub(super) fn wait(mut self) -> Result<()> {
        self.is_waited_for = true;
        self.wal.wait_until_published(self.number)
    }
}

impl<C: WalCoordination> Drop for Unpublished<C> {
    /// A thread that panics in between leaves nobody to publish what it has
    /// written.
    fn drop(&mut self) {
        if !self.is_waited_for {
            self.wal.poison();
            let mut state = self.wal.relay.state();
            state.has_failed = true;
            let is_led = state.is_led;
            self.wal.give_up_write_unless(is_led, state);
        }
    }
}

/// Leads until it is dropped.
struct Lead<'w, C: WalCoordination> {
    wal: &'w Arc<Wal<C>>,
    /// What is published by now.
    reached: Option<Commit>,
}

impl<C: WalCoordination> Wal<C> {
    /// Says that the caller, who has Write, has written all of a commit that
    /// makes the state `header`, and leaves it to be published.
    ///
    /// # Errors
    /// [`crate::Error::CommitOutcomeUnknown`] if it never will be.
    pub(super) fn leave_unpublished(
        self: &Arc<Self>,
        header: IndexHeader,
    ) -> Result<Unpublished<C>> {
        let mut state = self.relay.state();
        if state.has_failed {
            return Err(self.outcome_unknown(self.failed_elsewhere()));
        }
        let before = state.newest.map_or(0, |newest| newest.number);
        let number = before + 1;
        state.newest = Some(Commit { number, header });
        self.relay.note(&state);
        Ok(Unpublished {
            wal: self.clone(),
            number,
            is_waited_for: false,
        })
    }

    /// Gives Write to a thread that waits for it, or keeps it, if something is
    /// unpublished; false if the lock is to be given back.
    pub(super) fn pass_write_on(&self) -> bool {
        if !self.relay.has_unpublished.load(Ordering::Acquire) {
            return false;
        }
        let room = self.coordination.waiting_room();
        let mut state = self.relay.state();
        if !state.goes_on() {
            return false;
        }
        state.baton = Baton::Kept;
        if let Some(room) = room
            && room.line().turn_goes_on(now())
            && let Some((heir, place)) = state.heirs.pop_front()
        {
            state.baton = Baton::Given(heir);
            drop(state);
            step(Point::Wake);
            self.coordination.wake(room.line().call(place));
        }
        true
    }

    /// Write, if it was passed to thread `who`, or is kept for nobody and the
    /// turn goes on; with the commit on which the thread begins.
    pub(super) fn inherit_write(self: &Arc<Self>, who: u32) -> Option<(LockGuard<C>, Commit)> {
        let mut state = self.relay.state();
        let goes_on = || {
            let room = self.coordination.waiting_room();
            room.is_some_and(|room| room.line().turn_goes_on(now()))
        };
        let is_had = match state.baton {
            Baton::Elsewhere => false,
            Baton::Kept => goes_on(),
            Baton::Given(heir) => heir == who,
        };
        let newest = state.newest.filter(|_| is_had)?;
        state.baton = Baton::Elsewhere;
        state.heirs.retain(|&(heir, _)| heir != who);
        Some((self.write_guard(), newest))
    }

    /// Returns once the commit of that number is durable, and published.
    ///
    /// # Errors
    /// [`crate::Error::CommitOutcomeUnknown`] if a sync has failed.
    pub(super) fn wait_until_published(self: &Arc<Self>, number: u64) -> Result<()> {
        let is_over = |state: &State| state.published >= number || state.has_failed;
        loop {
            let mut state = self.relay.state();
            if state.published >= number {
                return Ok(());
            }
            if state.has_failed {
                return Err(self.outcome_unknown(self.failed_elsewhere()));
            }
            if !state.is_led
                && let Some(newest) = state.newest
            {
                state.is_led = true;
                drop(state);
                self.lead_to(newest)?;
                continue;
            }
            drop(state);
            let goes_on = || {
                let state = self.relay.state();
                is_over(&state) || !state.is_led
            };
            if comes_soon(goes_on) {
                continue;
            }
            let state = self.relay.state();
            let waits = |state: &mut State| state.is_led && !is_over(state);
            step(Point::WaitForSync);
            drop(self.relay.changed.wait_while(state, waits));
        }
    }

    /// Returns once nothing is unpublished. The caller has Write.
    ///
    /// # Errors
    /// As [`Wal::wait_until_published`].
    pub(super) fn publish_all(self: &Arc<Self>) -> Result<()> {
        if !self.relay.has_unpublished.load(Ordering::Acquire) {
            return Ok(());
        }
        let unpublished = self.relay.state().unpublished();
        unpublished.map_or(Ok(()), |commit| self.wait_until_published(commit.number))
    }

    /// Syncs the log, which has the frames up to `commit`, and publishes that.
    fn lead_to(self: &Arc<Self>, commit: Commit) -> Result<()> {
        let mut lead = Lead {
            wal: self,
            reached: None,
        };
        let header = self.header_cell().map_err(|e| self.outcome_unknown(e))?;
        if mutated(Mutation::PublishUnsynced) {
            self.finalize_committed_pages(header, &commit.header);
        }
        if !mutated(Mutation::SkipCommitSync) {
            step(Point::CommitSync);
            self.sync_log().map_err(|e| self.outcome_unknown(e))?;
        }
        let commit = match mutated(Mutation::PublishNewest) {
            true => self.relay.state().newest.unwrap_or(commit),
            false => commit,
        };
        self.finalize_committed_pages(header, &commit.header);
        lead.reached = Some(commit);
        Ok(())
    }
}

impl<C: WalCoordination> Drop for Lead<'_, C> {
    /// Steps down, and gives Write back if nobody is to have it any more. A sync
    /// that failed, or panicked, is the last one.
    fn drop(&mut self) {
        let mut state = self.wal.relay.state();
        state.is_led = false;
        match self.reached {
            Some(commit) => state.published = commit.number,
            None => state.has_failed = true,
        }
        self.wal.relay.note(&state);
        self.wal.give_up_write_unless(false, state);
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Tells those who wait what has become of `state`, and gives Write back if
    /// nobody is to have it any more; not if that `is_led`, as a leader publishes.
    fn give_up_write_unless(self: &Arc<Self>, is_led: bool, mut state: MutexGuard<'_, State>) {
        let is_over = match state.baton {
            Baton::Elsewhere => false,
            Baton::Kept => !state.goes_on(),
            // It is to begin on what is published.
            Baton::Given(_) => state.has_failed,
        };
        let gives_back = is_over && !is_led;
        if gives_back {
            state.baton = Baton::Elsewhere;
        }
        drop(state);
        self.relay.changed.notify_all();
        if gives_back {
            drop(self.write_guard());
        }
    }
}
