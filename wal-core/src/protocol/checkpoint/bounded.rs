//! A checkpoint beyond Passive that keeps writers waiting for a bounded time at once.
//!
//! # Protocol
//! It runs in rounds. A round copies without `WRITE`, as Passive does, and syncs both files. If
//! little is left then, it acquires `WRITE`, copies that, and waits for readers until the bound
//! has passed since it had `WRITE`. Then it releases `WRITE`, and stays away from it for several
//! times as long as it had it.
//!
//! A reader of an older state is waited for under `WRITE` only where it is another than in the
//! round before: such readers come and go. One that stays keeps no writer waiting.
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
    CheckpointMode, CheckpointOptions, CheckpointProgress, CheckpointReport, HeldBack,
};
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LocksHeld;
use crate::types::Lock;

/// How many bytes of pages are copied under `WRITE` at least, unless the bound is passed before.
const LITTLE: u64 = 1 << 20;
/// The part of the bound in which these pages are copied. The rest is for syncs and readers.
const COPY: u32 = 2;
/// How many times as long as writers waited they are left alone before the next round.
const REST: u32 = 4;
/// How long they are left alone at least.
const LEAST_REST: Duration = Duration::from_millis(5);
/// How many times the bound `WRITE` is waited for in a round. What is committed in that time is
/// copied under `WRITE`, so a longer wait ends with too much to copy.
const WAIT: u32 = 2;
/// How long a round sleeps at most between two looks at `WRITE`. Writers of stock SQLite notify no
/// waiter, and one that commits all the time leaves `WRITE` free for some ten microseconds.
const LOOK: Duration = Duration::from_micros(100);

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
    /// The slot and the mark that held the round before back.
    reader: Option<(Lock, Option<u32>)>,
    /// How many pages can be copied within the bound.
    most_pages: u32,
    /// How many bytes of the log can be cut within the bound. To cut a file takes longer the
    /// more of it is in the cache of the system.
    most_cut: u64,
    /// How many bytes of the log were cut.
    cut: u64,
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
            reader: None,
            most_cut: LITTLE,
            cut: 0,
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
            let mut report = self.copy_beside_writers(progress)?;
            let mut rest = LEAST_REST;
            let left = self.wal.frames_to_move()?;
            let is_done = self.mode == CheckpointMode::Full && left == 0;
            if !is_done && self.is_worth_write(&report, left) {
                let held;
                (report, held) = self.finish(report)?;
                rest = LEAST_REST.max(held * REST);
            } else if !is_done && report.held_back_by.is_none() {
                // Much was committed while much was copied: the next round is shorter.
                rest = Duration::ZERO;
                report.held_back_by = Some(HeldBack::unnamed(Lock::Write));
            }
            report.writers_held_up = self.held_up;
            self.cut += report.log_bytes_cut;
            report.log_bytes_cut = self.cut;
            match &report.held_back_by {
                Some(held_back) if self.waiter.pause(held_back.lock, rest)? => {}
                _ => return Ok(self.named(report)),
            }
        }
    }

    /// Finds the processes that held the last round back. It takes longer than a round, and
    /// no lock is held any more.
    fn named(&self, mut report: CheckpointReport) -> CheckpointReport {
        if let Some(held_back) = report.held_back_by.as_mut().filter(|_| self.names_holders) {
            held_back.holders = self.wal.coordination().holders(held_back.lock);
        }
        report
    }

    /// Whether a round that left `left` frames goes on with `WRITE`.
    fn is_worth_write(&mut self, report: &CheckpointReport, left: u32) -> bool {
        let reader = report.held_back_by.as_ref().map(|by| (by.lock, by.mark));
        let before = std::mem::replace(&mut self.reader, reader);
        let may_end_soon = reader.is_none() || before.is_some() && reader != before;
        may_end_soon && left <= self.most_pages
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
        backfill.names_holders = false;
        let report = backfill.run(u32::MAX)?;
        drop(checkpoint);
        let left = wal.frames_to_move()?;
        if left > 0 && wal.tuning().synchronous() != Synchronous::Off {
            // So that little is left to sync while writers wait. The log last: writers go on.
            wal.sync_database_beside_checkpoints()?;
            wal.sync_log()?;
        }
        self.learn(before.saturating_sub(left), began.elapsed());
        Ok(report)
    }

    /// Notes that `frames` were copied in `time`, syncs included.
    fn learn(&mut self, frames: u32, time: Duration) {
        let share = self.bound.as_secs_f64() / f64::from(COPY);
        let within_bound = f64::from(frames) * share / time.as_secs_f64();
        // A cast from a float saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let within_bound = within_bound as u32;
        self.most_pages = self.most_pages.max(within_bound);
    }

    /// Notes that `bytes` of the log were cut in `time`.
    fn learn_cut(&mut self, bytes: u64, time: Duration) {
        if bytes == self.most_cut {
            let is_short = time < self.bound / COPY;
            let next = if is_short { bytes * 2 } else { bytes / 2 };
            self.most_cut = next.max(LITTLE);
        }
    }

    /// Holds `WRITE`, copies what was committed since, and does with the log what the mode says.
    /// Returns the time for which it held `WRITE`, too.
    fn finish(&mut self, before: CheckpointReport) -> Result<(CheckpointReport, Duration)> {
        let wal = self.wal;
        let checkpoint = wal.lock_or_busy(Lock::Checkpoint, &mut self.waiter)?;
        let mut for_write = self.waiter.part(self.bound * WAIT, LOOK);
        let Some(write) = wal.wait_for_lock(Lock::Write, &mut for_write)? else {
            let mut report = before;
            report.held_back_by = Some(HeldBack::unnamed(Lock::Write));
            return Ok((report, Duration::ZERO));
        };
        let began = Instant::now();
        let outcome = self.copy_and_restart(&LocksHeld {
            write: Some(&write),
            checkpoint: Some(&checkpoint),
        });
        drop(write);
        let held = began.elapsed();
        self.held_up = self.held_up.max(held);
        let (cut, mut report) = (before.database_bytes_cut, outcome?);
        report.database_bytes_cut += cut;
        Ok((report, held))
    }

    fn copy_and_restart(&mut self, held: &LocksHeld<'_, C>) -> Result<CheckpointReport> {
        let wal = self.wal;
        let header = wal.settled_header(held)?;
        wal.mend_log_for_checkpoint(&header, true)?;
        let _staying = wal.own_write().begin_operation();
        let mut for_readers = Waiter::new(BusyHandler::timeout(self.bound));
        let mut backfill = Backfill::new(wal, header, None, &mut for_readers, true);
        backfill.names_holders = false;
        if wal.frames_to_move()? > self.most_pages {
            return Ok(CheckpointReport {
                held_back_by: Some(HeldBack::unnamed(Lock::Write)),
                ..backfill.untouched()?
            });
        }
        let mut report = backfill.run(u32::MAX)?;
        if report.is_complete() && self.mode >= CheckpointMode::Restart {
            let then = match self.mode {
                CheckpointMode::Truncate => ThenLog::IsShortened(self.most_cut),
                _ => ThenLog::BeginsAnew,
            };
            let began = Instant::now();
            backfill.shut_readers_out(then, &mut report)?;
            self.learn_cut(report.log_bytes_cut, began.elapsed());
        }
        Ok(report)
    }
}
