//! Begins the log anew, so that it does not grow for ever.
//!
//! # Protocol
//! A writer whose snapshot bypasses the log has seen that all of it is in the
//! database file. If nobody reads the log (Read 1–4 are to be had at once) it
//! publishes an empty log of a new generation, and its frames overwrite the
//! old ones from the start. It holds Write, Read 1–4, and
//! Checkpoint from before the check until the new header is published, and Read 0
//! shared only if it began as a reader, as every writer of SQLite does: what that is
//! for, that nobody is at a checkpoint, Checkpoint says too. An old
//! SQLite that checkpoints can then not be between its look at the header and
//! its copying, where a restart would make it publish a count of the old
//! generation for the new one (the WAL-reset bug). If any of them is busy the
//! writer appends instead; it never waits here. An owner of the log's life
//! ([`crate::protocol::WalAutoActions`]) does the same by hand, and may wait.
//!
//! The database file must be durable before the log that made it so is
//! overwritten, which is what the [`BackfillProof`] stands for.
//!
//! # Crash
//! The backfilled count goes back to 0 before the new header is published, and
//! that before the log is touched. Whoever comes after a death at any point
//! finds a log whose frames have to be copied once more, or an empty one whose
//! pages are all in the database file; the old frames are still in the log,
//! and recovering them gives the same pages.
//!
//! A log that is cut to nothing is synced before its locks are released
//! ([`Wal::truncate_log`]). A power failure could undo a cut that was not synced,
//! and the log would overlay whatever has taken the database's place by then.
//!
//! SQLite stores the header first (`walRestartHdr`). One that is killed right
//! behind it leaves a count that is larger than the log is long; whoever takes
//! Write next mends that (`mend_backfilled`), and readers do not believe it.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::{IndexHeader, MARK_NOT_USED};
use crate::protocol::checkpoint::backfill_proof::BackfillProof;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::guard::LocksHeld;
use crate::testing::{Point, rule, step};
use crate::types::{Lock, ReadSlot, Salts};

impl<C: WalCoordination> Wal<C> {
    /// Begins the log anew. All of it is in the database file, as `proof`
    /// shows; the next commit overwrites it from the start.
    ///
    /// # Errors
    /// [`crate::Error::ProofRefused`] if the log went on since, or the database file
    /// is another; [`crate::Error::Busy`] if somebody writes, checkpoints or reads
    /// the log when `busy` gives up, [`crate::Error::Cancelled`], and what
    /// [`Wal::begin_write`] gives.
    ///
    /// ```compile_fail
    /// # fn f<C: wal_core::WalCoordination>(wal: &std::sync::Arc<wal_core::protocol::Wal<C>>) {
    /// // Without a proof there is no restart.
    /// wal.restart_log(std::time::Duration::ZERO);
    /// # }
    /// ```
    pub fn restart_log(
        self: &Arc<Self>,
        proof: &BackfillProof,
        busy: impl Into<BusyHandler>,
    ) -> Result<()> {
        let (header, _locks) = shut_out_log_users(self, busy.into())?;
        self.check_proof(proof, &header)?;
        self.publish_restart(&header, proof, header.salts().next())
            .map(drop)
    }

    /// As [`Wal::restart_log`], and cuts the log to nothing, durably unless
    /// [`crate::protocol::Synchronous::Off`].
    ///
    /// # Errors
    /// As [`Wal::restart_log`].
    pub fn truncate_log(
        self: &Arc<Self>,
        proof: &BackfillProof,
        busy: impl Into<BusyHandler>,
    ) -> Result<()> {
        let (header, _locks) = shut_out_log_users(self, busy.into())?;
        self.check_proof(proof, &header)?;
        self.truncate_log_held(&header, proof).map(drop)
    }

    /// Begins the log anew and cuts it to nothing; tells how long it was. The
    /// caller holds Checkpoint, Write and Read 1–4.
    ///
    /// The header is published first: a log that is shorter than the index
    /// says would be corrupt for whoever comes after our death.
    pub(super) fn truncate_log_held(
        &self,
        header: &IndexHeader,
        proof: &BackfillProof,
    ) -> Result<u64> {
        let log = self.storage().log();
        let len = log.len()?;
        if header.max_frame() == 0 && rule!(TruncateCutsEmptyLog, len == 0) {
            return Ok(0);
        }
        self.publish_restart(header, proof, header.salts().next())?;
        step(Point::LogTruncate);
        self.empty_log()?;
        Ok(len)
    }

