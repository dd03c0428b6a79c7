//! The private map of pages to frames that a transaction uses: see [`super::find_frame`].

use std::sync::{Arc, OnceLock};

use crate::index::PageMap;
use crate::sync::{AtomicU32, Ordering};

/// The map that a transaction has taken up.
#[derive(Debug, Default)]
pub(in crate::protocol) struct TakenMap {
    pub(super) map: OnceLock<Arc<PageMap>>,
    /// About how many pages were looked for.
    looks: AtomicU32,
}

impl TakenMap {
    /// Counts a look. Some are not counted if threads share the transaction.
    #[inline]
    pub(super) fn look(&self) -> u32 {
        let looks = self.looks.load(Ordering::Relaxed).saturating_add(1);
        self.looks.store(looks, Ordering::Relaxed);
        looks
    }
}
