//! A writer restarts the log before it writes, if all of it is backfilled (`walRestartLog`):
//! see [`crate::protocol::checkpoint::restart`].

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::protocol::write::write_tx::WriteTx;
use crate::testing::rule;
use crate::types::{Lock, LockMode, Salts};

impl<C: WalCoordination> WriteTx<C> {
    /// Restarts the log if that can be done at once; `Some` is the header
    /// that it published (`walRestartLog`).
    pub(super) fn try_restart_log_before_write(&mut self) -> Result<Option<IndexHeader>> {
        let may_restart =
            self.read.snapshot.bypasses_log() && self.wal().config().auto_actions.restart;
        let restarted = match may_restart {
            true => {
                // A leader may have published all, and not said so yet: what it
                // keeps would be of the log before.
                self.wal().publish_all()?;
                self.try_restart_log(self.read.snapshot.header.salts().next())?
            }
            false => None,
        };
        if restarted.is_none() {
            let max_frame = self.read.snapshot.max_frame();
            self.wal().leave_usable_mark(max_frame)?;
        }
        Ok(restarted)
    }

    /// Begins the log anew as generation `salts`, if that can be done at once.
    /// All of the log that the caller sees is in the database file.
    pub(in crate::protocol) fn try_restart_log(
        &mut self,
        salts: Salts,
    ) -> Result<Option<IndexHeader>> {
        let wal = self.wal().clone();
        let header = self.read.snapshot.header;
        if header.max_frame() == 0 {
            return Ok(None);
        }
        let checkpoint = wal.try_lock(Lock::Checkpoint, LockMode::Exclusive)?;
        if !rule!(RestartHoldsCkpt, checkpoint.is_some()) {
            return Ok(None);
        }
        let readers = wal.try_lock(Lock::ReadMarks, LockMode::Exclusive)?;
        if !rule!(RestartHoldsReadMarks, readers.is_some()) {
            return Ok(None);
        }
        // A recovery since this transaction began may have set it back to 0.
        let backfilled = wal.checkpoint_info()?.backfilled();
        if !rule!(RestartCountRecheck, backfilled == header.max_frame()) {
            return Ok(None);
        }
        let proof = wal.backfill_proof(&header)?;
        let published = wal.publish_restart(&header, &proof, salts)?;
        drop(readers);
        drop(checkpoint);
        self.read.move_to(published);
        Ok(Some(published))
    }
}
