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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::IndexHeader;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::read::header::Held;
use crate::protocol::{Synchronous, Wal};
use crate::sync::Unpoison;
use crate::testing::{Mutation, mutated};
use crate::types::{Lock, PageNo, Salts};

/// Shows that the frames of one generation up to its last one are in the
/// database file, and durable there.
///
/// It is made only by [`Wal::prove_backfill`] and by a complete checkpoint,
/// belongs to the attachment that made it, and is refused once the log or the
/// database is another.
///
/// ```compile_fail
/// # use wal_core::protocol::BackfillProof;
/// let forge = |proof: BackfillProof| BackfillProof { max_frame: 7, ..proof };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackfillProof {
    attachment: AttachmentId,
    salts: Salts,
    max_frame: u32,
    page_count: u32,
    /// CRC-32C of page 1 as it was synced.
    page_one: u32,
    synced: bool,
    /// CRC-32C of all of the above.
    seal: u32,
}

impl BackfillProof {
    /// The generation that the proof is for.
    pub fn salts(&self) -> Salts {
        self.salts
    }

    /// The last frame of the log, which is in the database file.
    pub fn max_frame(&self) -> u32 {
        self.max_frame
    }

    /// The size of the database in pages.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// False if the database file was not synced, because the attachment is
    /// at [`Synchronous::Off`].
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// True if the proof is for all of the log that `header` publishes.
    pub(in crate::protocol) fn covers(&self, header: &IndexHeader) -> bool {
        self.salts == header.salts() && self.max_frame == header.max_frame()
    }

    fn sealed(mut self) -> Self {
        self.seal = self.sum();
        self
    }

    fn sum(&self) -> u32 {
        let mut sum = crc32c::crc32c(&self.attachment.0.to_ne_bytes());
        sum = crc32c::crc32c_append(sum, &self.salts.0);
        for word in [self.max_frame, self.page_count, self.page_one] {
            sum = crc32c::crc32c_append(sum, &word.to_ne_bytes());
        }
        crc32c::crc32c_append(sum, &[u8::from(self.synced)])
    }

    /// The proof, as one that speaks of a sync and was made without, or the other way
    /// round.
    #[cfg(all(feature = "conformance", not(loom)))]
    pub(crate) fn tampered_with(self) -> Self {
        let synced = !self.synced;
        BackfillProof { synced, ..self }
    }

    fn refused(&self, why: &'static str) -> Error {
        Error::ProofRefused {
            max_frame: self.max_frame,
            why,
        }
    }
}

/// Tells attachments of a process apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct AttachmentId(u64);

/// The newest proof of an attachment.
#[derive(Debug)]
pub(in crate::protocol) struct LastProof {
    attachment: AttachmentId,
    proof: Mutex<Option<BackfillProof>>,
}

impl LastProof {
    pub(in crate::protocol) fn none() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        LastProof {
            attachment: AttachmentId(NEXT.fetch_add(1, Ordering::Relaxed)),
            proof: Mutex::new(None),
        }
    }

    fn proof(&self) -> MutexGuard<'_, Option<BackfillProof>> {
        self.proof.lock().unpoison()
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Syncs the database file, if all of the log is in it, and gives the
    /// proof of that, with which [`Wal::restart_log`] and
    /// [`Wal::truncate_log`] overwrite the log. `None` if some of the log is
    /// not in the database file.
    ///
    /// # Errors
    /// [`Error::Busy`] if a checkpoint is running, [`Error::Cancelled`], and
    /// what [`Wal::checkpoint_with`] gives.
    pub fn prove_backfill(
        self: &Arc<Self>,
        busy: impl Into<BusyHandler>,
    ) -> Result<Option<BackfillProof>> {
        self.check_writable()?;
        let mut waiter = Waiter::new(busy.into());
        let checkpoint = self.lock_or_busy(Lock::Checkpoint, &mut waiter)?;
        let held = Held {
            write: None,
            checkpoint: Some(&checkpoint),
        };
        let header = self.settled_header(&held)?;
        // Only the holder of Checkpoint raises the count, and a restart by
        // stock SQLite, which may not hold it, changes the salts.
        if self.checkpoint_info()?.backfilled() != header.max_frame() {
            return Ok(None);
        }
        let proof = self.prove_backfilled(&header)?;
        let is_same = self.header_cell()?.is(&header) || mutated(Mutation::SkipProofRecheck);
        Ok(is_same.then_some(proof))
    }

    /// The proof for all of the log that `header` publishes. The caller has
    /// seen it backfilled, and holds locks that keep it so. The database file
    /// is synced unless this attachment did that already.
    pub(in crate::protocol) fn backfill_proof(
        &self,
        header: &IndexHeader,
    ) -> Result<BackfillProof> {
        let last = *self.proof.proof();
        // One that was made without a sync does not serve who syncs by now.
        let synced = |proof: &BackfillProof| proof.synced || self.synchronous() == Synchronous::Off;
        let holds =
            |proof: &BackfillProof| synced(proof) && self.check_proof(proof, header).is_ok();
        match last.filter(holds) {
            Some(proof) => Ok(proof),
            None => self.prove_backfilled(header),
        }
    }

    /// Syncs the database file, to which the caller has written all of the log
    /// that `header` publishes, or seen it written.
    pub(in crate::protocol) fn prove_backfilled(
        &self,
        header: &IndexHeader,
    ) -> Result<BackfillProof> {
        let synced = self.synchronous() != Synchronous::Off;
        if synced && !mutated(Mutation::SkipProof) {
            self.sync_database()?;
        }
        let proof = BackfillProof {
            attachment: self.proof.attachment,
            salts: header.salts(),
            max_frame: header.max_frame(),
            page_count: header.page_count(),
            page_one: self.page_one_digest()?,
            synced,
            seal: 0,
        }
        .sealed();
        *self.proof.proof() = Some(proof);
        Ok(proof)
    }

    /// Refuses a proof that is not for all of the log that `header` publishes
    /// and for the database file as it is.
    pub(in crate::protocol) fn check_proof(
        &self,
        proof: &BackfillProof,
        header: &IndexHeader,
    ) -> Result<()> {
        if mutated(Mutation::AcceptAnyProof) {
            return Ok(());
        }
        if proof.attachment != self.proof.attachment {
            return Err(proof.refused("it is another attachment's"));
        }
        if !proof.covers(header) {
            return Err(proof.refused("the log has gone on since"));
        }
        let len = u64::from(proof.page_count) * u64::from(self.config.page_size.bytes());
        let changed = proof.page_count != header.page_count()
            || self.storage.database().len()? < len
            || self.page_one_digest()? != proof.page_one
            || proof.sum() != proof.seal && !mutated(Mutation::SkipProofSeal);
        if changed {
            return Err(proof.refused("the database file is not as it was"));
        }
        Ok(())
    }

    /// CRC-32C of page 1 in the database file; of nothing, if there is none.
    fn page_one_digest(&self) -> Result<u32> {
        let mut page = vec![0; self.config.page_size.len()];
        let offset = PageNo::ONE.offset(self.config.page_size);
        let read = self.storage.database().read_at(&mut page, offset)?;
        Ok(crc32c::crc32c(&page[..read]))
    }
}
