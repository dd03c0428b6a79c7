//! How far the log is moved to the database file, and who is waited for.
//!
//! # Protocol
//! A checkpointer holds Checkpoint throughout, and never waits for it. It
//! copies up to the smallest mark that a reader holds ([`crate::protocol::checkpoint::backfill`]).
//! The modes beyond Passive take Write too, so that nothing is added
//! meanwhile, and wait for readers that are in the way; if Write is not to be
//! had they do what Passive does, and say so. Restart then waits until nobody
//! reads the log, which lets the next writer begin it anew. Truncate begins
//! it anew itself and cuts the file (`sqlite3WalCheckpoint`, `walCheckpoint`).
//!
//! Locks are taken in the order Checkpoint, Write, Read; nobody waits for
//! Checkpoint while holding one of the others, so there is no deadlock.
//!
//! # Crash
//! The locks go with the process. A log that was begun anew but not cut holds
//! frames of an old generation, which are all in the database file.

use std::sync::Arc;
use std::time::Instant;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::checkpoint::backfill::{Backfill, ThenLog};
use crate::protocol::checkpoint::bounded::Bounded;
use crate::protocol::checkpoint::options::{
    CheckpointMode, CheckpointOptions, CheckpointReport, HeldBack,
};
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::Waiter;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::guard::LocksHeld;
use crate::types::{Lock, LockMode};

/// The locks of a checkpoint, released in this order.
struct CheckpointGuard<C: WalCoordination> {
    /// `None` for Passive, and where another writer kept it.
    write: Option<LockGuard<C>>,
    checkpoint: LockGuard<C>,
}

impl<C: WalCoordination> Wal<C> {
    /// Runs a checkpoint of `mode` that waits for nobody.
    ///
    /// # Errors
    /// As [`Wal::checkpoint_with`].
    pub fn checkpoint(self: &Arc<Self>, mode: CheckpointMode) -> Result<CheckpointReport> {
        self.checkpoint_with(CheckpointOptions::new(mode))
    }

    /// Copies frames to the database file, and tells how far that got and who
    /// was in the way. Being held back is no error.
    ///
    /// # Errors
    /// [`crate::Error::Busy`] if another checkpoint is running or a header is
    /// being published, whatever the busy handler says, or if a sync of the log
    /// has failed and Write, which mending it takes, is not free;
    /// [`crate::Error::Cancelled`]; [`crate::Error::Poisoned`] after a failed
    /// sync; [`crate::Error::Corrupt`] if the log speaks of more pages than
    /// there can be; [`crate::Error::Io`].
    pub fn checkpoint_with(
        self: &Arc<Self>,
        options: CheckpointOptions<'_>,
    ) -> Result<CheckpointReport> {
        self.check_writable()?;
        #[cfg(feature = "observe")]
        let mode = options.mode;
        let report = match options.max_block {
            Some(bound) if options.mode != CheckpointMode::Passive => {
                Bounded::new(self, &options, bound).run(options.progress)?
            }
            _ => run_checkpoint(self, options)?,
        };
        observe!(
            self,
            Checkpointed {
                mode: &mode,
                report: &report,
                is_held_back: report.held_back_by.is_some()
            }
        );
        Ok(report)
    }

    pub(in crate::protocol) fn held_back(&self, lock: Lock, mark: Option<u32>) -> HeldBack {
        HeldBack {
            lock,
            mark,
            holders: self.coordination().holders(lock),
        }
    }
}

fn run_checkpoint<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    options: CheckpointOptions<'_>,
) -> Result<CheckpointReport> {
    let mut waiter = Waiter::new(options.busy);
    let guard = acquire_checkpoint_guard(wal, options.mode, options.names_holders, &mut waiter)?;
    let began = Instant::now();
    let held = LocksHeld {
        write: guard.write.as_ref(),
        checkpoint: Some(&guard.checkpoint),
    };
    let header = wal.settled_header(&held)?;
    wal.mend_log_for_checkpoint(&header, guard.write.is_some())?;
    let progress = options.progress.map(|progress| progress as _);
    // Dropped before `guard`.
    let _staying = guard
        .write
        .as_ref()
        .map(|_| wal.own_write().begin_operation());
    // Without Write nobody is waited for: new readers and commits would
    // come for ever.
    let patient = guard.write.is_some();
    let mut backfill = Backfill::new(wal, header, progress, &mut waiter, patient);
    backfill.names_holders = options.names_holders;
    let mut report = backfill.run(options.up_to)?;
    if options.mode == CheckpointMode::Passive {
        return Ok(report);
    }
    if guard.write.is_none() {
        report.held_back_by = Some(wal.held_back(Lock::Write, None));
    } else if report.is_complete() && options.mode >= CheckpointMode::Restart {
        let then = match options.mode {
            CheckpointMode::Truncate => ThenLog::IsCut,
            _ if options.begins_anew => ThenLog::BeginsAnew,
            _ => ThenLog::Stays,
        };
        backfill.shut_readers_out(then, &mut report)?;
    }
    if guard.write.is_some() {
        report.writers_held_up = began.elapsed();
    }
    Ok(report)
}

/// Acquires `CKPT` without waiting, and `WRITE` for a mode beyond Passive, waiting as
/// `waiter` says. `READ(0)` is acquired only where there is something to copy
/// ([`Backfill`]).
fn acquire_checkpoint_guard<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    mode: CheckpointMode,
    names_holders: bool,
    waiter: &mut Waiter,
) -> Result<CheckpointGuard<C>> {
    let checkpoint = wal
        .try_lock(Lock::Checkpoint, LockMode::Exclusive)?
        .ok_or_else(|| match names_holders {
            true => wal.busy(Lock::Checkpoint),
            false => wal.busy_again(Lock::Checkpoint),
        })?;
    let write = match mode {
        CheckpointMode::Passive => None,
        _ => wal.wait_for_lock(Lock::Write, waiter)?,
    };
    Ok(CheckpointGuard { write, checkpoint })
}
