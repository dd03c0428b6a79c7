//! Begins the log anew, so that it does not grow for ever.
//!
//! # Protocol
//! A writer that reads at slot 0 has seen that all of the log is in the
//! database file. If nobody reads the log (Read 1–4 are to be had at once) it
//! publishes an empty log of a new generation, and its frames overwrite the
//! old ones from the start. It holds Write, Read 0 shared, Read 1–4, and
//! Checkpoint from before the check until the new header is published: an old
//! SQLite that checkpoints can then not be between its look at the header and
//! its copying, where a restart would make it publish a count of the old
//! generation for the new one (the WAL-reset bug). If any of them is busy the
//! writer appends instead; it never waits here.
//!
//! The database file must be durable before the log that made it so is
//! overwritten, which is what the [`BackfillProof`] stands for.
//!
//! # Crash
//! The new header is published before the log is touched. Whoever comes after
//! a death at any point finds an empty log whose pages are all in the
//! database file; the old frames are still in the log, and recovering them
//! gives the same pages.

use std::sync::atomic::Ordering;

use super::write::WriteTx;
use super::{BackfillProof, Wal};
use crate::coordination::{Lock, LockMode, ReadSlot, WalCoordination};
use crate::error::Result;
use crate::index::{IndexHeader, MARK_NOT_USED};
use crate::testing::{Mutation, mutated};

impl<C: WalCoordination> WriteTx<C> {
    /// Restarts the log if that can be done at once; `Some` is the header
    /// that it published (`walRestartLog`).
    pub(super) fn try_restart_log_before_write(&mut self) -> Result<Option<IndexHeader>> {
        if !self.read.snapshot.bypasses_log() {
            return Ok(None);
        }
        let restarted = self.try_restart_log()?;
        if restarted.is_none() {
            let max_frame = self.read.snapshot.max_frame();
            self.wal().leave_usable_mark(max_frame)?;
        }
        Ok(restarted)
    }

    /// The caller reads at slot 0.
    fn try_restart_log(&mut self) -> Result<Option<IndexHeader>> {
        let wal = self.wal().clone();
        let header = self.read.snapshot.header;
        if header.max_frame() == 0 {
            return Ok(None);
        }
        let checkpoint = wal.try_lock(Lock::Checkpoint, LockMode::Exclusive)?;
        if checkpoint.is_none() && !mutated(Mutation::RestartWithoutCheckpointLock) {
            return Ok(None);
        }
        let readers = wal.try_lock(Lock::ReadMarks, LockMode::Exclusive)?;
        if readers.is_none() && !mutated(Mutation::RestartOverReaders) {
            return Ok(None);
        }
        // A recovery since this transaction began may have set it back to 0.
        if wal.checkpoint_info()?.backfilled() != header.max_frame() {
            return Ok(None);
        }
        let proof = wal.backfill_proof(&header)?;
        let published = wal.restart_log(&header, &proof)?;
        drop(readers);
        drop(checkpoint);
        self.read.snapshot.header = published;
        Ok(Some(published))
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Publishes an empty log of the next generation (`walRestartHdr`).
    fn restart_log(&self, header: &IndexHeader, proof: &BackfillProof) -> Result<IndexHeader> {
        debug_assert!(proof.covers(header));
        self.sequence.fetch_add(1, Ordering::Relaxed);
        let salts = if mutated(Mutation::KeepSalts) {
            header.salts()
        } else {
            header.salts().next()
        };
        let next = header.restarted(salts);
        let info = self.checkpoint_info()?;
        // The header first: a reader that sees it with the old count does not
        // take slot 0, and finds Read 1–4 locked until the marks are right.
        self.header_cell()?.store(&next);
        info.set_backfilled(0);
        info.set_attempted(0);
        for slot in ReadSlot::MARKED {
            let first = slot == ReadSlot::MARKED[0];
            self.set_mark(slot, if first { 0 } else { MARK_NOT_USED });
        }
        Ok(next)
    }
}
