//! One sync for the commits of several threads of an attachment, before anybody
//! reads them.
//!
//! # Protocol
//! At [`crate::protocol::Synchronous::Full`] a commit is synced, then published, and Write
//! is held until then. The sync takes many times as long as the rest, and needs
//! nothing of Write but that nobody else has it. So the thread that commits
//! writes its frames, leaves them *unpublished*, and lets the attachment *keep*
//! Write, which another of its threads takes over that waits for it, and begins on
//! the state that the first one left. Meanwhile one of those who have committed
//! leads: it
//! 1. looks which unpublished commit is the newest;
//! 2. syncs the log, which has the frames of all up to that one;
//! 3. publishes it, and the older ones with it.
//!
//! The lock is given back once all is published and no thread writes. Until then it
//! is taken over within one turn only ([`crate::wait::WriterQueue`]), so that others
//! wait for that, for the transaction that runs at its end, for what is left of a
//! sync, and for one more.
//!
//! | unpublished | leads | Write is | then |
//! |---|---|---|---|
//! | nothing | nobody | free, or a thread's | as without a relay |
//! | something | nobody | kept, or a thread's | the first who waits for a commit leads |
//! | something | somebody | kept, or a thread's | it publishes, and gives back what is kept if no more was left meanwhile |
//! | for good, as a sync has failed | somebody | kept, or a thread's | it steps down, and gives back what is kept |
//! | for good | nobody | free, or a thread's | the attachment is poisoned: nothing is left here any more |
//!
//! Who reads, here or elsewhere, goes by the header, and sees what is durable.
//! Only a write transaction that took Write over sees what is not; its commit or
//! rollback returns when that is.
//!
//! A commit that is published in another way (of another level, of an engine's
//! frames), and whatever writes the log again, waits until nothing is unpublished.
//!
//! # Ordering
//! The state is behind a mutex. Whoever has Write took it over through that mutex
//! or through the lock, so it sees the frames and entries of those before. The one
//! word beside it says that something is unpublished: who finds that nothing is any
//! more acquires the header that the leader has stored.
//!
//! # Crash
//! What is unpublished when the process dies lies above the header: the next
//! writer trims it. If the index is rebuilt from the log it may be there, as any
//! commit that died before its sync. After a sync that failed nothing of it is
//! published any more, and the attachment is poisoned.

#![allow(unsafe_code)] // `WRITE` is held for a while without a guard.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::IndexHeader;
use crate::protocol::durability::pipeline::{Commit, State};
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::sync::{MutexGuard, Ordering, wait_while};
use crate::testing::{Point, rule, step};
use crate::wait::{QueueSlot, now, yield_until};

/// A commit that its thread has left unpublished, and waits for.
pub(in crate::protocol) struct Unpublished<C: WalCoordination> {
    wal: Arc<Wal<C>>,
    number: u64,
    is_waited_for: bool,
}

impl<C: WalCoordination> Unpublished<C> {
    /// Returns once it is durable, and published. Write was given up before.
    ///
    /// # Errors
    /// As [`wait_until_published`].
    pub(in crate::protocol) fn wait(mut self) -> Result<()> {
        let waited = wait_until_published(&self.wal, self.number);
        self.is_waited_for = true;
        waited
    }
}

impl<C: WalCoordination> Drop for Unpublished<C> {
    /// A thread that panics in between may leave nobody to publish what it has
    /// written.
    fn drop(&mut self) {
        if !self.is_waited_for {
            rule!(PanicPoisons, {
                self.wal.poison();
            });
            let mut state = self.wal.durability_state().pipeline().state();
            state.has_failed = true;
            rule!(PanicSettles, {
                settle(&self.wal, state);
            });
        }
    }
}

/// Leads until it is dropped.
struct Lead<'w, C: WalCoordination> {
    wal: &'w Arc<Wal<C>>,
    /// The number of what is published by now.
    reached: Option<u64>,
}

impl<C: WalCoordination> Wal<C> {
    /// Says that the caller, who has Write, has written all of a commit that
    /// makes the state `header`, and leaves it to be published.
    ///
    /// # Errors
    /// [`Error::CommitOutcomeUnknown`] if it never will be.
    pub(in crate::protocol) fn leave_unpublished(
        self: &Arc<Self>,
        header: IndexHeader,
    ) -> Result<Unpublished<C>> {
        let mut state = self.durability_state().pipeline().state();
        if state.has_failed {
            return Err(self.outcome_unknown(self.failed_elsewhere()));
        }
        let number = state.newest.map_or(0, |newest| newest.number) + 1;
        state.newest = Some(Commit { number, header });
        self.durability_state().pipeline().tell_unpublished(&state);
        Ok(Unpublished {
            wal: self.clone(),
            number,
            is_waited_for: false,
        })
    }

