//! The proof that a backfilled log may be overwritten.
//!
//! A complete backfill lets the next writer restart the log, and with it the
//! only other copy of the pages goes. So the database file has to be durable
//! first. The count in shared memory does not say so: a peer at
//! `synchronous=OFF` publishes it without a sync. A [`BackfillProof`] exists
//! only once this attachment has synced the database file for that very
//! generation and frame, or was told not to care ([`Synchronous::Off`]).
//! Whatever publishes a complete backfill, restarts the log or truncates it
//! takes one, so the order in which that would be unsafe does not compile.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::protocol::checkpoint::backfill_proof::BackfillProof;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LocksHeld;
use crate::testing::rule;
use crate::types::{Lock, PageNo};

impl<C: WalCoordination> Wal<C> {
    /// Syncs the database file, if all of the log is in it, and gives the
    /// proof of that, with which [`Wal::restart_log`] and
    /// [`Wal::truncate_log`] overwrite the log. `None` if some of the log is
    /// not in the database file.
    ///
    /// # Errors
    /// [`crate::Error::Busy`] if a checkpoint is running, [`crate::Error::Cancelled`], and
    /// what [`Wal::checkpoint_with`] gives.
    pub fn prove_backfill(
        self: &Arc<Self>,
        busy: impl Into<BusyHandler>,
    ) -> Result<Option<BackfillProof>> {
        self.check_writable()?;
        let mut waiter = Waiter::new(busy.into());
        let checkpoint = self.lock_or_busy(Lock::Checkpoint, &mut waiter)?;
        let held = LocksHeld {
            write: None,
            checkpoint: Some(&checkpoint),
        };
        let header = self.settled_header(&held)?;
        // Only the holder of Checkpoint raises the count, and a restart by
        // stock SQLite, which may not hold it, changes the salts.
        if self.checkpoint_info()?.backfilled() != header.max_frame() {
            return Ok(None);
        }
        let proof = self.install_durable_backfill_proof(&header)?;
        let is_same = rule!(ProofHeaderRecheck, self.header_cell()?.is(&header));
        Ok(is_same.then_some(proof))
    }

    /// The proof for all of the log that `header` publishes. The caller has
    /// seen it backfilled, and holds locks that keep it so. The database file
    /// is synced unless this attachment did that already.
    pub(in crate::protocol) fn backfill_proof(
        &self,
        header: &IndexHeader,
    ) -> Result<BackfillProof> {
        let last = self.checkpoint_state().proofs().get();
        // One that was made without a sync does not serve who syncs by now.
        let synced =
            |proof: &BackfillProof| proof.synced || self.tuning().synchronous() == Synchronous::Off;
        let holds =
            |proof: &BackfillProof| synced(proof) && self.check_proof(proof, header).is_ok();
        match last.filter(holds) {
            Some(proof) => Ok(proof),
            None => self.install_durable_backfill_proof(header),
        }
    }

    /// Syncs the database file, to which all of the log that `header` publishes has been
    /// written, and installs the proof of that in the attachment. The caller has written the
    /// pages, or has seen the count that says so.
    pub(super) fn install_durable_backfill_proof(
        &self,
        header: &IndexHeader,
    ) -> Result<BackfillProof> {
        let synced = self.tuning().synchronous() != Synchronous::Off;
        if synced {
            rule!(ProofSync, {
                self.sync_database()?;
            });
        }
        let proof = BackfillProof {
            attachment: self.checkpoint_state().proofs().attachment(),
            salts: header.salts(),
            max_frame: header.max_frame(),
            page_count: header.page_count(),
            page_one: page_one_digest(self)?,
            synced,
        };
        self.checkpoint_state().proofs().set(proof);
        Ok(proof)
    }

    /// Refuses a proof that is not for all of the log that `header` publishes
    /// and for the database file as it is.
    pub(super) fn check_proof(&self, proof: &BackfillProof, header: &IndexHeader) -> Result<()> {
        if proof.attachment != self.checkpoint_state().proofs().attachment() {
            return Err(proof.refused("it is another attachment's"));
        }
        if !proof.covers(header) {
            return Err(proof.refused("the log has gone on since"));
        }
        let len = u64::from(proof.page_count) * u64::from(self.config().page_size.bytes());
        let is_same = rule!(
            ProofMatchesDatabase,
            proof.page_count == header.page_count()
                && self.storage().database().len()? >= len
                && page_one_digest(self)? == proof.page_one
        );
        if !is_same {
            return Err(proof.refused("the database file is not as it was"));
        }
        Ok(())
    }
}

/// CRC-32C of page 1 in the database file; of nothing, if there is none.
fn page_one_digest<C: WalCoordination>(wal: &Wal<C>) -> Result<u32> {
    let mut page = vec![0; wal.config().page_size.len()];
    let offset = PageNo::ONE.offset(wal.config().page_size);
    let read = wal.storage().database().read_at(&mut page, offset)?;
    Ok(crc32c::crc32c(&page[..read]))
}
