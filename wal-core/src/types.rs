//! The small values that everything else is written in: page size, page and
//! frame numbers, the salts that name a generation of the log.

use std::fmt;
use std::num::NonZeroU32;

use crate::error::{Error, Result};
use crate::testing::{Mutation, mutated};

/// The size of a page in bytes: a power of two from 512 to 65536.
///
/// The rule is SQLite's ("The Database Header", offset 16; `walIndexRecover`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// The size SQLite has used for new databases since 3.12.
    pub const DEFAULT: PageSize = PageSize(4096);
    /// The smallest size that the format allows.
    pub const MIN: PageSize = PageSize(512);
    /// The largest size that the format allows.
    pub const MAX: PageSize = PageSize(65536);

    /// Takes `bytes` as a page size.
    ///
    /// # Errors
    /// [`Error::InvalidPageSize`] unless it is a power of two in 512..=65536.
    pub const fn new(bytes: u32) -> Result<Self> {
        if bytes.is_power_of_two() && bytes >= 512 && bytes <= 65536 {
            Ok(PageSize(bytes))
        } else {
            Err(Error::InvalidPageSize { bytes })
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The size in bytes, for slices and vectors.
    pub const fn len(self) -> usize {
        self.0 as usize
    }

    /// Always false; a page is never empty.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The 16-bit form of the wal-index header, where 1 stands for 65536
    /// (`walIndexRecover`: `(szPage&0xff00) | (szPage>>16)`).
    pub(crate) const fn to_u16(self) -> u16 {
        if self.0 == 65536 {
            1
        } else {
            // A power of two below 65536 fits.
            (self.0 & 0xffff) as u16
        }
    }

    /// Reads the 16-bit form, of the wal-index header and of page 1 alike.
    pub(crate) const fn from_u16(value: u16) -> Result<Self> {
        Self::new(if value == 1 { 65536 } else { value as u32 })
    }

    /// The page that holds the lock bytes at offset 0x40000000 and is never
    /// used for data, so never logged (`PAGER_SJ_PGNO`).
    pub const fn lock_byte_page(self) -> PageNo {
        match NonZeroU32::new((0x4000_0000 >> self.0.trailing_zeros()) + 1) {
            Some(number) => PageNo(number),
            None => PageNo(NonZeroU32::MIN),
        }
    }
}

impl TryFrom<u32> for PageSize {
    type Error = Error;

    fn try_from(bytes: u32) -> Result<Self> {
        PageSize::new(bytes)
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a page of the database; the first page is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(NonZeroU32);

impl PageNo {
    /// Page 1, which in a SQLite database begins with the database header.
    pub const ONE: PageNo = PageNo(NonZeroU32::MIN);

    /// The highest page number of a database, and its largest size in pages
    /// (`SQLITE_MAX_PAGE_COUNT`). Beyond it SQLite could not add pages.
    pub const MAX: PageNo = PageNo(NonZeroU32::new(0xffff_fffe).unwrap());

    /// Takes `number` as a page number.
    ///
    /// # Errors
    /// [`Error::InvalidPageNo`] if it is 0.
    pub const fn new(number: u32) -> Result<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Ok(PageNo(number)),
            None => Err(Error::InvalidPageNo),
        }
    }

    /// The number, at least 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Where the page begins in the database file, in bytes.
    pub const fn offset(self, size: PageSize) -> u64 {
        (self.get() as u64 - 1) * size.bytes() as u64
    }
}

impl TryFrom<u32> for PageNo {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self> {
        PageNo::new(number)
    }
}

impl From<PageNo> for u32 {
    fn from(page: PageNo) -> u32 {
        page.get()
    }
}

impl fmt::Debug for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.0)
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The highest frame number that a writer uses: the next number is the mark of a slot
/// without a reader ([`crate::index::MARK_NOT_USED`]).
pub(crate) const MAX_FRAME: u32 = u32::MAX - 1;

/// The number of a frame in the log; the first frame is 1.
///
/// Counts of frames ("max frame", "backfilled") are plain `u32`, in which 0
/// says that there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(NonZeroU32);

impl FrameNo {
    /// Takes `number` as a frame number; `None` if it is 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(FrameNo(number)),
            None => None,
        }
    }

    /// The number, at least 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for FrameNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}", self.0)
    }
}

