//! Which read slots linger: their lock stays for a moment when a reader ends,
//! so that the next one needs no system call ([`WalCoordination::linger`]).
//!
//! # Protocol
//! A lock that lingers is that of a reader that is not there, so it must not
//! keep a log from being checkpointed and from beginning anew for long, with
//! whatever others do meanwhile:
//! - Slot 0 lingers: its reader has found all of the log in the database file,
//!   so a checkpoint has nothing to do before the next commit; and it holds up
//!   no restart.
//! - A slot with a mark lingers only if that was the end of the log, or close to
//!   it (see below), and the log shorter than what checkpoints usually wait for
//!   ([`CHECKPOINTED`]). In a longer one each reader gives its slot back, so a process that reads holds
//!   up no more checkpoints than one of stock SQLite.
//! - A process that takes another slot gives back what lingers.
//!
//! To move a mark costs three system calls, so beside a busy writer a reader of
//! each new state would pay them for each commit. It may read at the mark that
//! lingers, though others have committed since: a mark may be anywhere at or
//! below the snapshot. It keeps a checkpoint from going on to the snapshot for
//! as long, so the mark is moved once it is [`FRESH`] no more, and in a log that
//! is not short each reader has a mark of its own.
//!
//! Joining a lock that lingers is taking it: the mark and the header are
//! compared again once it is held, whoever took it from the system, and when.
//!
//! # Crash
//! The locks of the dead are free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{LockGuard, Wal};
use crate::coordination::{ReadSlot, WalCoordination};
use crate::error::Result;
use crate::index::IndexHeader;
use crate::testing::{Mutation, mutated};
use crate::waiting::{between, now};

/// A log of this many frames is checkpointed by whoever does it automatically
/// (`SQLITE_DEFAULT_WAL_AUTOCHECKPOINT`).
const CHECKPOINTED: u32 = 1000;

/// How long a mark is good enough for newer snapshots.
const FRESH: Duration = Duration::from_millis(2);

/// The slot with a mark that lingers, as far as this attachment knows. It may be
/// wrong at any time: who takes the slot looks at its mark again.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// 0 for none.
    slot: AtomicU32,
    /// When this attachment set the mark of each slot last, by the clock of the
    /// machine.
    set_at: [AtomicU32; ReadSlot::ALL.len()],
}

impl Lingering {
    /// `slot` was given back, and is kept or not.
    pub(super) fn note(&self, slot: ReadSlot, kept: bool) {
        let slot = u32::try_from(slot.index()).unwrap_or(0);
        let now = if kept { slot } else { 0 };
        // Readers of all threads pass here, and it hardly ever changes.
        if self.slot.load(Ordering::Relaxed) != now {
            self.slot.store(now, Ordering::Relaxed);
        }
    }

    /// The mark of `slot` was set.
    pub(super) fn mark_is_set(&self, slot: ReadSlot) {
        self.set_at[slot.index()].store(now(), Ordering::Relaxed);
    }

    fn slot(&self) -> Option<ReadSlot> {
        let slot = self.slot.load(Ordering::Relaxed) as usize;
        ReadSlot::MARKED
            .into_iter()
            .find(|marked| marked.index() == slot)
    }

    fn is_fresh(&self, slot: ReadSlot) -> bool {
        between(self.set_at[slot.index()].load(Ordering::Relaxed), now()) < FRESH
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Takes the slot that lingers, if its mark is good enough for a snapshot of
    /// `max_frame` frames.
    pub(super) fn join_lingering_mark(
        self: &Arc<Self>,
        max_frame: u32,
    ) -> Result<Option<LockGuard<C>>> {
        let Some(slot) = self.lingering.slot() else {
            return Ok(None);
        };
        let mark = self.coordination.mark(slot);
        // At mark 0 nothing could be backfilled at all.
        let is_behind = 0 < mark && mark < max_frame && max_frame < CHECKPOINTED;
        let is_fresh = || self.lingering.is_fresh(slot) || mutated(Mutation::JoinStaleMark);
        if mark != max_frame && !(is_behind && is_fresh()) {
            return Ok(None);
        }
        let mut guard = self.try_lock_mark(slot, mark)?;
        if let Some(guard) = &mut guard
            && is_behind
        {
            guard.let_linger();
        }
        Ok(guard)
    }

    /// Whether `slot` may linger behind a reader of the state that `header`
    /// publishes, with all before `min_frame` in the database file.
    pub(super) fn may_linger(&self, slot: ReadSlot, header: &IndexHeader, min_frame: u32) -> bool {
        let max_frame = header.max_frame();
        if slot == ReadSlot::DATABASE {
            return true;
        }
        min_frame <= max_frame
            && max_frame < CHECKPOINTED
            && self.coordination.mark(slot) == max_frame
    }
}
