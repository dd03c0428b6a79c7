//! Syncs of the two files, and what a failed one leaves.
//!
//! # Protocol
//! The kernel may drop the pages that it could not write and report that once. So a failed
//! sync is never retried as if nothing had happened: the attachment is poisoned, and writes
//! nothing more.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::handle::Wal;
use crate::storage::{File, FileSyncType};
use crate::testing::rule;
use crate::types::{Lock, LockMode};

impl<C: WalCoordination> Wal<C> {
    /// Syncs the log. A failure poisons this attachment: the kernel may have
    /// dropped the pages that it could not write, so a second sync would lie.
    pub(in crate::protocol) fn sync_log(&self) -> Result<()> {
        let synced = self.sync(self.storage().log());
        if synced.is_err() {
            self.tell_failed_log_sync();
        }
        synced
    }

    /// Syncs the database file, as [`Wal::sync_log`]. The caller holds CKPT, or owns
    /// the database.
    ///
    /// After a failure no frame counts as backfilled: the pages of an earlier, partial
    /// backfill, which was not synced, may be lost with those of this one. So the next
    /// checkpointer writes all of them again. A count that is too low is always safe.
    pub(in crate::protocol) fn sync_database(&self) -> Result<()> {
        let synced = self.sync(self.storage().database());
        if synced.is_err()
            && let Ok(block_zero) = self.writable_block_zero()
        {
            block_zero.set_backfilled(0);
        }
        synced
    }

    /// As [`Wal::sync_database`], without CKPT. A checkpointer that holds it syncs the
    /// file itself, by a descriptor that hears of the failure too.
    pub(in crate::protocol) fn sync_database_beside_checkpoints(self: &Arc<Self>) -> Result<()> {
        let synced = self.sync(self.storage().database());
        if synced.is_err()
            && let Ok(Some(_checkpoint)) = self.try_lock(Lock::Checkpoint, LockMode::Exclusive)
            && let Ok(block_zero) = self.writable_block_zero()
        {
            block_zero.set_backfilled(0);
        }
        synced
    }

    pub(in crate::protocol) fn sync(&self, file: &dyn File) -> Result<()> {
        let synced = file.sync(FileSyncType::Data);
        if synced.is_ok() {
            observe!(self, Synced { path: file.path() });
        } else {
            self.poison();
            observe!(self, SyncFailed { path: file.path() });
        }
        synced
    }

    /// True after a sync that failed: this attachment refuses to write.
    pub fn is_poisoned(&self) -> bool {
        self.durability_state().is_poisoned()
    }

    pub(in crate::protocol) fn poison(&self) {
        rule!(FailedSyncPoisons, {
            self.durability_state().poison();
        });
    }
}
