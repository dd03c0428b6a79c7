//! What the readers of one attachment share.

use std::sync::Arc;

use crate::index::PageMap;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, Unpoison};

/// What the readers of one attachment share.
#[derive(Debug, Default)]
pub(in crate::protocol) struct ReadState {
    map: SharedMap,
    length_seen_in: AtomicU64,
}

impl ReadState {
    /// Forgets the private map of pages to frames: the log is another one. Transactions that
    /// have it keep it.
    pub(in crate::protocol) fn forget_map(&self) {
        let forgotten = self.map.current().take();
        drop(forgotten);
    }

    pub(super) fn map(&self) -> &SharedMap {
        &self.map
    }

    /// True if the length of the database file was last looked at in this state of the log.
    #[inline]
    pub(super) fn length_was_seen_in(&self, state: u64) -> bool {
        self.length_seen_in.load(Ordering::Acquire) == state
    }

    /// Notes that it was. The caller has forgotten the length that it had seen before.
    pub(super) fn note_length_seen_in(&self, state: u64) {
        self.length_seen_in.store(state, Ordering::Release);
    }
}

/// The map of an attachment.
#[derive(Debug, Default)]
pub(super) struct SharedMap(Mutex<Option<Arc<PageMap>>>);

impl SharedMap {
    pub(super) fn current(&self) -> MutexGuard<'_, Option<Arc<PageMap>>> {
        self.0.lock().unpoison()
    }
}
