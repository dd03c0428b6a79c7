//! The 32 bytes at the start of the log.
//!
//! | offset | field |
//! |---|---|
//! | 0 | magic `0x377f0682`, lowest bit set if checksums read words big-endian |
//! | 4 | format version 3007000 |
//! | 8 | page size, plain |
//! | 12 | checkpoint sequence |
//! | 16 | salts |
//! | 24 | checksum of bytes 0..24 |

use super::checksum::{ByteOrder, Checksum};
use crate::types::{PageSize, Salts};

/// The length of the log header in bytes.
pub const LOG_HEADER_LEN: usize = 32;

/// The magic number without its lowest bit (`WAL_MAGIC`).
const MAGIC: u32 = 0x377f_0682;
/// The only format version there has been (`WAL_MAX_VERSION`).
pub(crate) const FORMAT_VERSION: u32 = 3_007_000;

/// The header of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogHeader {
    /// How the checksums of this log read words.
    pub byte_order: ByteOrder,
    /// The page size of the database.
    pub page_size: PageSize,
    /// How often the log was restarted, as its writer knew it. Not a version:
    /// see [`Salts`].
    pub sequence: u32,
    /// The generation of the log.
    pub salts: Salts,
}

/// What the first 32 bytes of a log turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodedHeader {
    /// A header that frames can follow.
    Valid(LogHeader, Checksum),
    /// No header of a log: the log is empty.
    Invalid,
    /// A sound header of a format that this library does not know.
    UnknownVersion(u32),
}

impl LogHeader {
    /// The bytes of the header, and the checksum from which frame 1 goes on.
    pub fn encode(&self) -> ([u8; LOG_HEADER_LEN], Checksum) {
        let mut bytes = [0; LOG_HEADER_LEN];
        let magic = MAGIC | u32::from(self.byte_order == ByteOrder::Big);
        bytes[0..4].copy_from_slice(&magic.to_be_bytes());
        bytes[4..8].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.bytes().to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.salts.0);
        let checksum = Checksum::ZERO.update(self.byte_order, &bytes[..24]);
        bytes[24..32].copy_from_slice(&checksum.to_be_bytes());
        (bytes, checksum)
    }

    /// Reads a header, in the order of `walIndexRecover`: magic and page size
    /// first, then the checksum, then the version.
    pub fn decode(bytes: &[u8; LOG_HEADER_LEN]) -> DecodedHeader {
        let [
            a0,
            a1,
            a2,
            a3,
            v0,
            v1,
            v2,
            v3,
            p0,
            p1,
            p2,
            p3,
            n0,
            n1,
            n2,
            n3,
            rest @ ..,
        ] = *bytes;
        let [
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            c0,
            c1,
            c2,
            c3,
            c4,
            c5,
            c6,
            c7,
        ] = rest;
        let magic = u32::from_be_bytes([a0, a1, a2, a3]);
        let Ok(page_size) = PageSize::new(u32::from_be_bytes([p0, p1, p2, p3])) else {
            return DecodedHeader::Invalid;
        };
        if magic & !1 != MAGIC {
            return DecodedHeader::Invalid;
        }
        let byte_order = if magic & 1 == 1 {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        };
        let checksum = Checksum::ZERO.update(byte_order, &bytes[..24]);
        if checksum != Checksum::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]) {
            return DecodedHeader::Invalid;
        }
        let version = u32::from_be_bytes([v0, v1, v2, v3]);
        if version != FORMAT_VERSION {
            return DecodedHeader::UnknownVersion(version);
        }
        let header = LogHeader {
            byte_order,
            page_size,
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
            salts: Salts([s0, s1, s2, s3, s4, s5, s6, s7]),
        };
        DecodedHeader::Valid(header, checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(byte_order: ByteOrder) -> LogHeader {
        LogHeader {
            byte_order,
            page_size: PageSize::MAX,
            sequence: 3,
            salts: Salts(*b"saltSALT"),
        }
    }

    #[test]
    fn a_header_comes_back_in_both_byte_orders() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let (bytes, checksum) = header(order).encode();
            assert_eq!(
                LogHeader::decode(&bytes),
                DecodedHeader::Valid(header(order), checksum)
            );
        }
    }

    #[test]
    fn a_header_with_any_byte_changed_is_no_header() {
        let (bytes, _) = header(ByteOrder::Little).encode();
        for at in 0..LOG_HEADER_LEN {
            let mut changed = bytes;
            changed[at] ^= 0x40;
            assert_eq!(
                LogHeader::decode(&changed),
                DecodedHeader::Invalid,
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_sound_header_of_another_version_is_told_apart() {
        let (mut bytes, _) = header(ByteOrder::Big).encode();
        bytes[4..8].copy_from_slice(&3_007_001u32.to_be_bytes());
        let checksum = Checksum::ZERO.update(ByteOrder::Big, &bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(
            LogHeader::decode(&bytes),
            DecodedHeader::UnknownVersion(3_007_001)
        );
    }
}
