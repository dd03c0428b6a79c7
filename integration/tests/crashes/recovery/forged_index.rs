//! A wal-index made by hand, with sound checksums and whatever contents a test
//! wants. It uses nothing of the library, whose mistakes it would share.
//!
//! # Layout
//! See `WalIndexHdr` and `WalCkptInfo` in SQLite's `wal.c`: the header twice
//! from 0 on, the checkpoint words from 96 on, page numbers from 136 on, and
//! 8192 hash slots of 16 bits from 16384 on, all in the host's byte order.

/// The bytes of a `-shm` file of one block.
pub(crate) struct ForgedIndex {
    bytes: Vec<u8>,
}

/// Where the fields of the header are.
pub(crate) const VERSION: usize = 0;
pub(crate) const MAX_FRAME: usize = 16;
pub(crate) const PAGE_COUNT: usize = 20;

const PAGES: usize = 136;
const SLOTS: usize = 16384;
const SLOT_COUNT: usize = 8192;

impl ForgedIndex {
    /// Goes on from the bytes of a sound index.
    pub(crate) fn from(bytes: Vec<u8>) -> Self {
        ForgedIndex { bytes }
    }

    /// Stores a word of the header in both copies.
    pub(crate) fn set_header(&mut self, offset: usize, word: u32) {
        self.set_word(offset, word);
    }

    /// Stores the page size of the header: 1 stands for 65536.
    pub(crate) fn set_page_size(&mut self, size: u16) {
        self.bytes[14..16].copy_from_slice(&size.to_ne_bytes());
    }

    /// Stores any word.
    pub(crate) fn set_word(&mut self, offset: usize, word: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
    }

    /// Says that `frame`, of block 0, holds `page`.
    pub(crate) fn add_entry(&mut self, frame: u16, page: u32) {
        self.set_word(PAGES + (usize::from(frame) - 1) * 4, page);
        let mut slot = page as usize * 383 % SLOT_COUNT;
        while self.slot(slot) != 0 {
            slot = (slot + 1) % SLOT_COUNT;
        }
        self.set_slot(slot, frame);
    }

    /// Stores the same value in every hash slot.
    pub(crate) fn fill_slots(&mut self, value: u16) {
        for slot in 0..SLOT_COUNT {
            self.set_slot(slot, value);
        }
    }

    /// Overwrites everything behind the header with what `rng` gives.
    pub(crate) fn scramble(&mut self, rng: &mut fastrand::Rng) {
        rng.fill(&mut self.bytes[96..120]);
        rng.fill(&mut self.bytes[128..]);
    }

    /// The file, its header sealed.
    pub(crate) fn seal(mut self) -> Vec<u8> {
        let (mut first, mut second) = (0u32, 0u32);
        for pair in self.bytes[..40].chunks_exact(8) {
            let word = |at: usize| u32::from_ne_bytes(pair[at..at + 4].try_into().unwrap());
            first = first.wrapping_add(word(0)).wrapping_add(second);
            second = second.wrapping_add(word(4)).wrapping_add(first);
        }
        self.set_word(40, first);
        self.set_word(44, second);
        self.bytes.copy_within(..48, 48);
        self.bytes
    }

    fn slot(&self, slot: usize) -> u16 {
        let at = SLOTS + slot * 2;
        u16::from_ne_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    fn set_slot(&mut self, slot: usize, value: u16) {
        let at = SLOTS + slot * 2;
        self.bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
}
