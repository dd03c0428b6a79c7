//! The interface between the protocol and its backends.
//!
//! A coordination is **memory, locks, read slots and wake-ups**, and nothing else. The
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
//! 4. *Locks never block.* A try to acquire one returns at once.
//! 5. *A span is acquired whole or not at all.*
//! 6. *Locks order memory.* What a holder stored before it released a lock is
//!    visible to the next holder in a mode that conflicts.
//! 7. *Locks die with their holder.* When a process is killed, its locks are
//!    free; nothing else of the state changes.
//! 8. *Marks.* [`WalCoordination::try_lock_mark`] succeeds only if the mark
//!    has the given value while the lock is held. A mark is stored only by the
//!    exclusive holder of its slot, and mark 0 is always 0.
//! 9. *Wake-ups are hints.* A waiter may wake without a reason, and checks its
//!    condition again within a bound: a short one where
//!    [`WalCoordination::HAS_FOREIGN_PEERS`] says that some users may wake no
//!    waiter.
//! 10. *No wake-up is lost.* If a word is changed and its sleepers are woken
//!     after a sleeper has read it, its sleep ends without waiting for the
//!     deadline.
//! 11. *Delayed release looks like a reader.* A slot that was released by
//!     [`WalCoordination::unlock_delayed`] is free at once for every user of the same
//!     attachment. A backend may keep its lock from peers for a bounded time after the
//!     last reader, and only
//!     - for a process that reads often, not after a few reads,
//!     - while the slot [serves the newest state](crate::index::serves_newest),
//!     - with a note in [`WaitState::delayed`], and until [`WaitState::reclaim`] is
//!       notified, where there is a wait state.
//!
//!     A backend may refuse a slot with a mark for a moment although it is free, so that a
//!     peer gets it; not to a caller that holds it already.
//! 12. *A downgrade has no gap.* After [`WalCoordination::downgrade`] returned true the
//!     caller holds the slot shared, and no other user held it exclusively in between; so
//!     its mark is the one that the caller stored. After any other result the caller does
//!     not hold the slot.
//! 13. *A mark is raised under its only reader.* [`WalCoordination::raise_mark`] stores a
//!     mark only while the caller's hold is the only one, and lets no other holder in
//!     between: no user is granted the slot with the mark that it had before.

#![allow(unsafe_code)] // Releasing a lock is unsafe to call: pages are read under it.

use std::time::Instant;

use crate::error::Result;
use crate::index::{IndexBlock, WritableBlock};
use crate::sync::AtomicU32;
use crate::types::{Lock, LockMode, ReadSlot};
use crate::wait::WaitState;

