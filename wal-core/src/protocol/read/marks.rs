//! Which slot a reader takes, and with which mark.
//!
//! # Protocol
//! A mark says how far a checkpoint may go while the slot is held, so it is at most the
//! last frame of every snapshot that is read at it. It changes only while the slot is
//! held exclusively; a new one is stored before others get in.
//!
//! # Ordering
//! Who joins a slot stores nothing that somebody has to see before it loads the header
//! again: who takes the slot exclusively changes the lock's word too. Who has set a mark
//! does, as a checkpoint passes over a slot by its mark alone; so a fence follows.
//!
//! # Crash
//! The mark of a dead reader holds nobody up: whoever can lock the slot exclusively may
//! change it.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::sync::{Ordering, fence};
use crate::testing::rule;
use crate::types::{Lock, LockMode, ReadSlot};

impl<C: WalCoordination> Wal<C> {
    /// The first frame of `header` that is not in the database file by the count, which
    /// is loaded before the header is compared again.
    pub(in crate::protocol) fn first_in_log(&self, header: &IndexHeader) -> Result<u32> {
        let backfilled = self.checkpoint_info()?.backfilled_of(header);
        Ok(backfilled.saturating_add(1))
    }

    /// Takes a slot to read at in a log of `max_frame` frames: the one whose
    /// mark is just that, else one that nobody uses, with its mark set to
    /// that, else the one with the largest mark before.
    pub(super) fn lock_some_mark(self: &Arc<Self>, max_frame: u32) -> Result<Option<LockGuard<C>>> {
        let usable = |mark: u32| rule!(MarkWithinSnapshot, mark <= max_frame);
        let best = ReadSlot::MARKED
            .map(|slot| (slot, self.coordination().mark(slot)))
            .into_iter()
            .filter(|&(_, mark)| usable(mark))
            .max_by_key(|&(_, mark)| mark);
        if let Some((slot, mark)) = best
            && mark >= max_frame
            && let Some(guard) = self.try_lock_mark(slot, mark)?
        {
            return Ok(Some(guard));
        }
        match (claim_mark(self, max_frame)?, best) {
            (Some(exclusive), _) => {
                let downgraded = exclusive.downgrade();
                // The mark before the header that is compared then: a checkpoint that
                // has not seen the mark has loaded a header that this one sees. Pairs
                // with the fence in `Backfill::safe_frame`.
                rule!(MarkFence, {
                    fence(Ordering::SeqCst);
                });
                downgraded
            }
            (None, Some((slot, mark))) => self.try_lock_mark(slot, mark),
            // Who may write changes a mark as soon as a slot is free. Who may
            // not waits until another process does (`SQLITE_READONLY_CANTINIT`).
            (None, None) if self.config().read_only => Err(self.busy(Lock::ReadMarks)),
            (None, None) => Ok(None),
        }
    }

    /// Sees to it that there is a mark of at most `max_frame`: a writer at
    /// slot 0 that appends may leave the log without one, and a reader that
    /// may not change marks could not begin (`walRestartLog` takes a marked
    /// slot for the same purpose).
    pub(in crate::protocol) fn leave_usable_mark(self: &Arc<Self>, max_frame: u32) -> Result<()> {
        let usable = |&slot: &ReadSlot| self.coordination().mark(slot) <= max_frame;
        if !ReadSlot::MARKED.iter().any(usable) {
            claim_mark(self, max_frame)?;
        }
        Ok(())
    }
}

/// Sets the mark of a slot that nobody uses, and holds that exclusively.
fn claim_mark<C: WalCoordination>(wal: &Arc<Wal<C>>, mark: u32) -> Result<Option<LockGuard<C>>> {
    for slot in ReadSlot::MARKED {
        let lock = Lock::Read(slot);
        let Some(exclusive) = wal.try_lock(lock, LockMode::Exclusive)? else {
            continue;
        };
        // Nobody reads at the slot while we hold it alone, so its mark
        // may change. It is stored before others get in.
        wal.set_mark(slot, mark);
        return Ok(Some(exclusive));
    }
    Ok(None)
}