    /// Keeps Write, which no guard has any more, for another thread and until all
    /// is published; false if the lock is to be given back at once.
    pub(in crate::protocol) fn keep_write(&self) -> bool {
        if !self
            .durability_state()
            .pipeline()
            .has_unpublished
            .load(Ordering::Acquire)
        {
            return false;
        }
        let mut state = self.durability_state().pipeline().state();
        // After a failure nothing more is published; but a leader may yet store a header.
        let is_over = state.has_failed && rule!(LeaderKeepsWrite, !state.is_led);
        let is_kept = state.unpublished().is_some() && !is_over;
        state.is_kept = is_kept;
        wake_heir(self, state);
        is_kept
    }

    /// True if the attachment has Write, and no thread writes.
    #[cfg(all(feature = "step-points", not(loom)))]
    #[doc(hidden)]
    pub fn is_write_kept(&self) -> bool {
        self.durability_state().pipeline().state().is_kept
    }

    /// How many threads of the attachment sleep until a commit is published.
    #[cfg(all(feature = "step-points", not(loom)))]
    #[doc(hidden)]
    pub fn publish_sleepers(&self) -> u32 {
        self.durability_state().pipeline().state().sleepers
    }

    /// How many threads of the attachment stand in line as heirs.
    #[cfg(all(feature = "step-points", not(loom)))]
    #[doc(hidden)]
    pub fn heirs(&self) -> usize {
        self.durability_state().pipeline().state().heirs.len()
    }

    /// Lets the thread at `place` in line take Write over.
    pub(in crate::protocol) fn line_up_as_heir(&self, place: QueueSlot) {
        self.durability_state()
            .pipeline()
            .state()
            .heirs
            .push_back(place);
    }

    /// The thread at `place` does not wait any more. It may have been woken for
    /// nothing, and another one is.
    pub(in crate::protocol) fn step_out_as_heir(&self, place: QueueSlot) {
        let mut state = self.durability_state().pipeline().state();
        rule!(LeaverIsNoSuccessor, {
            state.heirs.retain(|&heir| heir != place);
        });
        wake_heir(self, state);
    }

    /// Write, if it is kept and the turn goes on, whoever's it is; with the commit to
    /// begin on. Any thread that comes may have it: one that runs need not be woken,
    /// and who is woken in vain is woken again.
    pub(in crate::protocol) fn take_write_over(self: &Arc<Self>) -> Option<(LockGuard<C>, Commit)> {
        if !self
            .durability_state()
            .pipeline()
            .has_unpublished
            .load(Ordering::Acquire)
        {
            return None;
        }
        let mut state = self.durability_state().pipeline().state();
        let is_sound = rule!(InheritUnlessFailed, !state.has_failed);
        let may_be_had = state.is_kept && is_sound && slice_runs(self);
        let newest = state.newest.filter(|_| may_be_had)?;
        state.is_kept = false;
        // SAFETY: `is_kept` said that the attachment holds `WRITE` without a guard, and was
        // cleared under the mutex, so no other thread takes it.
        let write = unsafe { self.assume_write() };
        Some((write, newest))
    }

    /// Returns once nothing is unpublished. The caller has Write.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a sync has failed, [`Error::UsedAfterFork`].
    pub(in crate::protocol) fn publish_all(self: &Arc<Self>) -> Result<()> {
        if !self
            .durability_state()
            .pipeline()
            .has_unpublished
            .load(Ordering::Acquire)
        {
            return Ok(());
        }
        self.check_process()?;
        let unpublished = self.durability_state().pipeline().state().unpublished();
        unpublished.map_or(Ok(()), |commit| self.wait_for_base(commit.number))
    }

    /// As [`wait_until_published`], for who has not made that commit, and
    /// begins on it.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a sync has failed, [`Error::UsedAfterFork`].
    pub(in crate::protocol) fn wait_for_base(self: &Arc<Self>, number: u64) -> Result<()> {
        self.check_process()?;
        let poisoned = |_| Error::Poisoned {
            path: self.path().to_owned(),
        };
        wait_until_published(self, number).map_err(poisoned)
    }
}

