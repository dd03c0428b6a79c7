//! The checksum of the log and of the wal-index header (`walChecksumBytes`).
//!
//! Two 32-bit sums run over pairs of words, `s1 += w0 + s2; s2 += w1 + s1`,
//! and each frame goes on from where the one before it ended, so a frame is
//! valid only in its place behind all the others.
//!
//! Written out, a word counts in `s1` and `s2` as often as the Fibonacci
//! numbers of its distance from the end say, modulo 2^32. So the sums over many
//! words are two products of vectors, for which processors have instructions.
#![allow(unsafe_code)] // Instructions are used that not every processor has.

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
    pub fn update(self, order: ByteOrder, bytes: &[u8]) -> Self {
        debug_assert!(bytes.len().is_multiple_of(8));
        match order {
            ByteOrder::Little => self.sum(bytes, u32::from_le_bytes),
            ByteOrder::Big => self.sum(bytes, u32::from_be_bytes),
        }
    }

    #[inline(always)]
    fn sum(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32 + Copy) -> Self {
        if bytes.len() < WORTH_IT {
            return self.sum_in_turn(bytes, word);
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, as was just asked.
            return unsafe { self.sum_with_avx2(bytes, word) };
        }
        if cfg!(target_arch = "aarch64") {
            return self.sum_as_products(bytes, word);
        }
        self.sum_in_turn(bytes, word)
    }

    /// Goes on over two words.
    #[inline(always)]
    pub(crate) fn plus(self, one: u32, two: u32) -> Self {
        let s1 = self.s1.wrapping_add(one).wrapping_add(self.s2);
        let s2 = self.s2.wrapping_add(two).wrapping_add(s1);
        Checksum { s1, s2 }
    }

    /// By the definition. Each addition waits for the one before.
    #[inline(always)]
    fn sum_in_turn(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let pairs = bytes.as_chunks::<8>().0.iter();
        pairs.fold(self, |sum, &[a, b, c, d, e, f, g, h]| {
            sum.plus(word([a, b, c, d]), word([e, f, g, h]))
        })
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn sum_with_avx2(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32 + Copy) -> Self {
        self.sum_as_products(bytes, word)
    }

    /// By Fibonacci numbers, many words at once.
    #[inline(always)]
    fn sum_as_products(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32 + Copy) -> Self {
        let mut sum = self;
        let (groups, rest) = bytes.as_chunks::<{ 4 * LANES }>();
        for groups in groups.chunks(AT_ONCE / LANES) {
            let n = groups.len() * LANES;
            let counts = &FROM_THE_END[AT_ONCE - n..];
            let (in_s2, _) = counts[..n].as_chunks::<LANES>();
            let (in_s1, _) = counts[1..].as_chunks::<LANES>();
            let (mut s1, mut s2) = ([0_u32; LANES], [0_u32; LANES]);
            for ((group, in_s1), in_s2) in groups.iter().zip(in_s1).zip(in_s2) {
                let (words, _) = group.as_chunks::<4>();
                for lane in 0..LANES {
                    let word = word(words[lane]);
                    s1[lane] = s1[lane].wrapping_add(word.wrapping_mul(in_s1[lane]));
                    s2[lane] = s2[lane].wrapping_add(word.wrapping_mul(in_s2[lane]));
                }
            }
            sum = sum.moved_on(counts[0], counts[1], all(s1), all(s2));
        }
        sum.sum_in_turn(rest, word)
    }

    /// Goes on over words whose own sums are `s1` and `s2`, and of which there
    /// are as many as the Fibonacci number `nth` says, behind the one `before`.
    fn moved_on(self, nth: u32, before: u32, s1: u32, s2: u32) -> Self {
        let products = |a: u32, b: u32| {
            let (first, second) = (self.s1.wrapping_mul(a), self.s2.wrapping_mul(b));
            first.wrapping_add(second)
        };
        Checksum {
            s1: s1.wrapping_add(products(before, nth)),
            s2: s2.wrapping_add(products(nth, nth.wrapping_add(before))),
        }
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

fn all(lanes: [u32; LANES]) -> u32 {
    lanes.into_iter().fold(0, u32::wrapping_add)
}

/// From how many bytes on the products are faster.
const WORTH_IT: usize = 256;
/// How many words are multiplied side by side: enough that no product waits
/// for the one before.
const LANES: usize = 32;
/// How many words are summed before what came before them is counted in.
const AT_ONCE: usize = 1024;

/// How often a word counts in `s1`, by its distance from the end, which is the
/// last one here; in `s2` it counts as often as the word before it in `s1`.
static FROM_THE_END: [u32; AT_ONCE + 1] = {
    let mut counts = [0; AT_ONCE + 1];
    counts[AT_ONCE - 1] = 1;
    let mut at = AT_ONCE - 1;
    while at > 0 {
        at -= 1;
        counts[at] = u32::wrapping_add(counts[at + 1], counts[at + 2]);
    }
    counts
};

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

    /// Of every length at which the one way of summing passes into another.
    #[test]
    fn products_give_what_the_definition_gives() {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let bytes: Vec<u8> = (0..70_000).map(|_| noise()).collect();
        let before = Checksum {
            s1: 3,
            s2: u32::MAX,
        };
        // Miri, which takes hours for all of them, sees each way of summing.
        let step = if cfg!(miri) { 1_000 } else { 8 };
        let mut lengths: Vec<usize> = (0..10_000).step_by(step).collect();
        lengths.extend([16_384, 32_768, 65_536, 69_992]);
        for len in lengths {
            let bytes = &bytes[..len];
            let (le, be) = (u32::from_le_bytes, u32::from_be_bytes);
            for (found, wanted) in [
                (
                    before.sum_as_products(bytes, le),
                    before.sum_in_turn(bytes, le),
                ),
                (
                    before.sum_as_products(bytes, be),
                    before.sum_in_turn(bytes, be),
                ),
                (
                    before.update(ByteOrder::Little, bytes),
                    before.sum_in_turn(bytes, le),
                ),
                (
                    before.update(ByteOrder::Big, bytes),
                    before.sum_in_turn(bytes, be),
                ),
            ] {
                assert_eq!(found, wanted, "{len} bytes");
            }
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
