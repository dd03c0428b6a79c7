//! The seam between the protocol and its backends.
//!
//! A coordination is **memory, locks and wake-ups**, and nothing else. The
//! protocol in [`crate::protocol`] is written once on it.
//!
//! # Contract
//! Every backend keeps these rules; the conformance suite (the
//! crate `wal-conformance`) checks them.
//!
//! 1. *Blocks stay.* A block that was returned once is returned again, at the
//!    same address, as long as the coordination lives, and is the same memory
//!    for every user of the database.
//! 2. *Blocks are real.* After [`WalCoordination::grow`] the memory of the
//!    block is allocated: a full disk is an error there and not a signal
//!    later.
//! 3. *Locks exclude.* At any moment a lock has one exclusive holder or any
//!    number of shared ones, over all users, threads of this process included.
//! 4. *Locks never block.* Taking one answers at once.
//! 5. *A span is taken whole or not at all.*
//! 6. *Locks order memory.* What a holder stored before it released a lock is
//!    visible to the next one that takes it in a mode that conflicts.
//! 7. *Locks die with their holder.* When a process is killed, its locks are
//!    free; nothing else of the state changes.
//! 8. *Marks.* [`WalCoordination::try_lock_mark`] succeeds only if the mark
//!    has the given value while the lock is held. A mark is stored only by the
//!    exclusive holder of its slot, and mark 0 is always 0.
//! 9. *Wake-ups are hints.* A waiter may wake for no reason, and looks again
//!    by itself within a bound: a short one where
//!    [`WalCoordination::HAS_STRANGERS`] says that there may be users who wake
//!    nobody.
//! 10. *No wake-up is lost.* If a word is changed and its sleepers are woken
//!     after a sleeper has read it, its sleep ends without waiting for the
//!     deadline.
//! 11. *Delayed release looks like a reader.* A slot that was released by
//!     [`WalCoordination::unlock_delayed`] is free at once for every user of the same
//!     attachment. A backend may keep its lock from peers for a bounded time after the
//!     last reader, and only
//!     - for a process that reads often, not after a few reads,
//!     - while the slot [serves the newest state](crate::protocol::serves_newest),
//!     - with a note in [`WaitingRoom::delayed`], and until [`WaitingRoom::reclaim`] is
//!       notified, where there is a waiting room.
//!
//!     A backend may refuse a slot with a mark for a moment although it is free, so that a
//!     peer gets it; not to a caller that holds it already.
//! 12. *What is lowered is shared.* After [`WalCoordination::lower`] has
//!     answered true the caller holds the slot as if it had taken it shared by
//!     its mark, and after any other answer not at all.
//! 13. *A mark is raised under its only reader.* [`WalCoordination::raise_mark`] stores a
//!     mark only while the caller's hold is the only one, and lets no other holder in
//!     between: no user is granted the slot with the mark that it had before.

#![allow(unsafe_code)] // What gives a lock up is unsafe to call: pages are read under it.

use std::sync::atomic::AtomicU32;
use std::time::Instant;

use crate::error::Result;
use crate::index::{IndexBlock, WritableBlock};
use crate::types::{Lock, LockMode, ReadSlot};
use crate::wait::WaitingRoom;

