//! Keeps the log short without being asked.
//!
//! # Protocol
//! When a commit has left so many frames in the log that are not in the database
//! file, a passive checkpoint moves them. It waits for nobody, so where commits
//! and readers keep coming it is never complete, and a log that is not complete
//! in the database file cannot begin anew: it would grow for ever, and each
//! commit would move a few frames and sync the log for that. So what is left then
//! is moved with Write held, which stops commits for as long as a few pages take:
//! most of them are in the file, which is synced before. Then readers of the log
//! are waited for, for a moment, and the log begins anew. New readers go to slot 0
//! by then, so these are few: who lost its processor while it read, mostly.
//!
//! The same is done where all is moved and only readers are in the way: the next
//! commit would find them there, and the log would go on. So it is also where a
//! peer moves frames all the time, and leaves too few for a checkpoint of ours: the
//! log is looked at by its length, too.
//!
//! If they do not go, the writers have waited in vain, and this attachment tries
//! it again only when the log has grown: by as much once more, then by twice as
//! much, and so on up to sixteen times.
//!
//! # Crash
//! As for any checkpoint.

use std::sync::Arc;
use std::time::Duration;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::protocol::checkpoint::backfill::Backfill;
use crate::protocol::checkpoint::options::CheckpointOptions;
use crate::protocol::checkpoint::pace::CaughtUp;
use crate::protocol::config::{Synchronous, WalAutoActions};
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LocksHeld;
use crate::types::{Lock, LockMode, Salts};

/// How long the committer that does it waits for a checkpoint that runs.
const PATIENCE_FOR_CHECKPOINT: Duration = Duration::from_millis(5);
/// How long it waits for its turn to write.
const PATIENCE_FOR_WRITE: Duration = Duration::from_millis(50);
/// How long all writers wait for readers before pages are moved, and again
/// afterwards.
const PATIENCE_FOR_READERS: Duration = Duration::from_millis(5);

/// How many times the threshold may be moved while writers wait.
const WHILE_WRITERS_WAIT: u32 = 4;
/// How many times the threshold a log has at most of which it is said that it
/// is kept short.
const STILL_SHORT: u32 = 4;
impl<C: WalCoordination> Wal<C> {
    /// Checkpoints the log if that is due, as
    /// [`crate::protocol::WalAutoActions::checkpoint`] says. With
    /// [`crate::protocol::WalAutoActions::restart`] switched off no writer is stopped.
    ///
    /// # Errors
    /// As [`Wal::checkpoint_with`].
    pub fn checkpoint_automatically(self: &Arc<Self>) -> Result<()> {
        if !self.checkpoint_is_due()? {
            return Ok(());
        }
        let WalAutoActions {
            checkpoint: threshold,
            restart,
        } = self.config().auto_actions;
        // Others move frames meanwhile if many are left, and do no more.
        let trying = self.checkpoint_state().restarts().begin();
        let report = self.checkpoint_with(CheckpointOptions::automatic())?;
        let Ok(header) = self.header_cell()?.load() else {
            return Ok(());
        };
        let (generation, frames) = (generation(&header), report.log_frames);
        if restart
            && trying.is_some()
            && self
                .checkpoint_state()
                .restarts()
                .is_due(generation, frames)
        {
            let caught_up = match may_begin_anew(self) {
                Ok(true) => Ok(CaughtUp::NotNow),
                Ok(false) => catch_up(self, threshold),
                Err(e) => Err(e),
            };
            let outcome = *caught_up.as_ref().unwrap_or(&CaughtUp::NotNow);
            self.checkpoint_state()
                .restarts()
                .note(generation, frames, threshold, outcome);
            caught_up?;
        }
        Ok(())
    }

    /// True if commits of this attachment are followed by checkpoints that wait
    /// for readers, and a log of `log_frames` is not one where these are in vain.
    pub(in crate::protocol) fn keeps_short(&self, log_frames: u32) -> bool {
        let actions = self.config().auto_actions;
        actions.restart && log_frames < actions.checkpoint.saturating_mul(STILL_SHORT)
    }

