//! One block of the wal-index: 32 KiB of atomics.
//!
//! Shared memory is only ever touched through these atomics, whole words or
//! whole hash slots at a time, because stock SQLite and peer processes store to
//! it while this one loads.
//!
//! # Ordering
//! An [`IndexBlock`] may lie in memory that is mapped for reading alone. There a
//! store is a signal, and an atomic load is defined only if it is relaxed and at
//! most as wide as a register (`std::sync::atomic`, "Atomic accesses to
//! read-only memory"). So an `IndexBlock` gives relaxed loads of 16 and 32 bits
//! and nothing else; an acquire load is a relaxed one with a fence behind it. A
//! store needs a [`WritableBlock`], which only a backend makes, in memory that it
//! may write.

use std::ops::Deref;

use crate::shared_memory::LoadOnlyMemory;
use crate::sync::{AtomicU16, AtomicU32, Ordering, fence};
use crate::types::ReadSlot;

/// The mark of a slot that nobody reads at (`READMARK_NOT_USED`).
pub const MARK_NOT_USED: u32 = u32::MAX;

/// The length of a block in bytes (`WALINDEX_PGSZ`).
pub const BLOCK_LEN: usize = 32768;

/// The frames of every block but the first (`HASHTABLE_NPAGE`). Loom's blocks
/// are small: they have no more than their few hash slots have room for.
const BLOCK_FRAMES: u32 = if cfg!(loom) { 6 } else { 4096 };
/// How many 32-bit words precede the hash slots: one for each frame.
const WORDS: usize = FIRST_BLOCK_FRAMES as usize + HEADER_WORDS;
/// How many hash slots a block has (`HASHTABLE_NSLOT`).
pub(crate) const SLOTS: usize = if cfg!(loom) { 16 } else { 8192 };
/// How many words of block 0 are header, not entries (`WALINDEX_HDR_SIZE`).
const HEADER_WORDS: usize = 34;
/// Where the five read marks of block 0 begin, in words.
const MARKS: usize = 25;
/// The frames of block 0 (`HASHTABLE_NPAGE_ONE`).
const FIRST_BLOCK_FRAMES: u32 = if cfg!(loom) { 6 } else { BLOCK_FRAMES - 34 };

macro_rules! load_only {
    ($(#[$doc:meta])* $name:ident, $atomic:ident, $integer:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[cfg_attr(not(loom), derive(bytemuck::Zeroable))]
        pub(crate) struct $name($atomic);

        crate::shared_memory!($name { 0 });

        impl $name {
            /// Loads the value, in no order with anything else.
            #[inline(always)]
            pub(crate) fn load(&self) -> $integer {
                self.0.load(Ordering::Relaxed)
            }

            /// Loads the value; what the storing thread did before a release store
            /// of it is visible behind this call.
            #[inline(always)]
            pub(crate) fn load_acquire(&self) -> $integer {
                let value = self.load();
                // Not an acquire load: see "Ordering".
                fence(Ordering::Acquire);
                value
            }
        }
    };
}

load_only! {
    /// A word of a block, which can be loaded.
    Word, AtomicU32, u32
}
load_only! {
    /// A hash slot of a block, which can be loaded.
    HashSlot, AtomicU16, u16
}

/// One block of the wal-index, for loads.
///
/// All bit patterns are valid, so a mapping of any file, hostile contents
/// included, can be seen as blocks.
#[repr(C, align(8))]
#[cfg_attr(not(loom), derive(bytemuck::Zeroable))]
pub struct IndexBlock {
    words: [Word; WORDS],
    slots: [HashSlot; SLOTS],
}

crate::shared_memory!(IndexBlock { words, slots });

// SAFETY: `Word` and `HashSlot` have relaxed loads of 32 and 16 bits, and no stores but
// in the methods of `WritableBlock`.
#[allow(unsafe_code)]
unsafe impl LoadOnlyMemory for IndexBlock {}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<IndexBlock>() == BLOCK_LEN);
    assert!(std::mem::offset_of!(IndexBlock, slots) == 16384);
    assert!(HEADER_WORDS * 4 == 136);
    assert!(BLOCK_FRAMES as usize == WORDS);
    assert!(FIRST_BLOCK_FRAMES == 4062);
};

impl IndexBlock {
    /// The block at `start`, in memory that an engine above has mapped (`xShmMap`).
    ///
    /// # Safety
    /// [`BLOCK_LEN`] bytes at `start` are mapped for reading as long as `'a` lasts, at a
    /// multiple of 8, and are a block of a wal-index: every process stores to them by words.
    #[cfg(not(loom))]
    #[allow(unsafe_code)] // Giving mapped memory a type is unsafe in Rust.
    pub unsafe fn from_mapped<'a>(start: std::ptr::NonNull<u8>) -> &'a Self {
        // SAFETY: the caller has mapped as many bytes, aligned for an `IndexBlock`. Any bytes
        // are one, and it is only loaded from, by relaxed loads (`LoadOnlyMemory`).
        unsafe { start.cast().as_ref() }
    }

