//! The 48 bytes that publish a state of the log (`WalIndexHdr`).

use bytemuck::{Pod, Zeroable};

use crate::format::{ByteOrder, Checksum};
use crate::types::{PageSize, Salts};

/// The version of the wal-index that every SQLite since 3.7.0 writes.
const VERSION: u32 = 3_007_000;

/// The header of the wal-index: a snapshot of the database, as it is
/// published to everybody by a commit.
///
/// Two headers are the same state only if all 48 bytes are equal.
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IndexHeader {
    version: u32,
    unused: u32,
    /// Counts the commits since the last recovery, so that the bytes differ
    /// after each. It is no version: recovery begins again at 0.
    pub(crate) change: u32,
    is_init: u8,
    big_endian: u8,
    page_size: u16,
    max_frame: u32,
    page_count: u32,
    frame_checksum: [u32; 2],
    salts: Salts,
    checksum: [u32; 2],
}

const _: () = assert!(size_of::<IndexHeader>() == 48);

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
    /// The state that recovery finds in an empty log.
    pub(crate) fn empty() -> Self {
        Self {
            version: VERSION,
            is_init: 1,
            ..Self::zeroed()
        }
        .sealed()
    }

    /// The last committed frame of the log; 0 if the log holds no commit.
    #[inline]
    pub fn max_frame(&self) -> u32 {
        self.max_frame
    }

    /// The size of the database in pages as of the last commit in the log;
    /// meaningless while [`IndexHeader::max_frame`] is 0 and the log never
    /// held a commit.
    #[inline]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The generation of the log.
    pub fn salts(&self) -> Salts {
        self.salts
    }

    /// The page size, if a commit or a recovery has set it.
    #[inline]
    pub fn page_size(&self) -> Option<PageSize> {
        PageSize::from_u16(self.page_size).ok()
    }

    /// A number that differs between any two states that follow each other.
    #[inline]
    pub(crate) fn fingerprint(&self) -> u64 {
        let [s1, s2] = self.checksum;
        u64::from(s1) << 32 | u64::from(s2)
    }

    /// How the checksums of the log read words.
    pub(crate) fn byte_order(&self) -> ByteOrder {
        // The flag says whether words are read as big-endian integers; the
        // magic of the log uses the same bit.
        if self.big_endian != 0 {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        }
    }

    /// The checksum that the frame after `max_frame` goes on from.
    pub(crate) fn frame_checksum(&self) -> Checksum {
        let [s1, s2] = self.frame_checksum;
        Checksum { s1, s2 }
    }

    /// The generation that a new log header begins, with nothing committed.
    #[must_use]
    pub(crate) fn with_generation(mut self, salts: Salts, order: ByteOrder, sum: Checksum) -> Self {
        self.salts = salts;
        self.big_endian = u8::from(order == ByteOrder::Big);
        self.frame_checksum = [sum.s1, sum.s2];
        self.max_frame = 0;
        self.sealed()
    }

    /// The state after a commit: the change counter goes up, so that every
    /// peer that compares the bytes drops what it has cached.
    #[must_use]
    pub(crate) fn committed(
        mut self,
        page_size: PageSize,
        max_frame: u32,
        page_count: u32,
        sum: Checksum,
    ) -> Self {
        self.page_size = page_size.to_u16();
        self.max_frame = max_frame;
        self.page_count = page_count;
        self.frame_checksum = [sum.s1, sum.s2];
        if !crate::testing::mutated(crate::testing::Mutation::KeepChangeCounter) {
            self.change = self.change.wrapping_add(1);
        }
        self.sealed()
    }

    /// The state that recovery finds in a log with commits.
    #[must_use]
    pub(crate) fn recovered(
        mut self,
        page_size: PageSize,
        max_frame: u32,
        page_count: u32,
    ) -> Self {
        self.page_size = page_size.to_u16();
        self.max_frame = max_frame;
        self.page_count = page_count;
        self.sealed()
    }

    /// The state after a restart: an empty log of a new generation
    /// (`walRestartHdr`). The size of the database stays.
    #[must_use]
    pub(crate) fn restarted(mut self, salts: Salts) -> Self {
        self.max_frame = 0;
        self.salts = salts;
        self.sealed()
    }

    fn sealed(mut self) -> Self {
        let Checksum { s1, s2 } = self.sum();
        self.checksum = [s1, s2];
        self
    }

    /// The checksum of the first 40 bytes, in the order of this machine.
    #[inline]
    fn sum(&self) -> Checksum {
        Checksum::ZERO.update(ByteOrder::NATIVE, &bytemuck::bytes_of(self)[..40])
    }

    #[inline]
    pub(crate) fn words(&self) -> HeaderWords {
        bytemuck::cast(*self)
    }

    /// Takes words from shared memory as a header, if they are one.
    #[inline]
    pub(crate) fn from_words(words: HeaderWords) -> Result<Self, BadHeader> {
        let header: Self = bytemuck::cast(words);
        let Checksum { s1, s2 } = header.sum();
        if header.is_init == 0 || header.checksum != [s1, s2] {
            return Err(BadHeader::Damaged);
        }
        if header.version != VERSION {
            return Err(BadHeader::UnknownVersion(header.version));
        }
        Ok(header)
    }
}

impl std::fmt::Debug for IndexHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexHeader")
            .field("change", &self.change)
            .field("max_frame", &self.max_frame)
            .field("page_count", &self.page_count)
            .field("page_size", &self.page_size)
            .field("salts", &self.salts)
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