    /// True if [`Wal::checkpoint_automatically`] would do something: so many frames
    /// are not in the database file, or the log is long though they are. It takes
    /// no lock and makes no system call.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] if the index is gone.
    pub fn checkpoint_is_due(&self) -> Result<bool> {
        let actions = self.config().auto_actions;
        let threshold = actions.checkpoint;
        if threshold == 0 {
            return Ok(false);
        }
        let is_long = |header: &IndexHeader| {
            let frames = header.max_frame();
            frames >= threshold
                && !self.checkpoint_state().restarts().is_tried()
                && self
                    .checkpoint_state()
                    .restarts()
                    .is_due(generation(header), frames)
        };
        let Ok(header) = self.header_cell()?.load() else {
            return Ok(false);
        };
        Ok(not_moved(self, &header)? >= threshold || actions.restart && is_long(&header))
    }

    /// How many frames are published and not in the database file; none if the header cannot be
    /// loaded, which the next commit finds out.
    pub(super) fn frames_to_move(&self) -> Result<u32> {
        match self.header_cell()?.load() {
            Ok(header) => not_moved(self, &header),
            Err(_) => Ok(0),
        }
    }
}

/// What a generation is known by: its first salt, which the next one counts up.
fn generation(header: &IndexHeader) -> u32 {
    let Salts([a, b, c, d, ..]) = header.salts();
    u32::from_be_bytes([a, b, c, d])
}

/// True if all is in the database file and nobody reads the log, so that the
/// next writer begins it anew.
fn may_begin_anew<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<bool> {
    if wal.frames_to_move()? > 0 {
        return Ok(false);
    }
    // Held so that no checkpoint finds the marks taken.
    let Some(_checkpoint) = wal.try_lock(Lock::Checkpoint, LockMode::Exclusive)? else {
        return Ok(false);
    };
    let nobody_reads = wal.try_lock(Lock::ReadMarks, LockMode::Exclusive)?;
    Ok(nobody_reads.is_some())
}

/// How many frames of `header` are not in the database file.
fn not_moved<C: WalCoordination>(wal: &Wal<C>, header: &IndexHeader) -> Result<u32> {
    let backfilled = wal.checkpoint_info()?.backfilled_of(header);
    Ok(header.max_frame().saturating_sub(backfilled))
}

/// Moves what is left with Write held, waits for readers of the log, and
/// begins it anew.
fn catch_up<C: WalCoordination>(wal: &Arc<Wal<C>>, threshold: u32) -> Result<CaughtUp> {
    if wal.tuning().synchronous() != Synchronous::Off && wal.frames_to_move()? > 0 {
        // So that little is left to sync while writers wait.
        wal.sync_database_beside_checkpoints()?;
    }
    let mut for_checkpoint = Waiter::new(BusyHandler::timeout(PATIENCE_FOR_CHECKPOINT));
    let Some(checkpoint) = wal.wait_for_lock(Lock::Checkpoint, &mut for_checkpoint)? else {
        return Ok(CaughtUp::NotNow);
    };
    let mut for_write = Waiter::new(BusyHandler::timeout(PATIENCE_FOR_WRITE));
    let Some(write) = wal.wait_for_lock(Lock::Write, &mut for_write)? else {
        return Ok(CaughtUp::NotNow);
    };
    let held = LocksHeld {
        write: Some(&write),
        checkpoint: Some(&checkpoint),
    };
    let header = wal.settled_header(&held)?;
    if header.max_frame() < threshold {
        // Somebody else has begun it anew meanwhile.
        return Ok(CaughtUp::Yes);
    }
    wal.mend_log_for_checkpoint(&header, true)?;
    if wal.frames_to_move()? > threshold.saturating_mul(WHILE_WRITERS_WAIT) {
        return Ok(CaughtUp::NotNow);
    }
    let mut for_readers = Waiter::new(BusyHandler::timeout(PATIENCE_FOR_READERS));
    let mut backfill = Backfill::new(wal, header, None, &mut for_readers, true);
    backfill.names_holders = false;
    if !backfill.run(u32::MAX)?.is_complete() {
        return Ok(CaughtUp::InVain);
    }
    // New readers of what is complete do not read the log.
    let mut for_readers = Waiter::new(BusyHandler::timeout(PATIENCE_FOR_READERS));
    let Some(_nobody_reads) = wal.wait_for_lock(Lock::ReadMarks, &mut for_readers)? else {
        return Ok(CaughtUp::InVain);
    };
    let proof = wal.backfill_proof(&header)?;
    wal.publish_restart(&header, &proof, header.salts().next())?;
    Ok(CaughtUp::Yes)
}
