//! Savepoints of the write transaction, one within the other.
//!
//! # Protocol
//! What changed after a savepoint is on the heap, or in frames behind the end
//! that the log had when the savepoint was spilled. Rolling back drops the
//! one, and cuts the index to the other. No frame at or below that end is
//! overwritten while the savepoint is open, so cutting is enough.
//!
//! # Crash
//! As for any transaction that has not committed.

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::write::dirty_pages::Savepoint;
use crate::protocol::write::write_tx::WriteTx;
use crate::types::PageNo;

impl<C: WalCoordination> WriteTx<C> {
    /// Sets a savepoint, to which the transaction can be rolled back.
    /// Savepoints lie one within the other; a commit takes them all. While one is open,
    /// an engine's frames are neither added nor cut off.
    pub fn savepoint(&mut self) -> Savepoint {
        self.changes.savepoint()
    }

    /// Takes pages and size back to what they were at `savepoint`, which can
    /// be rolled back to again; savepoints set after it are gone (`ROLLBACK
    /// TO`).
    ///
    /// # Errors
    /// [`crate::Error::NoSuchSavepoint`], [`crate::Error::UsedAfterFork`].
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        self.wal().check_process()?;
        if let Some(end) = self.changes.roll_back_to(savepoint)? {
            self.cut_own_frames(end);
        }
        Ok(())
    }

    /// As [`WriteTx::rollback_to`], and calls `undo` for each page that was
    /// changed, added or cut off since, so that whoever keeps copies of pages
    /// can drop them (`xUndo`). Pages behind the end are among them.
    ///
    /// # Errors
    /// As [`WriteTx::rollback_to`], and [`crate::Error::Corrupt`] if the wal-index
    /// contradicts itself; `undo` is not called then.
    pub fn rollback_to_with(
        &mut self,
        savepoint: Savepoint,
        undo: impl FnMut(PageNo),
    ) -> Result<()> {
        let mut changed = self.changes.changed(Some(savepoint))?;
        if let Some(end) = self.changes.log_end_at(savepoint)? {
            changed.extend(self.pages_in_log(Some(end))?);
        }
        self.rollback_to(savepoint)?;
        changed.into_iter().for_each(undo);
        Ok(())
    }

    /// Forgets `savepoint` and those set after it; what was changed stays
    /// (`RELEASE`).
    ///
    /// # Errors
    /// [`crate::Error::NoSuchSavepoint`].
    pub fn release(&mut self, savepoint: Savepoint) -> Result<()> {
        self.changes.release(savepoint)
    }
}
