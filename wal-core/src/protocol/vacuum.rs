//! Shuts out every reader and writer of every process, stock SQLite included.
//!
//! SQLite has no lock for this; Checkpoint, Write, then Read 0–4 exclusively
//! are enough for any peer that keeps the protocol. They are taken in the
//! order in which everybody takes them and never waited for, so there is no
//! deadlock. Both backends get it from their ordinary locks.

use std::sync::Arc;

use super::{LockGuard, Wal};
use crate::coordination::{Lock, LockMode, WalCoordination};
use crate::error::Result;

/// While this is held, nobody else reads, writes or checkpoints.
///
/// Hold it briefly: after about ten seconds stock SQLite gives up with
/// `SQLITE_PROTOCOL`, which its busy handler does not retry.
#[derive(Debug)]
pub struct VacuumLockGuard<C: WalCoordination> {
    _readers: LockGuard<C>,
    _write: LockGuard<C>,
    _checkpoint: LockGuard<C>,
}

impl<C: WalCoordination> Wal<C> {
    /// Shuts out everybody else, if that can be done at once.
    ///
    /// # Errors
    /// [`crate::Error::Busy`] with the lock that somebody holds, and what
    /// [`Wal::begin_write`] gives.
    pub fn try_vacuum_lock(self: &Arc<Self>) -> Result<VacuumLockGuard<C>> {
        self.check_writable()?;
        let take = |lock| {
            let held = self.try_lock(lock, LockMode::Exclusive)?;
            held.ok_or_else(|| self.busy(lock))
        };
        let checkpoint = take(Lock::Checkpoint)?;
        let write = take(Lock::Write)?;
        let readers = take(Lock::Readers)?;
        Ok(VacuumLockGuard {
            _readers: readers,
            _write: write,
            _checkpoint: checkpoint,
        })
    }
}
