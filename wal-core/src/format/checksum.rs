//! The checksum of the log and of the wal-index header (`walChecksumBytes`).
//!
//! Two 32-bit sums run over pairs of words, `s1 += w0 + s2; s2 += w1 + s1`,
//! and each frame goes on from where the one before it ended, so a frame is
//! valid only in its place behind all the others.

/// In which order the words of the log are read when they are summed; the
/// low bit of the log's magic number says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ByteOrder {
    /// Least significant byte first; magic `0x377f0682`.
    Little,
    /// Most significant byte first; magic `0x377f0683`.
    Big,
}

impl ByteOrder {
    /// The order of this machine, in which new logs are written.
    pub const NATIVE: ByteOrder = if cfg!(target_endian = "big") {
        ByteOrder::Big
    } else {
        ByteOrder::Little
    };
}

/// A running checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Checksum {
    /// The first sum.
    pub s1: u32,
    /// The second sum.
    pub s2: u32,
}

impl Checksum {
    /// Where a log header or an index header begins.
    pub const ZERO: Checksum = Checksum { s1: 0, s2: 0 };

    /// Goes on over `bytes`. Only whole groups of eight bytes count; every
    /// caller in the format passes a multiple of eight.
    #[must_use]
    #[inline]
    pub fn update(self, order: ByteOrder, bytes: &[u8]) -> Self {
        debug_assert!(bytes.len().is_multiple_of(8));
        match order {
            ByteOrder::Little => self.sum(bytes, u32::from_le_bytes),
            ByteOrder::Big => self.sum(bytes, u32::from_be_bytes),
        }
    }

    #[inline(always)]
    fn sum(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let Checksum { mut s1, mut s2 } = self;
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            s1 = s1.wrapping_add(word([a, b, c, d])).wrapping_add(s2);
            s2 = s2.wrapping_add(word([e, f, g, h])).wrapping_add(s1);
        }
        Checksum { s1, s2 }
    }

    /// The eight bytes that stand in the log, big-endian in either order.
    pub fn to_be_bytes(self) -> [u8; 8] {
        (u64::from(self.s1) << 32 | u64::from(self.s2)).to_be_bytes()
    }

    /// Reads the eight bytes that stand in the log.
    pub fn from_be_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Checksum {
            s1: u32::from_be_bytes([a, b, c, d]),
            s2: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_follow_the_definition_word_by_word() {
        let bytes: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(37)).collect();
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let (mut s1, mut s2) = (7u32, 9u32);
            for pair in bytes.chunks(8) {
                let read = |b: &[u8]| {
                    let b = [b[0], b[1], b[2], b[3]];
                    if order == ByteOrder::Big {
                        u32::from_be_bytes(b)
                    } else {
                        u32::from_le_bytes(b)
                    }
                };
                s1 = s1.wrapping_add(read(&pair[..4])).wrapping_add(s2);
                s2 = s2.wrapping_add(read(&pair[4..])).wrapping_add(s1);
            }
            assert_eq!(
                Checksum { s1: 7, s2: 9 }.update(order, &bytes),
                Checksum { s1, s2 }
            );
        }
    }

    #[test]
    fn a_checksum_goes_on_where_it_stopped() {
        let bytes = [0xabu8; 48];
        let whole = Checksum::ZERO.update(ByteOrder::Little, &bytes);
        let parts = Checksum::ZERO
            .update(ByteOrder::Little, &bytes[..16])
            .update(ByteOrder::Little, &bytes[16..]);
        assert_eq!(whole, parts);
    }
}
