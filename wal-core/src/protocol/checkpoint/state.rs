//! What the checkpoints of one attachment share.

use super::backfill_proof::LastProof;
use super::pace::TriedAt;
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// What the checkpoints of one attachment share.
#[derive(Debug)]
pub(in crate::protocol) struct CheckpointState {
    proofs: LastProof,
    restarts: TriedAt,
    sequence: AtomicU32,
    closed: AtomicBool,
}

impl CheckpointState {
    pub(in crate::protocol) fn new() -> Self {
        CheckpointState {
            proofs: LastProof::none(),
            restarts: TriedAt::default(),
            sequence: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// The checkpoint sequence number for the next log header, as far as this attachment
    /// knows it. The caller holds `WRITE`.
    pub(in crate::protocol) fn sequence(&self) -> u32 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// Sets it to that of a log that was recovered.
    pub(in crate::protocol) fn set_sequence(&self, sequence: u32) {
        self.sequence.store(sequence, Ordering::Relaxed);
    }

    /// Counts a restart of the log.
    pub(super) fn count_restart(&self) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
    }

    /// False if the attachment was closed before.
    pub(super) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn proofs(&self) -> &LastProof {
        &self.proofs
    }

    pub(super) fn restarts(&self) -> &TriedAt {
        &self.restarts
    }
}
