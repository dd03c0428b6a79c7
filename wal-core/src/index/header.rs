//! The 48 bytes that publish a state of the log (`WalIndexHdr`).

use crate::format::{ByteOrder, Checksum};
use crate::testing::rule;
use crate::types::{PageSize, Salts};

/// The version of the wal-index that every SQLite since 3.7.0 writes.
const VERSION: u32 = 3_007_000;

/// The header of the wal-index: a snapshot of the database, as it is
/// published to everybody by a commit.
///
/// Two headers are the same state only if all 48 bytes are equal.
// Words and not fields, so that what is loaded and compared as words stays in
// registers: a processor waits for a store that it reads again at once as
// something wider (a store that cannot be forwarded).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IndexHeader(HeaderWords);

// Where the words are (`WalIndexHdr`).
const VERSION_AT: usize = 0;
/// Counts the commits since the last recovery, so that the bytes differ after
/// each. It is no version: recovery begins again at 0.
pub(super) const CHANGE: usize = 2;
/// Four bytes: whether the header was ever written, whether checksums are
/// big-endian, and the page size.
const FORMAT: usize = 3;
pub(super) const MAX_FRAME: usize = 4;
const PAGE_COUNT: usize = 5;
const FRAME_CHECKSUM: [usize; 2] = [6, 7];
const SALTS: [usize; 2] = [8, 9];
const CHECKSUM: [usize; 2] = [10, 11];

/// The words of a header, as they stand in shared memory.
pub(crate) type HeaderWords = [u32; 12];

/// Why the words in shared memory are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadHeader {
    /// Never written, half written, or damaged: recovery mends it.
    Damaged,
    /// Written by a version of SQLite that does not exist yet.
    UnknownVersion(u32),
}

impl IndexHeader {
    /// The state that recovery finds in an empty log. It gets salts of its own: with
    /// zeros, as SQLite leaves them, what was seen of another empty log, before commits
    /// that are in the database file, would be taken for it. Whoever writes the first
    /// frame draws new ones, or, a SQLite that has written the log before, keeps these.
    pub(crate) fn of_empty_log() -> Self {
        Self::empty().with_generation(Salts::random(), ByteOrder::NATIVE, Checksum::ZERO)
    }

    /// True for a state that was recovered where there was no log.
    pub(crate) fn is_of_no_log(&self) -> bool {
        self.max_frame() == 0 && self.frame_checksum() == Checksum::ZERO
    }

    /// A header with nothing in it.
    pub(crate) fn empty() -> Self {
        let mut words = [0; 12];
        words[VERSION_AT] = VERSION;
        words[FORMAT] = u32::from_ne_bytes([1, 0, 0, 0]);
        Self::sealed(words)
    }

    /// The last committed frame of the log; 0 if the log holds no commit.
    #[inline]
    pub fn max_frame(&self) -> u32 {
        self.0[MAX_FRAME]
    }

    /// The size of the database in pages as of the last commit in the log;
    /// meaningless while [`IndexHeader::max_frame`] is 0 and the log never
    /// held a commit.
    #[inline]
    pub fn page_count(&self) -> u32 {
        self.0[PAGE_COUNT]
    }

    /// Counts the commits since the last recovery, and wraps. It is no version: recovery
    /// begins again at 0.
    pub fn change(&self) -> u32 {
        self.0[CHANGE]
    }

    /// The generation of the log.
    #[inline]
    pub fn salts(&self) -> Salts {
        let [one, two] = SALTS.map(|at| u64::from(self.0[at]));
        let salts = if cfg!(target_endian = "big") {
            one << 32 | two
        } else {
            two << 32 | one
        };
        Salts(salts.to_ne_bytes())
    }

    /// The page size, if a commit or a recovery has set it.
    #[inline]
    pub fn page_size(&self) -> Option<PageSize> {
        let [_, _, one, two] = self.0[FORMAT].to_ne_bytes();
        PageSize::from_u16(u16::from_ne_bytes([one, two])).ok()
    }

    /// How the checksums of the log read words.
    pub fn byte_order(&self) -> ByteOrder {
        // The flag says whether words are read as big-endian integers; the
        // magic of the log uses the same bit.
        match self.0[FORMAT].to_ne_bytes() {
            [_, 0, ..] => ByteOrder::Little,
            _ => ByteOrder::Big,
        }
    }

    /// The checksum that the frame after `max_frame` goes on from.
    pub fn frame_checksum(&self) -> Checksum {
        let [s1, s2] = FRAME_CHECKSUM.map(|at| self.0[at]);
        Checksum { s1, s2 }
    }

    /// The generation that a new log header begins, with nothing committed.
    #[must_use]
    pub(crate) fn with_generation(self, salts: Salts, order: ByteOrder, sum: Checksum) -> Self {
        let mut words = self.0;
        let [is_init, _, one, two] = words[FORMAT].to_ne_bytes();
        let big_endian = u8::from(order == ByteOrder::Big);
        words[FORMAT] = u32::from_ne_bytes([is_init, big_endian, one, two]);
        words[MAX_FRAME] = 0;
        set_salts(&mut words, salts);
        set_frame_checksum(&mut words, sum);
        Self::sealed(words)
    }

