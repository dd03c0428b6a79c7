//! What the last user cleans up.
//!
//! # Protocol
//! The last user owns the database: nobody else is attached, and nobody can
//! attach. It checkpoints; if all of the log is in the database file, and
//! durable there, the wal-index and the log are removed, in this order
//! (`sqlite3WalClose`).
//!
//! The removal, or the cut of a log that stays, is durable before the close
//! returns, unless syncs are off. Then the database file is the database, and can be
//! copied, or replaced by another one: a log that came back after a power failure
//! would be taken for the log of that. The removal of an empty log is not synced:
//! it holds nothing that could come back.
//!
//! # Crash
//! Whatever is left is what the next opener finds after any crash: a log
//! without an index is recovered.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::protocol::checkpoint::options::CheckpointMode;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::testing::{Point, rule, step};
use crate::types::{Lock, LockMode};

impl<C: WalCoordination> Wal<C> {
    /// Ends this attachment. The last one of all cleans up: it checkpoints
    /// and removes the log. Call it when no transaction is open; none of its
    /// handles is of use afterwards, and what a write transaction that is open commits may
    /// be lost. A second call does nothing.
    ///
    /// # Errors
    /// What the checkpoint or the removal gives. The attachment is ended all
    /// the same, and nothing is lost: the log stays.
    pub fn close(self: &Arc<Self>) -> Result<()> {
        let is_first = self.checkpoint_state().close();
        if !is_first || self.process().is_over() || !self.coordination().detach()? {
            return Ok(());
        }
        let report = self.checkpoint(CheckpointMode::Passive)?;
        if !rule!(RemovedLogIsBackfilled, report.is_complete()) {
            return Ok(());
        }
        let is_promised = report.log_frames > 0 && self.tuning().synchronous() != Synchronous::Off;
        if is_promised && !rule!(CloseProvesBackfill, prove_all_backfilled(self)?) {
            return Ok(());
        }
        if self.tuning().persistent_log() {
            return keep_log(self);
        }
        let was_empty = self.storage().log().is_empty()?;
        match remove_files(self) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                return empty_log_that_stays(self);
            }
            removed => removed?,
        }
        if self.tuning().synchronous() != Synchronous::Off && !was_empty {
            rule!(RemovalSync, {
                step(Point::DirectorySync);
                self.storage().sync_directory()?;
            });
        }
        Ok(())
    }
}

/// Removes the wal-index, then the log.
fn remove_files<C: WalCoordination>(wal: &Wal<C>) -> Result<()> {
    step(Point::ShmRemove);
    wal.coordination().remove()?;
    step(Point::LogRemove);
    wal.storage().remove_log()
}

/// A limit that is not its end would leave frames that the header does
/// not fit, so the log that stays is as it is, or empty. While a transaction of this
/// process is open, it stays as it is: its pages may be those of a mapping.
fn keep_log<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<()> {
    match wal.tuning().log_size_limit() {
        Some(_) => empty_log_that_stays(wal),
        None => Ok(()),
    }
}

/// A process that has given up its rights since it opened the database may write the files
/// and not remove them. An empty log says as little as none.
fn empty_log_that_stays<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<()> {
    if wal.storage().log().is_empty()? {
        return Ok(());
    }
    let alone = |lock| wal.try_lock(lock, LockMode::Exclusive);
    let (Some(_write), Some(_readers)) = (alone(Lock::Write)?, alone(Lock::ReadMarks)?) else {
        return Ok(());
    };
    step(Point::LogTruncate);
    wal.empty_log()
}

/// Makes the database file durable, which a peer that does not sync may have
/// backfilled. False if the header cannot be read, which says what that is to be
/// durable for: then the log stays, and the next opener recovers it.
fn prove_all_backfilled<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<bool> {
    match wal.header_cell()?.load() {
        Ok(header) => wal.backfill_proof(&header).map(|_| true),
        Err(_) => Ok(false),
    }
}