    /// As [`Wal::truncate_log_held`], but cuts `most` bytes at most; returns what was cut, and what
    /// is left of the file. Each cut follows a restart: an attachment that has published the
    /// newest header stores to space that it has allocated without asking for the file's length.
    pub(super) fn shorten_log_held(
        &self,
        header: &IndexHeader,
        proof: &BackfillProof,
        most: u64,
    ) -> Result<(u64, u64)> {
        let log = self.storage().log();
        let len = log.len()?;
        if len <= most {
            return Ok((self.truncate_log_held(header, proof)?, 0));
        }
        self.publish_restart(header, proof, header.salts().next())?;
        step(Point::LogTruncate);
        // Not synced: a power failure that undoes it leaves frames of the generation before,
        // all of which are in the database file, as a restart without a cut does.
        log.set_len(len - most)?;
        Ok((most, len - most))
    }

    /// Cuts the log to nothing, durably unless syncs are off. The caller keeps
    /// everybody away from it, and all of it is in the database file.
    pub(super) fn empty_log(&self) -> Result<()> {
        self.storage().log().set_len(0)?;
        if self.tuning().synchronous() != Synchronous::Off {
            rule!(TruncateSync, {
                step(Point::LogTruncateSync);
                self.sync_log()?;
            });
        }
        Ok(())
    }

    /// Takes a backfilled count back that is larger than the log is long: a
    /// restart died before it could. Frames that are added would pass for
    /// backfilled, be skipped by checkpoints and by readers, and be lost. The
    /// caller holds Write, so nobody is at a restart, and a count that is too
    /// low is always safe. True if that was so, and snapshots that went by it
    /// are wrong.
    pub(in crate::protocol) fn mend_backfilled(&self, header: &IndexHeader) -> Result<bool> {
        let info = self.checkpoint_info()?;
        let stale = info.backfilled_of(header) != info.backfilled();
        if stale {
            self.writable_block_zero()?.set_backfilled(0);
        }
        Ok(stale)
    }

    /// Publishes an empty log of generation `salts` (`walRestartHdr`). The
    /// caller holds Checkpoint, Write and Read 1–4, under which `proof` was
    /// checked or made.
    pub(in crate::protocol) fn publish_restart(
        &self,
        header: &IndexHeader,
        proof: &BackfillProof,
        salts: Salts,
    ) -> Result<IndexHeader> {
        debug_assert!(proof.covers(header));
        let block_zero = self.writable_block_zero()?;
        self.checkpoint_state().count_restart();
        let next = header.restarted(salts);
        // The count first: a count of the old generation beside a header of the
        // new one would pass frames for backfilled that are not, and if we
        // died in between it would stay. The old header with a count of 0 only
        // sends readers to the log, which nobody can join for the moment.
        block_zero.set_backfilled(0);
        // A call of the seam, so that the conformance suite can let a process die between the two.
        self.writable_block_zero()?.store_header(&next);
        self.read_state().forget_map();
        // Only now: under the old header frames up to here were attempted.
        rule!(RestartResetsAttempted, {
            block_zero.set_attempted(0);
        });
        rule!(RestartResetsMarks, {
            for slot in ReadSlot::MARKED {
                let first = slot == ReadSlot::MARKED[0];
                self.set_mark(slot, if first { 0 } else { MARK_NOT_USED });
            }
        });
        observe!(self, LogRestarted { salts });
        Ok(next)
    }
}

/// Takes Checkpoint, Write and Read 1–4, in this order, and tells what is
/// published then.
fn shut_out_log_users<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    busy: BusyHandler,
) -> Result<(IndexHeader, [LockGuard<C>; 3])> {
    wal.check_writable()?;
    let mut waiter = Waiter::new(busy);
    let mut take = |lock| wal.lock_or_busy(lock, &mut waiter);
    let checkpoint = take(Lock::Checkpoint)?;
    let write = take(Lock::Write)?;
    let readers = take(Lock::ReadMarks)?;
    let held = LocksHeld {
        write: Some(&write),
        checkpoint: Some(&checkpoint),
    };
    let header = wal.settled_header(&held)?;
    // The guards are dropped in this order.
    Ok((header, [readers, write, checkpoint]))
}
