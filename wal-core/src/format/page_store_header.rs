//! The first 64 bytes of a page store, by which one is recognised.
//!
//! | offset | field, big-endian |
//! |---|---|
//! | 0 | `wal page store\0\x01` |
//! | 16 | version of the header: 1 |
//! | 20 | page size in bytes |
//! | 24 | 16 bytes drawn at random, which name the store |
//! | 40 | 16 zeros |
//! | 56 | checksum of bytes 0..56, as that of a log header |
//!
//! They are written when the store is made and never change, so a page 1 that is torn by a
//! power failure still has them.

use super::checksum::{ByteOrder, Checksum};
use crate::types::{PageSize, random_bytes};

const MAGIC: &[u8; 16] = b"wal page store\0\x01";
const VERSION: u32 = 1;
/// Where the name is.
const ID: usize = 24;
/// Where the checksum is.
const CHECKSUM: usize = 56;

/// The header of a page store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageStoreHeader {
    /// The size of its pages.
    pub page_size: PageSize,
    /// The name of the store, by which a log of another store is noticed. A copy of the file
    /// has the same name.
    pub id: [u8; 16],
}

/// What the first bytes of a file are, as the header of a page store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodedStoreHeader {
    /// They begin another file.
    None,
    /// They begin a page store.
    Valid(PageStoreHeader),
    /// They begin a page store of a version that this library does not know.
    OtherVersion(u32),
    /// They begin a page store, and are damaged.
    Damaged,
}

impl PageStoreHeader {
    /// The length of the header in bytes.
    pub const LEN: usize = 64;

    /// The header of a new store.
    pub fn new(page_size: PageSize) -> Self {
        PageStoreHeader {
            page_size,
            id: random_bytes(),
        }
    }

    /// The bytes of the header.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..20].copy_from_slice(&VERSION.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.page_size.bytes().to_be_bytes());
        bytes[ID..ID + 16].copy_from_slice(&self.id);
        let sum = Checksum::ZERO.update(ByteOrder::Big, &bytes[..CHECKSUM]);
        bytes[56..60].copy_from_slice(&sum.s1.to_be_bytes());
        bytes[60..].copy_from_slice(&sum.s2.to_be_bytes());
        bytes
    }

    /// Reads the header from the beginning of page 1.
    pub fn decode(page_one: &[u8]) -> DecodedStoreHeader {
        if !page_one.starts_with(MAGIC) {
            return DecodedStoreHeader::None;
        }
        let Some(bytes) = page_one.first_chunk::<{ Self::LEN }>() else {
            return DecodedStoreHeader::Damaged;
        };
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if word(16) != VERSION {
            return DecodedStoreHeader::OtherVersion(word(16));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[ID..ID + 16]);
        // All else is determined by these two.
        match PageSize::new(word(20)).map(|page_size| PageStoreHeader { page_size, id }) {
            Ok(header) if header.encode() == *bytes => DecodedStoreHeader::Valid(header),
            _ => DecodedStoreHeader::Damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_each_page_size_is_read_as_written() {
        for shift in 9..=16 {
            let page_size = PageSize::new(1 << shift).unwrap();
            let header = PageStoreHeader::new(page_size);
            let decoded = PageStoreHeader::decode(&header.encode());
            assert_eq!(decoded, DecodedStoreHeader::Valid(header));
        }
    }

    #[test]
    fn header_with_any_byte_changed_is_not_valid() {
        let page_size = PageSize::DEFAULT;
        let bytes = PageStoreHeader::new(page_size).encode();
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            let expected = match at {
                0..16 => DecodedStoreHeader::None,
                16..20 => DecodedStoreHeader::OtherVersion(VERSION ^ (1 << (8 * (19 - at)))),
                _ => DecodedStoreHeader::Damaged,
            };
            assert_eq!(PageStoreHeader::decode(&changed), expected, "byte {at}");
        }
    }

    #[test]
    fn header_cut_short_is_damaged() {
        let page_size = PageSize::DEFAULT;
        let bytes = PageStoreHeader::new(page_size).encode();
        let decoded = PageStoreHeader::decode(&bytes[..63]);
        assert_eq!(decoded, DecodedStoreHeader::Damaged);
        assert_eq!(PageStoreHeader::decode(&[0; 512]), DecodedStoreHeader::None);
    }
}
