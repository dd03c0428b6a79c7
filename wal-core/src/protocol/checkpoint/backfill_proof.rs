//! The value that shows that a backfilled log may be overwritten: see [`super::proof`].

use crate::error::Error;
use crate::index::IndexHeader;
use crate::sync::{Mutex, MutexGuard, Ordering, Unpoison};
use crate::types::Salts;

/// Shows that the frames of one generation up to its last one are in the
/// database file, and durable there.
///
/// It is made only by [`crate::protocol::Wal::prove_backfill`] and by a complete checkpoint,
/// belongs to the attachment that made it, and is refused once the log or the
/// database is another.
///
/// ```compile_fail
/// # use wal_core::protocol::BackfillProof;
/// let forge = |proof: BackfillProof| BackfillProof { max_frame: 7, ..proof };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackfillProof {
    pub(super) attachment: AttachmentId,
    pub(super) salts: Salts,
    pub(super) max_frame: u32,
    pub(super) page_count: u32,
    /// CRC-32C of page 1 as it was synced.
    pub(super) page_one: u32,
    pub(super) synced: bool,
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
    /// at [`crate::protocol::Synchronous::Off`].
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// True if the proof is for all of the log that `header` publishes.
    pub(in crate::protocol) fn covers(&self, header: &IndexHeader) -> bool {
        self.salts == header.salts() && self.max_frame == header.max_frame()
    }

    pub(super) fn refused(&self, why: &'static str) -> Error {
        Error::ProofRefused {
            max_frame: self.max_frame,
            why,
        }
    }
}

/// Tells attachments of a process apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AttachmentId(u64);

/// The newest proof of an attachment.
#[derive(Debug)]
pub(super) struct LastProof {
    attachment: AttachmentId,
    proof: Mutex<Option<BackfillProof>>,
}

impl LastProof {
    pub(super) fn none() -> Self {
        // Numbers differ whatever order they are drawn in.
        #[expect(clippy::disallowed_types, reason = "a static outlives a model")]
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        LastProof {
            attachment: AttachmentId(NEXT.fetch_add(1, Ordering::Relaxed)),
            proof: Mutex::new(None),
        }
    }

    /// Which attachment it is of.
    pub(super) fn attachment(&self) -> AttachmentId {
        self.attachment
    }

    pub(super) fn get(&self) -> Option<BackfillProof> {
        *self.proof()
    }

    pub(super) fn set(&self, proof: BackfillProof) {
        *self.proof() = Some(proof);
    }

    fn proof(&self) -> MutexGuard<'_, Option<BackfillProof>> {
        self.proof.lock().unpoison()
    }
}
