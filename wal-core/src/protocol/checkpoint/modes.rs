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

use std::fmt;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::Wal;
use crate::protocol::checkpoint::backfill::{Backfill, ThenLog};
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::read::header::Held;
use crate::types::{Lock, LockMode};

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub enum CheckpointMode {
    /// Copies what can be copied without waiting for anybody.
    #[default]
    Passive,
    /// Waits for the writer and for readers of older states, then copies
    /// everything.
    Full,
    /// As Full, then waits until nobody reads the log, so that the next
    /// commit begins it anew.
    Restart,
    /// As Restart, and cuts the log to nothing.
    Truncate,
}

/// How far a checkpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckpointProgress {
    /// The pages that are written to the database file.
    pub copied: usize,
    /// The pages that this checkpoint copies in all.
    pub pages: usize,
}

/// What a checkpoint is asked to do.
pub struct CheckpointOptions<'a> {
    pub(in crate::protocol) mode: CheckpointMode,
    pub(in crate::protocol) up_to: u32,
    pub(in crate::protocol) busy: BusyHandler,
    pub(in crate::protocol) progress: Option<&'a mut dyn FnMut(CheckpointProgress)>,
    /// Whether those in the way are named.
    pub(in crate::protocol) names_holders: bool,
    /// Whether Restart begins the log anew itself. The next commit would, but
    /// only if no reader has come to the log before it.
    pub(in crate::protocol) begins_anew: bool,
}

impl fmt::Debug for CheckpointOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointOptions")
            .field("mode", &self.mode)
            .field("up_to", &self.up_to)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl<'a> CheckpointOptions<'a> {
    /// A checkpoint of `mode` that waits for nobody and tells no progress.
    pub fn new(mode: CheckpointMode) -> Self {
        CheckpointOptions {
            mode,
            up_to: u32::MAX,
            busy: BusyHandler::FAIL,
            progress: None,
            names_holders: true,
            begins_anew: false,
        }
    }

    /// A passive checkpoint as it is tried after commits, again and again: it
    /// does not say which processes are in its way, for finding that out takes
    /// longer than a commit.
    pub fn automatic() -> Self {
        CheckpointOptions {
            names_holders: false,
            ..Self::new(CheckpointMode::Passive)
        }
    }

    /// A passive checkpoint that copies no frame beyond `frame`.
    pub fn passive_up_to(frame: u32) -> Self {
        CheckpointOptions {
            up_to: frame,
            ..Self::new(CheckpointMode::Passive)
        }
    }

    /// What to do while a writer or a reader is in the way. A passive
    /// checkpoint never asks; a cancellation ends it too.
    #[must_use]
    pub fn busy(mut self, busy: impl Into<BusyHandler>) -> Self {
        self.busy = busy.into();
        self
    }

    /// Calls `progress` each time pages were written.
    #[must_use]
    pub fn progress(mut self, progress: &'a mut dyn FnMut(CheckpointProgress)) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// Who stood in a checkpoint's way.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldBack {
    /// The lock that was not to be had.
    pub lock: Lock,
    /// The read mark behind it: those who hold it read the log up to this
    /// frame. `None` if it is no reader of the log that is in the way.
    pub mark: Option<u32>,
    /// The processes that hold the lock, as far as the system tells; this
    /// process may be among them.
    pub holders: Vec<u32>,
}

/// What a checkpoint found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The committed frames in the log now.
    pub log_frames: u32,
    /// Those of them that are in the database file now.
    pub backfilled: u32,
    /// Bytes that were cut from the log file.
    pub log_bytes_cut: u64,
    /// Bytes that were cut from the database file.
    pub database_bytes_cut: u64,
    /// Why the checkpoint did not get as far as its mode goes; `None` if it
    /// did.
    pub held_back_by: Option<HeldBack>,
}

impl CheckpointReport {
    /// True if the database file holds all that was committed.
    pub fn is_complete(&self) -> bool {
        self.backfilled == self.log_frames
    }
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
