//! The lock of a read slot: a [`PackedLock`] for each stripe, so that readers on
//! different processors do not wait for each other.
//!
//! # Protocol
//! A reader takes the lock of its stripe, with the mark in the same word, or that of
//! another one if it is refused. Whoever wants the slot alone takes the locks of all
//! stripes, one after the other, and gives them back if one is refused, because a
//! reader is in there; so who holds the slot can always take it once more, and a
//! reader that comes while somebody tries is seldom refused. The mark is stored in each
//! of them while all are held, so it stands still under every reader.
//!
//! A reader that leaves on another thread takes a hold from any stripe; only their
//! number matters to who wants the slot alone.
//!
//! A reader that is the only one raises the mark in place ([`SlotLock::try_upgrade`]): it
//! turns its hold into the exclusive one, acquires the other stripes, stores the mark, and
//! downgrades. In between its hold is in none of the counts, so another reader that
//! leaves, or takes the slot again, finds its own.

use std::fmt;

use crossbeam_utils::CachePadded;
use wal_core::stripes;

use crate::packed_lock::PackedLock;

/// A read slot and its mark.
pub struct SlotLock {
    stripes: Box<[CachePadded<PackedLock>]>,
}

impl fmt::Debug for SlotLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers: u32 = self.stripes.iter().map(|stripe| stripe.readers()).sum();
        f.debug_struct("SlotLock")
            .field("stripes", &self.stripes.len())
            .field("mark", &self.mine().value())
            .field("readers", &readers)
            .field("write_locked", &self.mine().is_write_locked())
            .finish()
    }
}

impl SlotLock {
    /// A slot that nobody holds, with `mark`.
    #[must_use]
    pub fn new(mark: u32) -> Self {
        Self::with_stripes(stripes::count(), mark)
    }

    /// As [`SlotLock::new`], with `count` stripes, a power of two.
    #[must_use]
    pub fn with_stripes(count: usize, mark: u32) -> Self {
        let lock = || CachePadded::new(PackedLock::new(mark));
        SlotLock {
            stripes: (0..count).map(|_| lock()).collect(),
        }
    }

    #[inline]
    fn mine(&self) -> &PackedLock {
        stripes::mine::<CachePadded<_>>(&self.stripes)
    }

    /// Takes the slot shared. `false` while somebody has it alone, or is about to find
    /// out that nobody holds it; never if the caller holds it.
    #[inline]
    #[must_use = "a lock that was taken has to be released"]
    pub fn try_read(&self) -> bool {
        self.take(PackedLock::try_read)
    }

    /// As [`SlotLock::try_read`], and `false` if the mark is not `mark`.
    #[inline]
    #[must_use = "a lock that was taken has to be released"]
    pub fn try_read_if(&self, mark: u32) -> bool {
        self.take(|lock| lock.try_read_if(mark))
    }

    #[inline]
    fn take(&self, take: impl Fn(&PackedLock) -> bool) -> bool {
        let mine = self.mine();
        take(mine) || self.others(mine).any(take)
    }

    /// The locks of all stripes but that of `mine`.
    fn others<'s>(&'s self, mine: &'s PackedLock) -> impl Iterator<Item = &'s PackedLock> {
        let locks = self.stripes.iter().map(|lock| &**lock);
        locks.filter(move |lock| !std::ptr::eq(*lock, mine))
    }

    /// Takes the slot alone. `false` while anybody has it.
    #[must_use = "a lock that was taken has to be released"]
    pub fn try_write(&self) -> bool {
        // A hint, so that seldom a reader is refused for the sake of who is refused too.
        // Models are without: each value that it may have had is one more way to go.
        if cfg!(not(loom)) && self.stripes.iter().any(|lock| lock.readers() > 0) {
            return false;
        }
        for (taken, lock) in self.stripes.iter().enumerate() {
            if !lock.try_write() {
                self.stripes[..taken]
                    .iter()
                    .for_each(|lock| lock.unlock_write());
                return false;
            }
        }
        true
    }

    /// Turns the caller's shared hold into the exclusive one, if it is the only hold of the
    /// slot, with no other holder in between. `false` if there are others; the caller then
    /// still holds the slot shared.
    ///
    /// The hold may be in any stripe. Where there is one reader in all, it is the caller;
    /// the other stripes are acquired as by [`SlotLock::try_write`].
    #[must_use = "the slot is held exclusively only after `true`"]
    pub fn try_upgrade(&self) -> bool {
        // A hint, as in `try_write`.
        let readers = || self.stripes.iter().map(|lock| lock.readers()).sum::<u32>();
        if cfg!(not(loom)) && readers() != 1 {
            return false;
        }
        let Some(upgraded) = self.stripes.iter().position(|lock| lock.try_upgrade()) else {
            return false;
        };
        let others = || (0..self.stripes.len()).filter(|&at| at != upgraded);
        for at in others() {
            if !self.stripes[at].try_write() {
                let taken = others().take_while(|&other| other < at);
                taken.for_each(|other| self.stripes[other].unlock_write());
                self.stripes[upgraded].downgrade();
                return false;
            }
        }
        true
    }

    /// Turns the hold of the caller, who has the slot alone, into a shared one, with
    /// nobody in between who has it alone.
    pub fn downgrade(&self) {
        let mine = self.mine();
        mine.downgrade();
        self.others(mine).for_each(PackedLock::unlock_write);
    }

    /// Gives a shared hold back, taken by any thread.
    #[inline]
    pub fn unlock_read(&self) {
        let held = stripes::leave(&self.stripes, |lock| lock.try_unlock_read());
        debug_assert!(held, "shared release of a slot that has no readers");
    }

    /// Gives back what [`SlotLock::try_write`] took.
    pub fn unlock_write(&self) {
        self.stripes.iter().for_each(|lock| lock.unlock_write());
    }

    /// The mark: a hint, unless the caller holds the slot.
    #[inline]
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mine().value()
    }

    /// Changes the mark. Only who has the slot alone may.
    pub fn set_mark(&self, mark: u32) {
        self.stripes.iter().for_each(|lock| lock.set_value(mark));
    }
}
