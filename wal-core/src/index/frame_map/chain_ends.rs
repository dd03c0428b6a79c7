//! Where the hash chains of pages that are written all the time end, so that they are
//! not walked each time.
//!
//! Such a page has an entry for each of its frames in the chain of a block, thousands
//! maybe, and whoever adds one or looks for the newest passes all others. So who has
//! walked far remembers to which slot.
//!
//! # Protocol
//! A slot that is remembered is a guess, and of use only if an entry of that page is
//! there *now*, whoever has stored it, in whichever generation. Then all slots from the
//! beginning of the chain to it are in use, and the entries of the page in them are
//! older: a new entry takes the first free slot, and whoever adds one has cleared all that
//! was behind the newest frame, or the whole block. So whoever goes on from there finds
//! what it would have found from the beginning.
//!
//! # Ordering
//! None: the slot and the page number are loaded anew, as on the way there.

use std::fmt;

use crate::index::block::{HashSlot, SLOTS, Word, hash};
use crate::sync::{AtomicU64, Ordering};

/// How many pages are remembered at a time, a power of two; fewer where the model checker
/// makes them anew for each execution.
const PAGES: usize = if cfg!(loom) { 4 } else { 256 };

/// The slots that are remembered.
pub(crate) struct ChainEnds {
    /// A page number and a slot.
    ends: [AtomicU64; PAGES],
}

impl Default for ChainEnds {
    fn default() -> Self {
        ChainEnds {
            ends: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl fmt::Debug for ChainEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainEnds").finish_non_exhaustive()
    }
}

impl ChainEnds {
    fn of(&self, page: u32) -> &AtomicU64 {
        &self.ends[page as usize & (PAGES - 1)]
    }

    /// The slot that is remembered for `page`.
    pub(in crate::index) fn get(&self, page: u32) -> Option<usize> {
        let end = self.of(page).load(Ordering::Relaxed);
        (end >> 32 == u64::from(page)).then_some((end & 0xffff) as usize)
    }

    /// Remembers `slot` for `page`.
    pub(in crate::index) fn remember(&self, page: u32, slot: usize) {
        let end = u64::from(page) << 32 | slot as u64;
        self.of(page).store(end, Ordering::Relaxed);
    }
}

/// After so many slots of a chain it is asked to where it was walked before.
pub(in crate::index) const FAR: usize = 8;
/// After so many it is worth it to remember where it ended, for who only looks.
pub(in crate::index) const VERY_FAR: usize = 64;

/// The slots of a block, and the page of each of its frames.
pub(in crate::index) type Entries<'b> = (&'b [HashSlot; SLOTS], &'b [Word]);

/// An entry of a page that is further on in its chain.
pub(in crate::index) struct Further {
    pub(in crate::index) slot: usize,
    /// The entry, counted from 1.
    pub(in crate::index) value: u16,
}

impl Further {
    /// The entry of `page` at the slot that is remembered, if it is beyond `at`, which is
    /// in the chain too.
    pub(in crate::index) fn than(
        at: usize,
        page: u32,
        entries: Entries<'_>,
        ends: &ChainEnds,
    ) -> Option<Self> {
        let slot = ends.get(page).filter(|&slot| slot < SLOTS)?;
        let from_begin = |slot: usize| slot.wrapping_sub(hash(page)) & (SLOTS - 1);
        if from_begin(slot) <= from_begin(at) {
            return None;
        }
        // Acquire: as on the way there.
        let (slots, pages) = entries;
        let value = slots[slot].load_acquire();
        let cell = pages.get(usize::from(value).checked_sub(1)?)?;
        let is_there = cell.load() == page;
        is_there.then_some(Further { slot, value })
    }
}
