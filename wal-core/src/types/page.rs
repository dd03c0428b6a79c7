//! Page sizes and page numbers.

use std::fmt;
use std::num::NonZeroU32;

use crate::error::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_from_512_to_65536_are_page_sizes() {
        // Miri takes minutes for all of them.
        let step = if cfg!(miri) { 256 } else { 1 };
        for bytes in (0..=70_000).step_by(step) {
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
}