/// Memory, locks, read slots and wake-ups between all users of one database.
///
/// The numbered contract stands in the [module docs](self). An implementation that breaks
/// it loses commits, but takes no safe code to undefined behaviour: pages of a mapping are
/// only handed out by an attachment whose maker has promised that the contract is kept
/// ([`crate::protocol::Wal::new_mapped`]), and the memory of a block takes no store that
/// its type does not allow ([`WritableBlock`]). Releasing a lock is `unsafe` to call,
/// because such an attachment may share the lock.
pub trait WalCoordination: Send + Sync + 'static {
    // Memory: the blocks of the wal-index, from the first to the removal of all.

    /// Block `index` of the wal-index, if it exists (rule 1), to be loaded from.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be reached.
    fn block(&self, index: u32) -> Result<Option<&IndexBlock>>;

    /// Block `index`, to be stored to. It is made if it does not exist, for which the
    /// caller holds `WRITE`. A new block is all zero (rule 2).
    ///
    /// # Errors
    /// [`crate::Error::Io`] if there is no room, [`crate::Error::ReadOnly`] if the
    /// memory may not be written.
    fn grow(&self, index: u32) -> Result<&WritableBlock>;

    /// Ends this user's attachment; called once, by the last act of a handle.
    /// True if it was the last user of all: it then owns the database, and
    /// no other user can attach until the coordination is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the system refuses for another reason than
    /// other users.
    fn detach(&self) -> Result<bool>;

    /// Removes the wal-index from the file system. The caller owns the
    /// database ([`WalCoordination::detach`]), and the log is backfilled.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be removed.
    fn remove(&self) -> Result<()>;

    // Locks: any of the eight, or a span of them.

    /// Acquires `lock`, or returns false if it conflicts with another holder
    /// (rules 3 to 6). Only [`crate::protocol`]'s guard calls this, so that
    /// every lock is released exactly once.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the system refuses for another reason.
    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool>;

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
    /// and not released since, and ends that hold. Pages of mapped files that were
    /// read under it are not used any more.
    unsafe fn unlock(&self, lock: Lock, mode: LockMode);

    /// The processes that hold `lock`, as far as the backend can find out. It is for
    /// messages: they may have released it since. Each number is that of a process which the
    /// caller sees: none is 0, or of another namespace of process numbers.
    fn holders(&self, lock: Lock) -> Vec<u32>;

    // Slots: the locks `READ(k)` together with their marks.

    /// Acquires slot `slot` shared if its mark is `mark` (rule 8).
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`].
    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool>;

    /// Acquires slot `slot` shared, which the caller holds shared, once more. A backend
    /// returns false only if it cannot tell that from a new user of the slot.
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`].
    ///
    /// # Safety
    /// The caller holds `slot` shared until this returns. Otherwise a hold that nothing
    /// excludes may count as a lock.
    unsafe fn relock_shared(&self, slot: ReadSlot) -> Result<bool> {
        self.try_lock(Lock::Read(slot), LockMode::Shared)
    }

    /// Turns the caller's exclusive hold of slot `slot` into a shared one, in one step
    /// (rule 12). A release followed by a try is not one: another user may acquire the slot
    /// in between, and store a mark of its own.
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`]; the slot is not held then.
    ///
    /// # Safety
    /// The caller holds `slot` exclusively, and ends that hold.
    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool>;

    /// Releases `slot`, which the caller holds shared. A backend may keep its lock for the
    /// next reader (rule 11).
    ///
    /// # Safety
    /// As [`WalCoordination::unlock`].
    unsafe fn unlock_delayed(&self, slot: ReadSlot) {
        // SAFETY: the caller holds it so.
        unsafe { self.unlock(Lock::Read(slot), LockMode::Shared) };
    }

    /// The mark of `slot`.
    fn mark(&self, slot: ReadSlot) -> u32;

    /// Stores the mark of `slot`, of which the caller is the exclusive holder.
    ///
    /// # Safety
    /// The caller holds `slot` exclusively: a checkpoint goes by the mark while it writes
    /// the file that readers of the slot have mapped.
    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32);

    /// Raises the mark of slot `slot`, which the caller holds shared and continues to hold,
    /// to `mark`, if the caller is its only holder (rule 13). A backend that cannot find out
    /// returns false, and the mark stays.
    ///
    /// # Errors
    /// As [`WalCoordination::try_lock`]; the slot is held, and its mark stays.
    ///
    /// # Safety
    /// The caller holds `slot` shared until this returns, and uses no page that was
    /// read for a snapshot older than `mark`: a checkpoint may go as far as the mark.
    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        let _ = (slot, mark);
        Ok(false)
    }

    // Wake-ups: sleeping on a word that other users change.

    /// Whether some users may not know the wait state, as stock SQLite: these wake no
    /// waiter when they commit or release a lock.
    const HAS_FOREIGN_PEERS: bool;

    /// The memory in which the users wait for each other. `None` if there is
    /// none: a waiter then checks its condition at intervals.
    fn wait_state(&self) -> Option<&WaitState>;

    /// Sleeps until `word` of the wait state is not `seen` any more and
    /// its sleepers are woken, or until `deadline`, or less (rules 9 and 10).
    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant);

    /// Wakes every sleeper on `word`, which the caller has changed.
    fn wake(&self, word: &AtomicU32);
}
