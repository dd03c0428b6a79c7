//! The proof that a backfilled log may be overwritten.
//!
//! A complete backfill lets the next writer restart the log, and with it the
//! only other copy of the pages goes. So the database file has to be durable
//! first. The count in shared memory does not say so: a peer at
//! `synchronous=OFF` publishes it without a sync. A [`BackfillProof`] exists
//! only once this attachment has synced the database file for that very
//! generation and frame, or was told not to care ([`Synchronous::Off`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Synchronous, Wal};
use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::testing::{Mutation, mutated};
use crate::types::Salts;

/// Shows that the frames of one generation up to one frame are in the
/// database file and durable there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackfillProof {
    salts: Salts,
    max_frame: u32,
}

impl BackfillProof {
    /// True if the proof is for all of the log that `header` publishes.
    pub(super) fn covers(&self, header: &IndexHeader) -> bool {
        self.salts == header.salts() && self.max_frame == header.max_frame()
    }
}

/// The newest proof of an attachment.
#[derive(Debug, Default)]
pub(super) struct LastProof(Mutex<Option<BackfillProof>>);

impl<C: WalCoordination> Wal<C> {
    /// The proof for all of the log that `header` publishes. The caller has
    /// seen it backfilled, and holds locks that keep it so. The database file
    /// is synced unless this attachment did that already.
    pub(super) fn backfill_proof(&self, header: &IndexHeader) -> Result<BackfillProof> {
        let last = *self.last_proof();
        match last.filter(|proof| proof.covers(header)) {
            Some(proof) => Ok(proof),
            None => self.prove_backfill(header),
        }
    }

    /// Syncs the database file, to which the caller has written all of the log
    /// that `header` publishes, or seen it written.
    pub(super) fn prove_backfill(&self, header: &IndexHeader) -> Result<BackfillProof> {
        if self.config.synchronous != Synchronous::Off && !mutated(Mutation::SkipProof) {
            self.sync_database()?;
        }
        let proof = BackfillProof {
            salts: header.salts(),
            max_frame: header.max_frame(),
        };
        *self.last_proof() = Some(proof);
        Ok(proof)
    }

    fn last_proof(&self) -> MutexGuard<'_, Option<BackfillProof>> {
        self.proof.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