impl fmt::Display for FrameNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many restarts of a log are counted. The first salts of two logs that have nothing to
/// do with each other are so close in one of 65536 cases.
const MAX_RESTARTS: u32 = 1 << 16;

/// The two salts of a log header, as the bytes that stand in the file.
///
/// The pair names a *generation* of the log: every restart changes it, and
/// frames of another generation are not part of the log. The checkpoint
/// sequence number of the header does not name a generation, because each
/// connection keeps its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Salts(pub [u8; 8]);

impl Salts {
    /// Salts drawn at random, for the first generation of a log. They come
    /// from the system: a generator of the process would repeat itself in a
    /// forked child.
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        if getrandom::fill(&mut bytes).is_err() {
            // Salts need to differ, not to be secret.
            bytes = fastrand::Rng::new().u64(..).to_ne_bytes();
        }
        Salts(bytes)
    }

    /// True for zeros, which name no generation: SQLite recovers each empty log with them,
    /// and may write them to a log header.
    pub(crate) fn names_none(self) -> bool {
        self.0 == [0; 8]
    }

    /// True if both name one generation.
    #[must_use]
    pub fn name_same(self, other: Self) -> bool {
        self == other && (!self.names_none() || mutated(Mutation::NameEmptyLogs))
    }

    /// How many restarts of a log lead from the generation `older` to this one, by the
    /// first salt; `None` if they are more than [`MAX_RESTARTS`], or none.
    pub(crate) fn restarts_since(self, older: Self) -> Option<u32> {
        let first = |salts: Self| {
            let [a, b, c, d, ..] = salts.0;
            u32::from_be_bytes([a, b, c, d])
        };
        let restarts = first(self).wrapping_sub(first(older));
        (1..=MAX_RESTARTS).contains(&restarts).then_some(restarts)
    }

    /// The salts of the next generation: the first counts up as a big-endian
    /// integer, the second is random (`walRestartHdr`).
    #[must_use]
    pub fn next(self) -> Self {
        let [a, b, c, d, ..] = self.0;
        let first = u32::from_be_bytes([a, b, c, d])
            .wrapping_add(1)
            .to_be_bytes();
        let mut next = Self::random();
        next.0[..4].copy_from_slice(&first);
        next
    }
}

impl fmt::Debug for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_from_512_to_65536_are_page_sizes() {
        for bytes in 0..=70_000 {
            let legal = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536].contains(&bytes);
            assert_eq!(PageSize::new(bytes).is_ok(), legal, "{bytes}");
        }
    }

    #[test]
    fn the_16_bit_form_of_a_page_size_comes_back() {
        for shift in 9..=16 {
            let size = PageSize::new(1 << shift).unwrap();
            assert_eq!(PageSize::from_u16(size.to_u16()).unwrap(), size);
        }
    }

    #[test]
    fn the_lock_byte_page_of_4096_byte_pages_is_262145() {
        assert_eq!(PageSize::DEFAULT.lock_byte_page().get(), 262_145);
    }

    #[test]
    fn restarts_are_counted_by_the_first_salt_across_its_end() {
        let salts = |first: u32| {
            let mut salts = Salts([7; 8]);
            salts.0[..4].copy_from_slice(&first.to_be_bytes());
            salts
        };
        let since = |new: u32, old: u32| salts(new).restarts_since(salts(old));
        assert_eq!(since(5, 4), Some(1));
        assert_eq!(since(2, u32::MAX), Some(3));
        assert_eq!(since(MAX_RESTARTS + 9, 9), Some(MAX_RESTARTS));
        for (new, old) in [(4, 4), (4, 5), (MAX_RESTARTS + 10, 9), (u32::MAX, 2)] {
            assert_eq!(since(new, old), None, "{new} after {old}");
        }
        assert_eq!(salts(3).next().restarts_since(salts(3)), Some(1));
    }

    #[test]
    fn a_restart_counts_the_first_salt_up_as_a_big_endian_integer() {
        let salts = Salts([0, 0, 0, 255, 9, 9, 9, 9]);
        assert_eq!(salts.next().0[..4], [0, 0, 1, 0]);
        assert_eq!(Salts([255; 8]).next().0[..4], [0; 4]);
    }
}