impl<C: WalCoordination> Drop for Lead<'_, C> {
    /// Steps down. A sync that failed, or panicked, is the last one.
    fn drop(&mut self) {
        if self.reached.is_none() {
            rule!(FailedLeadPoisons, {
                self.wal.poison();
            });
        }
        let mut state = self.wal.durability_state().pipeline().state();
        state.is_led = false;
        match self.reached {
            Some(number) => state.published = number,
            None => state.has_failed = true,
        }
        settle(self.wal, state);
    }
}

/// Wakes the thread that has waited longest, if it may take Write over.
fn wake_heir<C: WalCoordination>(wal: &Wal<C>, state: MutexGuard<'_, State>) {
    let heir = state.heirs.front().filter(|_| state.is_kept).copied();
    drop(state);
    if let Some(place) = heir
        && let Some(wait_state) = wal.coordination().wait_state()
        && slice_runs(wal)
    {
        rule!(SuccessorNotified, {
            step(Point::Wake);
            wal.coordination()
                .wake(wait_state.writer_queue().signal(place));
        });
    }
}

fn slice_runs<C: WalCoordination>(wal: &Wal<C>) -> bool {
    let wait_state = wal.coordination().wait_state();
    rule!(
        InheritWithinTimeSlice,
        wait_state.is_some_and(|wait_state| wait_state.writer_queue().slice_runs(now()))
    )
}

/// Returns once the commit of that number is durable, and published.
///
/// # Errors
/// [`Error::CommitOutcomeUnknown`] if a sync has failed.
fn wait_until_published<C: WalCoordination>(wal: &Arc<Wal<C>>, number: u64) -> Result<()> {
    loop {
        let mut state = wal.durability_state().pipeline().state();
        if state.is_published(number) {
            return Ok(());
        }
        if state.has_failed {
            return Err(wal.outcome_unknown(wal.failed_elsewhere()));
        }
        if !state.is_led
            && let Some(newest) = state.newest
        {
            state.is_led = true;
            drop(state);
            lead_to(wal, newest)?;
            continue;
        }
        // They change behind the state, which is looked at again.
        let seen = wal
            .durability_state()
            .pipeline()
            .changes
            .load(Ordering::Relaxed);
        drop(state);
        let changes = || {
            wal.durability_state()
                .pipeline()
                .changes
                .load(Ordering::Relaxed)
                != seen
        };
        if !yield_until(changes) {
            let mut state = wal.durability_state().pipeline().state();
            let waits = |state: &mut State| {
                state.is_led && !state.is_published(number) && !state.has_failed
            };
            step(Point::WaitForSync);
            state.sleepers += 1;
            let changed = &wal.durability_state().pipeline().changed;
            wait_while(changed, state, waits).sleepers -= 1;
        }
    }
}

/// Syncs the log, which has the frames up to `commit`, and publishes that.
fn lead_to<C: WalCoordination>(wal: &Arc<Wal<C>>, commit: Commit) -> Result<()> {
    let mut lead = Lead { wal, reached: None };
    let block_zero = wal
        .writable_block_zero()
        .map_err(|e| wal.outcome_unknown(e))?;
    rule!(CommitSync, {
        step(Point::CommitSync);
        wal.sync_log().map_err(|e| wal.outcome_unknown(e))?;
    });
    wal.commit_prepared_frames(block_zero, &commit.header);
    lead.reached = Some(commit.number);
    Ok(())
}

/// Gives Write back if it is kept for nothing any more, and tells those who
/// wait what has become of `state`.
fn settle<C: WalCoordination>(wal: &Arc<Wal<C>>, mut state: MutexGuard<'_, State>) {
    let is_over = state.unpublished().is_none() || state.has_failed;
    let gives_back = state.is_kept && is_over && !state.is_led;
    state.is_kept &= !gives_back;
    wal.durability_state().pipeline().tell_unpublished(&state);
    wal.durability_state()
        .pipeline()
        .changes
        .fetch_add(1, Ordering::Relaxed);
    // A thread that counts itself later looks at the changed state first.
    let wakes = state.sleepers > 0;
    drop(state);
    if gives_back {
        // SAFETY: as in `take_write_over`: `is_kept` was set, and is cleared now.
        drop(unsafe { wal.assume_write() });
    }
    if wakes {
        wal.durability_state().pipeline().changed.notify_all();
    }
}