/// Memory, locks and wake-ups between all users of one database.
///
/// The numbered contract stands in the [module docs](self). An implementation that breaks
/// it loses commits, but takes no safe code to undefined behaviour: pages of a mapping are
/// only handed out by an attachment whose maker has promised that the contract is kept
/// ([`crate::protocol::Wal::new_mapped`]), and the memory of a block takes no store that
/// its type does not allow ([`WritableBlock`]). To give a lock up is `unsafe` to call,
/// because such an attachment may share the lock.
pub trait WalCoordination: Send + Sync + 'static {
    /// Whether there may be users that know nothing of the waiting room, as
    /// stock SQLite: they wake nobody when they commit or release a lock.
    const HAS_STRANGERS: bool;

    /// Block `index` of the wal-index, if it is there (rule 1), to be loaded from.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be reached.
    fn block(&self, index: u32) -> Result<Option<&IndexBlock>>;

    /// Block `index`, to be stored to; made if it is not there, for which the caller
    /// holds Write. A new block is all zero (rule 2).
    ///
    /// # Errors
    /// [`crate::Error::Io`] if there is no room, [`crate::Error::ReadOnly`] if the
    /// memory may not be written.
    fn grow(&self, index: u32) -> Result<&WritableBlock>;

    /// Takes `lock`, or answers false if it conflicts with another holder
    /// (rules 3 to 6). Only [`crate::protocol`]'s guard calls this, so that
    /// every lock is released exactly once.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the system refuses for another reason.
    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool>;

    /// Takes slot `slot` shared if its mark is `mark` (rule 8).
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`].
    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool>;

    /// Takes slot `slot`, which the caller holds shared, once more. A backend answers
    /// false only if it cannot tell that from others who want the slot.
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`].
    ///
    /// # Safety
    /// The caller holds `slot` shared until this returns. Otherwise a hold that nothing
    /// excludes may count as a lock.
    unsafe fn lock_again(&self, slot: ReadSlot) -> Result<bool> {
        self.try_lock(Lock::Read(slot), LockMode::Shared)
    }

    /// Releases `lock`, which the caller holds in `mode`.
    ///
    /// ```compile_fail,E0133
    /// use wal_core::{Lock, LockMode, WalCoordination};
    ///
    /// fn release(coordination: &impl WalCoordination) {
    ///     coordination.unlock(Lock::Write, LockMode::Exclusive);
    /// }
    /// ```
    ///
    /// # Safety
    /// The caller holds `lock` in `mode`, by a call on this coordination that was granted
    /// and not released since, and gives that hold up. Pages of mapped files that were
    /// read under it are not looked at any more.
    unsafe fn unlock(&self, lock: Lock, mode: LockMode);

    /// Turns the caller's exclusive hold of slot `slot`, whose mark it has set to
    /// `mark`, into a shared one (rule 12). False if somebody came in between,
    /// which a backend that can lower a lock in one step does not let happen.
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`]; the slot is not held then.
    ///
    /// # Safety
    /// The caller holds `slot` exclusively, and gives that hold up.
    unsafe fn lower(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        // SAFETY: the caller holds it so.
        unsafe { self.unlock(Lock::Read(slot), LockMode::Exclusive) };
        self.try_lock_mark(slot, mark)
    }

    /// Raises the mark of slot `slot`, which the caller holds shared and goes on holding,
    /// to `mark`, if the caller is its only holder (rule 13). A backend that cannot tell
    /// answers false, and the mark stays.
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`]; the slot is held, and its mark stays.
    ///
    /// # Safety
    /// The caller holds `slot` shared until this returns, and looks at no page that was
    /// read for a snapshot older than `mark`: a checkpoint may go as far as the mark.
    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        let _ = (slot, mark);
        Ok(false)
    }

    /// Releases `slot`, which the caller holds shared. A backend may keep its lock for the
    /// next reader (rule 11).
    ///
    /// # Safety
    /// As [`WalCoordination::unlock`].
    unsafe fn unlock_delayed(&self, slot: ReadSlot) {
        // SAFETY: the caller holds it so.
        unsafe { self.unlock(Lock::Read(slot), LockMode::Shared) };
    }

    /// The processes that hold `lock`, as far as that can be told. It is for
    /// messages: they may hold it no more. Each number is that of a process which the caller
    /// sees: none is 0, or of another namespace of process numbers.
    fn holders(&self, lock: Lock) -> Vec<u32>;

    /// The mark of `slot`.
    fn mark(&self, slot: ReadSlot) -> u32;

    /// Stores the mark of `slot`, of which the caller is the exclusive holder.
    ///
    /// # Safety
    /// The caller holds `slot` exclusively: a checkpoint goes by the mark while it writes
    /// the file that readers of the slot have mapped.
    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32);

    /// The memory in which the users wait for each other. `None` if there is
    /// none: whoever waits then looks again now and then.
    fn waiting_room(&self) -> Option<&WaitingRoom>;

    /// Sleeps until `word` of the waiting room is not `seen` any more and
    /// somebody wakes its sleepers, or until `deadline`, or less (rules 9 and
    /// 10).
    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant);

    /// Wakes everybody who sleeps on `word`, which was changed.
    fn wake(&self, word: &AtomicU32);

    /// Ends this user's attachment; called once, by the last act of a handle.
    /// True if it was the last user of all: it then owns the database, and
    /// nobody can attach until the coordination is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the system refuses for another reason than
    /// other users.
    fn leave(&self) -> Result<bool>;

    /// Removes the wal-index from the file system. The caller owns the
    /// database ([`WalCoordination::leave`]), and the log is backfilled.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be removed.
    fn remove(&self) -> Result<()>;
}
