//! A frame: 24 bytes of header, then one page.
//!
//! | offset | field |
//! |---|---|
//! | 0 | page number |
//! | 4 | database size in pages if this frame commits, else 0 |
//! | 8 | salts of the log header |
//! | 16 | checksum, from the frame before over bytes 0..8 and the page |

use super::checksum::{ByteOrder, Checksum};
use super::log_header::LOG_HEADER_LEN;
use crate::types::{FrameNo, PageNo, PageSize, Salts};

/// The length of a frame's header in bytes.
pub const FRAME_HEADER_LEN: usize = 24;

/// Where `frame` begins in the log, in bytes.
pub const fn frame_offset(frame: FrameNo, page_size: PageSize) -> u64 {
    LOG_HEADER_LEN as u64
        + (frame.get() as u64 - 1) * (FRAME_HEADER_LEN as u64 + page_size.bytes() as u64)
}

/// Where the byte behind `frame` is.
pub fn frame_end(frame: FrameNo, page_size: PageSize) -> u64 {
    frame_offset(frame, page_size) + FRAME_HEADER_LEN as u64 + u64::from(page_size.bytes())
}

/// The header of a frame, without its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The page whose content follows.
    pub page: PageNo,
    /// The size of the database in pages after this transaction, if this
    /// frame is its last; 0 for every other frame.
    pub commit_size: u32,
    /// The generation that the frame belongs to.
    pub salts: Salts,
}

impl FrameHeader {
    /// True if the frame ends a transaction.
    pub const fn is_commit(&self) -> bool {
        self.commit_size != 0
    }

    /// The bytes of the header, and the checksum from which the next frame
    /// goes on (`walEncodeFrame`).
    pub fn encode(
        &self,
        order: ByteOrder,
        before: Checksum,
        content: &[u8],
    ) -> ([u8; FRAME_HEADER_LEN], Checksum) {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.page.get().to_be_bytes());
        bytes[4..8].copy_from_slice(&self.commit_size.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.salts.0);
        let checksum = before.update(order, &bytes[..8]).update(order, content);
        bytes[16..24].copy_from_slice(&checksum.to_be_bytes());
        (bytes, checksum)
    }

    /// Reads the header of a frame that is known to be valid: one that was
    /// published. `None` if it holds no page.
    pub(crate) fn of_published(bytes: &[u8; FRAME_HEADER_LEN]) -> Option<Self> {
        let [
            p0,
            p1,
            p2,
            p3,
            z0,
            z1,
            z2,
            z3,
            s @ ..,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = *bytes;
        Some(FrameHeader {
            page: PageNo::new(u32::from_be_bytes([p0, p1, p2, p3])).ok()?,
            commit_size: u32::from_be_bytes([z0, z1, z2, z3]),
            salts: Salts(s),
        })
    }

    /// Reads the header of a frame of generation `salts` that follows the
    /// checksum `before`; `None` if the frame is not valid there
    /// (`walDecodeFrame`).
    pub fn decode(
        bytes: &[u8; FRAME_HEADER_LEN],
        content: &[u8],
        salts: Salts,
        order: ByteOrder,
        before: Checksum,
    ) -> Option<(FrameHeader, Checksum)> {
        let [p0, p1, p2, p3, z0, z1, z2, z3, rest @ ..] = *bytes;
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
        let header = FrameHeader {
            page: PageNo::new(u32::from_be_bytes([p0, p1, p2, p3])).ok()?,
            commit_size: u32::from_be_bytes([z0, z1, z2, z3]),
            salts: Salts([s0, s1, s2, s3, s4, s5, s6, s7]),
        };
        if header.salts != salts {
            return None;
        }
        let checksum = before.update(order, &bytes[..8]).update(order, content);
        let stored = Checksum::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
        (checksum == stored).then_some((header, checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_valid_only_in_its_place_and_generation() {
        let header = FrameHeader {
            page: PageNo::new(7).unwrap(),
            commit_size: 9,
            salts: Salts([1; 8]),
        };
        let content = vec![0x5a; 512];
        let before = Checksum { s1: 11, s2: 22 };
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let (bytes, after) = header.encode(order, before, &content);
            let decode = |salts, before, content: &[u8]| {
                FrameHeader::decode(&bytes, content, salts, order, before)
            };
            assert_eq!(
                decode(Salts([1; 8]), before, &content),
                Some((header, after))
            );
            assert_eq!(decode(Salts([2; 8]), before, &content), None);
            assert_eq!(decode(Salts([1; 8]), after, &content), None);
            assert_eq!(decode(Salts([1; 8]), before, &[0x5b; 512]), None);
        }
    }

    #[test]
    fn frames_follow_each_other_without_a_gap() {
        let offset = |n| frame_offset(FrameNo::new(n).unwrap(), PageSize::DEFAULT);
        assert_eq!(offset(1), 32);
        assert_eq!(offset(2) - offset(1), 24 + 4096);
        assert_eq!(offset(u32::MAX), 32 + (u64::from(u32::MAX) - 1) * 4120);
    }
}
