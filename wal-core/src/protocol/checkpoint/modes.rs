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

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::Wal;
use crate::protocol::checkpoint::backfill::{Backfill, ThenLog};
use crate::protocol::checkpoint::options::{
    CheckpointMode, CheckpointOptions, CheckpointReport, HeldBack,
};
use crate::protocol::locking::busy::Waiter;
use crate::protocol::read::header::Held;
use crate::types::{Lock, LockMode};

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
        let report = self.run_checkpoint(options)?;
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

    fn run_checkpoint(
        self: &Arc<Self>,
        options: CheckpointOptions<'_>,
    ) -> Result<CheckpointReport> {
        let checkpoint = self
            .try_lock(Lock::Checkpoint, LockMode::Exclusive)?
            .ok_or_else(|| match options.names_holders {
                true => self.busy(Lock::Checkpoint),
                false => self.busy_again(Lock::Checkpoint),
            })?;
        let mut waiter = Waiter::new(options.busy);
        let write = match options.mode {
            CheckpointMode::Passive => None,
            _ => self.wait_for_lock(Lock::Write, &mut waiter)?,
        };
        let held = Held {
            write: write.as_ref(),
            checkpoint: Some(&checkpoint),
        };
        let header = self.settled_header(&held)?;
        self.mend_log_for_checkpoint(&header, write.is_some())?;
        let progress = options.progress.map(|progress| progress as _);
        // Dropped before `write`.
        let _staying = write.as_ref().map(|_| self.own_write().begin_operation());
        // Without Write nobody is waited for: new readers and commits would
        // come for ever.
        let patient = write.is_some();
        let mut backfill = Backfill::new(self, header, progress, &mut waiter, patient);
        backfill.names_holders = options.names_holders;
        let mut report = backfill.run(options.up_to)?;
        if options.mode == CheckpointMode::Passive {
            return Ok(report);
        }
        if write.is_none() {
            report.held_back_by = Some(self.held_back(Lock::Write, None));
        } else if report.is_complete() && options.mode >= CheckpointMode::Restart {
            let then = match options.mode {
                CheckpointMode::Truncate => ThenLog::IsCut,
                _ if options.begins_anew => ThenLog::BeginsAnew,
                _ => ThenLog::Stays,
            };
            backfill.shut_readers_out(then, &mut report)?;
        }
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