    /// The mark of `slot` in block 0, for a coordination that keeps the marks
    /// there. Acquire: pairs with the release of [`WritableBlock::set_mark`].
    #[inline]
    pub fn mark(&self, slot: ReadSlot) -> u32 {
        self.words[MARKS + slot.index()].load_acquire()
    }

    /// The words of block 0 before its entries.
    #[inline]
    pub(crate) fn header_words(&self) -> &[Word] {
        &self.words[..HEADER_WORDS]
    }

    /// The page number of each frame of block `index`; element 0 is the
    /// block's first frame.
    pub(crate) fn pages(&self, index: u32) -> &[Word] {
        if index == 0 {
            &self.words[HEADER_WORDS..]
        } else {
            &self.words[..BLOCK_FRAMES as usize]
        }
    }

    /// The hash slots: 0 is empty, otherwise 1 + the place in
    /// [`IndexBlock::pages`].
    pub(crate) fn slots(&self) -> &[HashSlot; SLOTS] {
        &self.slots
    }
}

/// One block of the wal-index in memory that may be written, for loads and stores.
///
/// Safe code has no way from an [`IndexBlock`] to a block that it can store to:
///
/// ```compile_fail,E0308
/// use wal_core::index::{IndexBlock, WritableBlock};
///
/// fn writable(block: &IndexBlock) -> &WritableBlock {
///     block
/// }
/// ```
#[repr(transparent)]
#[cfg_attr(not(loom), derive(bytemuck::Zeroable))]
pub struct WritableBlock(IndexBlock);

crate::shared_memory!(WritableBlock { 0 });

impl Deref for WritableBlock {
    type Target = IndexBlock;

    #[inline(always)]
    fn deref(&self) -> &IndexBlock {
        &self.0
    }
}

impl WritableBlock {
    /// A block on the heap, all zero.
    #[cfg(not(loom))]
    pub fn zeroed() -> Box<Self> {
        bytemuck::zeroed_box()
    }

    /// A block on the heap, all zero.
    #[cfg(loom)]
    pub fn zeroed() -> Box<Self> {
        Box::new(WritableBlock(IndexBlock {
            words: std::array::from_fn(|_| Word(AtomicU32::new(0))),
            slots: std::array::from_fn(|_| HashSlot(AtomicU16::new(0))),
        }))
    }

    /// Stores the mark of `slot` in block 0.
    ///
    /// # Safety
    /// As for [`crate::WalCoordination::set_mark`].
    #[allow(unsafe_code)] // Whoever calls it promises to hold the slot.
    pub unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        self.store_word(MARKS + slot.index(), mark, Ordering::Release);
    }

    /// Stores word `at` of block 0, which is one before its entries.
    #[inline]
    pub(crate) fn store_word(&self, at: usize, value: u32, order: Ordering) {
        self.header_words()[at].0.store(value, order);
    }

    /// Stores the page number of the frame at `place` of block `index`.
    #[inline]
    pub(crate) fn store_page(&self, index: u32, place: usize, page: u32, order: Ordering) {
        self.pages(index)[place].0.store(page, order);
    }

    /// Stores the hash slot `at`.
    #[inline]
    pub(crate) fn store_slot(&self, at: usize, value: u16, order: Ordering) {
        self.slots[at].0.store(value, order);
    }
}

impl std::fmt::Debug for IndexBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexBlock")
    }
}

impl std::fmt::Debug for WritableBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WritableBlock")
    }
}

/// The block that holds `frame` (at least 1), and its place there, from 0
/// (`walFramePage`).
pub(crate) const fn block_of_frame(frame: u32) -> (u32, usize) {
    if frame <= FIRST_BLOCK_FRAMES {
        (0, frame as usize - 1)
    } else {
        let behind = frame - FIRST_BLOCK_FRAMES - 1;
        (1 + behind / BLOCK_FRAMES, (behind % BLOCK_FRAMES) as usize)
    }
}

/// The frame before the first one of block `index` (`WalHashLoc.iZero`).
pub(crate) const fn frame_before_block(index: u32) -> u32 {
    if index == 0 {
        0
    } else {
        last_frame_of_block(index - 1)
    }
}

/// The last frame that block `index` has room for.
pub(crate) const fn last_frame_of_block(index: u32) -> u32 {
    FIRST_BLOCK_FRAMES.saturating_add(index.saturating_mul(BLOCK_FRAMES))
}

/// The slot at which the chain of `page` begins (`walHash`).
pub(super) fn hash(page: u32) -> usize {
    (page as usize).wrapping_mul(383) & (SLOTS - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn frames_fill_block_after_block() {
        assert_eq!(block_of_frame(1), (0, 0));
        assert_eq!(block_of_frame(4062), (0, 4061));
        assert_eq!(block_of_frame(4063), (1, 0));
        assert_eq!(block_of_frame(4062 + 4096), (1, 4095));
        assert_eq!(block_of_frame(4062 + 4096 + 1), (2, 0));
        for frame in [1, 4062, 4063, 8158, 8159, 1_000_000, u32::MAX] {
            let (block, place) = block_of_frame(frame);
            assert_eq!(
                u64::from(frame_before_block(block)) + place as u64 + 1,
                u64::from(frame)
            );
        }
    }
}
