//! A checkpoint beyond Passive that keeps writers waiting for a bounded time at once.
//!
//! # Protocol
//! It runs in rounds. A round copies without `WRITE`, as Passive does, and syncs the database
//! file. Only if the copy was held back by no reader, and little was committed since, it acquires
//! `WRITE`, copies that, and waits for readers until the bound has passed since it had `WRITE`.
//! Then it releases `WRITE`, and stays away from it for several times as long as it had it.
//!
//! Under `WRITE` the bound is exceeded by one step at most: the copy of the few pages that are
//! left with its syncs, or a rewrite of a log that a failed sync left
//! ([`Wal::mend_log_for_checkpoint`]). [`CheckpointReport::writers_held_up`] has what it was.
//!
//! # Crash
//! As for any checkpoint: each round is one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::checkpoint::backfill::{Backfill, ThenLog};
use crate::protocol::checkpoint::options::{
    CheckpointMode, CheckpointOptions, CheckpointProgress, CheckpointReport,
};
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LocksHeld;
use crate::types::Lock;

/// How many bytes of pages are copied under `WRITE`, unless the round before showed that more can
/// be copied within the bound.
const LITTLE: u64 = 1 << 20;
/// How many times as long as writers waited they are left alone before the next round.
const REST: u32 = 4;
/// How long they are left alone at least.
const LEAST_REST: Duration = Duration::from_millis(10);

/// A checkpoint in rounds.
pub(super) struct Bounded<'a, C: WalCoordination> {
    wal: &'a Arc<Wal<C>>,
    mode: CheckpointMode,
    bound: Duration,
    /// Ends the rounds.
    waiter: Waiter,
    names_holders: bool,
    /// The longest time for which `WRITE` was held.
    held_up: Duration,
    /// How many pages can be copied within the bound.
    most_pages: u32,
}

impl<'a, C: WalCoordination> Bounded<'a, C> {
    pub(super) fn new(
        wal: &'a Arc<Wal<C>>,
        options: &CheckpointOptions<'_>,
        bound: Duration,
    ) -> Self {
        let page = u64::from(wal.config().page_size.bytes());
        Bounded {
            wal,
            mode: options.mode,
            bound,
            waiter: Waiter::new(options.busy.clone()),
            names_holders: options.names_holders,
            held_up: Duration::ZERO,
            most_pages: u32::try_from(LITTLE / page).unwrap_or(u32::MAX).max(1),
        }
    }

    /// Runs rounds until one reaches the goal of the mode, or the busy handler gives up.
    pub(super) fn run(
        &mut self,
        progress: Option<&mut dyn FnMut(CheckpointProgress)>,
    ) -> Result<CheckpointReport> {
        let mut silent = |_| ();
        let progress = progress.unwrap_or(&mut silent);
        loop {
            let report = self.round(progress)?;
            let Some(held_back) = &report.held_back_by else {
                return Ok(report);
            };
            let rest = LEAST_REST.max(self.held_up * REST);
            if !self.waiter.pause(held_back.lock, rest)? {
                return Ok(report);
            }
        }
    }

    fn round(&mut self, progress: &mut dyn FnMut(CheckpointProgress)) -> Result<CheckpointReport> {
        let mut report = self.copy_beside_writers(progress)?;
        let is_behind_a_reader = report.held_back_by.is_some();
        let is_done = self.mode == CheckpointMode::Full && self.wal.frames_to_move()? == 0;
        if !is_behind_a_reader && !is_done {
            report = self.finish(report)?;
        }
        report.writers_held_up = self.held_up;
        Ok(report)
    }

    /// Copies as Passive does, but waits for another checkpoint.
    fn copy_beside_writers(
        &mut self,
        progress: &mut dyn FnMut(CheckpointProgress),
    ) -> Result<CheckpointReport> {
        let wal = self.wal;
        let began = Instant::now();
        let before = wal.frames_to_move()?;
        let checkpoint = wal.lock_or_busy(Lock::Checkpoint, &mut self.waiter)?;
        let held = LocksHeld {
            write: None,
            checkpoint: Some(&checkpoint),
        };
        let header = wal.settled_header(&held)?;
        wal.mend_log_for_checkpoint(&header, false)?;
        let mut tell = |state| progress(state);
        let mut backfill = Backfill::new(wal, header, Some(&mut tell), &mut self.waiter, false);
        backfill.names_holders = self.names_holders;
        let report = backfill.run(u32::MAX)?;
        drop(checkpoint);
        let left = wal.frames_to_move()?;
        if left > 0 && wal.tuning().synchronous() != Synchronous::Off {
            // So that little is left to sync while writers wait.
            wal.sync_database_beside_checkpoints()?;
        }
        self.learn(before.saturating_sub(left), began.elapsed());
        Ok(report)
    }

    /// Notes that `frames` were copied in `time`, syncs included.
    fn learn(&mut self, frames: u32, time: Duration) {
        let within_bound = f64::from(frames) * self.bound.as_secs_f64() / time.as_secs_f64();
        // A cast from a float saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let within_bound = within_bound as u32;
        self.most_pages = self.most_pages.max(within_bound);
    }

    /// Holds `WRITE`, copies what was committed since, and does with the log what the mode says.
    fn finish(&mut self, before: CheckpointReport) -> Result<CheckpointReport> {
        let wal = self.wal;
        let checkpoint = wal.lock_or_busy(Lock::Checkpoint, &mut self.waiter)?;
        let Some(write) = wal.wait_for_lock(Lock::Write, &mut self.waiter)? else {
            let mut report = before;
            report.held_back_by = Some(wal.held_back(Lock::Write, None));
            return Ok(report);
        };
        let began = Instant::now();
        let outcome = self.copy_and_restart(&LocksHeld {
            write: Some(&write),
            checkpoint: Some(&checkpoint),
        });
        drop(write);
        self.held_up = self.held_up.max(began.elapsed());
        let (cut, mut report) = (before.database_bytes_cut, outcome?);
        report.database_bytes_cut += cut;
        Ok(report)
    }

    fn copy_and_restart(&mut self, held: &LocksHeld<'_, C>) -> Result<CheckpointReport> {
        let wal = self.wal;
        let header = wal.settled_header(held)?;
        wal.mend_log_for_checkpoint(&header, true)?;
        let _staying = wal.own_write().begin_operation();
        let mut for_readers = Waiter::new(BusyHandler::timeout(self.bound));
        let mut backfill = Backfill::new(wal, header, None, &mut for_readers, true);
        backfill.names_holders = self.names_holders;
        if wal.frames_to_move()? > self.most_pages {
            return Ok(CheckpointReport {
                held_back_by: Some(wal.held_back(Lock::Write, None)),
                ..backfill.untouched()?
            });
        }
        let mut report = backfill.run(u32::MAX)?;
        if report.is_complete() && self.mode >= CheckpointMode::Restart {
            let then = match self.mode {
                CheckpointMode::Truncate => ThenLog::IsCut,
                _ => ThenLog::BeginsAnew,
            };
            backfill.shut_readers_out(then, &mut report)?;
        }
        Ok(report)
    }
}
