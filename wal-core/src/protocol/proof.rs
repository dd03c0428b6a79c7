//! The proof that a backfilled log may be overwritten.
//!
//! A complete backfill lets the next writer restart the log, and with it the
//! only other copy of the pages goes. So the database file has to be durable
//! first. The count in shared memory does not say so: a peer at
//! `synchronous=OFF` publishes it without a sync. A [`BackfillProof`] exists
//! only once this attachment has synced the database file for that very
//! generation and frame, or was told not to care ([`Synchronous::Off`]).

use std::sync::{Mutex, PoisonError};

use super::{Synchronous, Wal};
use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
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
        let mut last = self.proof.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(proof) = last.filter(|proof| proof.covers(header)) {
            return Ok(proof);
        }
        if self.config.synchronous != Synchronous::Off {
            self.sync_database()?;
        }
        let proof = BackfillProof {
            salts: header.salts(),
            max_frame: header.max_frame(),
        };
        *last = Some(proof);
        Ok(proof)
    }
}