    /// The state after a commit: the change counter goes up, so that every
    /// peer that compares the bytes drops what it has cached.
    #[must_use]
    pub(crate) fn committed(
        self,
        page_size: PageSize,
        max_frame: u32,
        page_count: u32,
        sum: Checksum,
    ) -> Self {
        let mut words = self.0;
        set_state(&mut words, page_size, max_frame, page_count);
        set_frame_checksum(&mut words, sum);
        rule!(ChangeCounterAdvances, {
            words[CHANGE] = words[CHANGE].wrapping_add(1);
        });
        Self::sealed(words)
    }

    /// The state that recovery finds in a log with commits.
    #[must_use]
    pub(crate) fn recovered(self, page_size: PageSize, max_frame: u32, page_count: u32) -> Self {
        let mut words = self.0;
        set_state(&mut words, page_size, max_frame, page_count);
        Self::sealed(words)
    }

    /// The state after a restart: an empty log of a new generation
    /// (`walRestartHdr`). The size of the database stays.
    #[must_use]
    pub(crate) fn restarted(self, salts: Salts) -> Self {
        let mut words = self.0;
        words[MAX_FRAME] = 0;
        set_salts(&mut words, salts);
        Self::sealed(words)
    }

    fn sealed(mut words: HeaderWords) -> Self {
        let Checksum { s1, s2 } = sum_of(&words);
        let [at1, at2] = CHECKSUM;
        (words[at1], words[at2]) = (s1, s2);
        IndexHeader(words)
    }

    #[inline]
    pub(crate) fn words(&self) -> HeaderWords {
        self.0
    }

    /// Takes words from shared memory as a header, if they are one.
    #[inline(always)]
    pub(crate) fn from_words(words: HeaderWords) -> Result<Self, BadHeader> {
        let Checksum { s1, s2 } = sum_of(&words);
        let [is_init, ..] = words[FORMAT].to_ne_bytes();
        if is_init == 0 || CHECKSUM.map(|at| words[at]) != [s1, s2] {
            return Err(BadHeader::Damaged);
        }
        if words[VERSION_AT] != VERSION {
            return Err(BadHeader::UnknownVersion(words[VERSION_AT]));
        }
        Ok(IndexHeader(words))
    }
}

fn set_state(words: &mut HeaderWords, page_size: PageSize, max_frame: u32, page_count: u32) {
    let [is_init, big_endian, ..] = words[FORMAT].to_ne_bytes();
    let [one, two] = page_size.to_u16().to_ne_bytes();
    words[FORMAT] = u32::from_ne_bytes([is_init, big_endian, one, two]);
    words[MAX_FRAME] = max_frame;
    words[PAGE_COUNT] = page_count;
}

fn set_salts(words: &mut HeaderWords, Salts([a, b, c, d, e, f, g, h]): Salts) {
    let [one, two] = SALTS;
    words[one] = u32::from_ne_bytes([a, b, c, d]);
    words[two] = u32::from_ne_bytes([e, f, g, h]);
}

fn set_frame_checksum(words: &mut HeaderWords, sum: Checksum) {
    let [one, two] = FRAME_CHECKSUM;
    (words[one], words[two]) = (sum.s1, sum.s2);
}

/// The checksum of the first ten words, in the order of this machine.
#[inline]
fn sum_of(words: &HeaderWords) -> Checksum {
    let mut sum = Checksum::ZERO;
    for &[one, two] in words[..10].as_chunks().0 {
        sum = sum.plus(one, two);
    }
    sum
}

impl std::fmt::Debug for IndexHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexHeader")
            .field("change", &self.change())
            .field("max_frame", &self.max_frame())
            .field("page_count", &self.page_count())
            .field("page_size", &self.page_size())
            .field("salts", &self.salts())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_any_byte_changed_is_damaged_or_unknown() {
        let header = IndexHeader::empty().committed(PageSize::MAX, 3, 4, Checksum { s1: 5, s2: 6 });
        assert_eq!(IndexHeader::from_words(header.words()), Ok(header));
        for byte in 0..48 {
            let mut words = header.words();
            bytemuck::cast_slice_mut::<u32, u8>(&mut words)[byte] ^= 1;
            assert!(IndexHeader::from_words(words).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn all_zero_is_damaged() {
        assert_eq!(IndexHeader::from_words([0; 12]), Err(BadHeader::Damaged));
    }

    #[test]
    fn a_commit_differs_even_if_it_changes_nothing_else() {
        let one = IndexHeader::empty().committed(PageSize::MIN, 1, 1, Checksum::ZERO);
        let two = one.committed(PageSize::MIN, 1, 1, Checksum::ZERO);
        assert_ne!(one, two);
    }
}
