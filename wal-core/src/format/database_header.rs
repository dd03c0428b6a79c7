//! The fields of a SQLite database's first 100 bytes that a page-level writer
//! has to read and keep ("The Database Header").
//!
//! | offset | field |
//! |---|---|
//! | 0 | `SQLite format 3\0` |
//! | 16 | page size, 1 stands for 65536 |
//! | 18, 19 | write and read version: 1 rollback journal, 2 WAL |
//! | 20 | bytes at the end of each page that SQLite leaves alone |
//! | 21 | 64, 32, 32 |
//! | 24 | change counter |
//! | 28 | size in pages, valid if 24..28 equals 92..96 |
//! | 32 | first trunk page of the list of free pages |
//! | 36 | number of free pages |
//! | 40 | schema cookie |
//! | 92 | change counter for which the size at 28 is valid |

use crate::error::Result;
use crate::types::PageSize;

/// The string at the start of every SQLite database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The payload fractions, which cannot be chosen.
const FRACTIONS: [u8; 3] = [64, 32, 32];

/// How many bytes of a page SQLite needs at least.
const LEAST_USABLE: u32 = 480;

/// The header of a SQLite database, as far as the log needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatabaseHeader {
    /// The page size, or the bytes that are none.
    page_size: u16,
    /// The version that a writer must know: 2 is WAL.
    pub write_version: u8,
    /// The version that a reader must know: 2 is WAL.
    pub read_version: u8,
    /// How many bytes at the end of each page SQLite leaves alone.
    reserved: u8,
    /// Three bytes that each version of SQLite wants to be 64, 32 and 32.
    fractions: [u8; 3],
    /// Counts the commits that changed page 1.
    pub change_counter: u32,
    /// The size of the database in pages, if the header can be trusted for it
    /// (`lockBtree`).
    pub page_count: Option<u32>,
    /// The first trunk page of the list of free pages; 0 if there is none.
    pub freelist_trunk: u32,
    /// The number of free pages.
    pub freelist_pages: u32,
    /// Counts the changes of the schema; connections drop what they know of
    /// it when this changes.
    pub schema_cookie: u32,
}

impl DatabaseHeader {
    /// The length of the header in bytes.
    pub const LEN: usize = 100;

    /// Reads the header; `None` if the bytes do not begin a SQLite database.
    pub fn decode(page_one: &[u8]) -> Option<Self> {
        let header = page_one.first_chunk::<{ Self::LEN }>()?;
        if !header.starts_with(MAGIC) {
            return None;
        }
        let word =
            |at: usize| -> [u8; 4] { [header[at], header[at + 1], header[at + 2], header[at + 3]] };
        let page_count = u32::from_be_bytes(word(28));
        let trusted = word(24) == word(92) && page_count != 0;
        Some(DatabaseHeader {
            page_size: u16::from_be_bytes([header[16], header[17]]),
            write_version: header[18],
            read_version: header[19],
            reserved: header[20],
            fractions: [header[21], header[22], header[23]],
            change_counter: u32::from_be_bytes(word(24)),
            page_count: trusted.then_some(page_count),
            freelist_trunk: u32::from_be_bytes(word(32)),
            freelist_pages: u32::from_be_bytes(word(36)),
            schema_cookie: u32::from_be_bytes(word(40)),
        })
    }

    /// The page size of the database.
    ///
    /// # Errors
    /// [`crate::Error::InvalidPageSize`] if the header holds none.
    pub fn page_size(&self) -> Result<PageSize> {
        PageSize::from_u16(self.page_size)
    }

    /// How many bytes of a page of `page_size` SQLite uses.
    pub fn usable(&self, page_size: PageSize) -> usize {
        page_size.len() - usize::from(self.reserved)
    }

    /// True if the database is in WAL mode by its header. The version for writers does not
    /// count, as for SQLite (`lockBtree`).
    pub fn is_wal(&self) -> bool {
        self.read_version == 2
    }

    /// Why SQLite refuses a database of pages of `page_size` with this header, if it does
    /// (`lockBtree`).
    pub fn fault(&self, page_size: PageSize) -> Option<&'static str> {
        let usable = page_size.bytes() - u32::from(self.reserved);
        if self.page_size().ok() != Some(page_size) {
            Some("it names another page size")
        } else if self.read_version > 2 {
            Some("its read version is not known")
        } else if self.fractions != FRACTIONS || usable < LEAST_USABLE {
            Some("its bytes 20 to 23 are not those of a database")
        } else {
            None
        }
    }

    /// Keeps page 1 of a SQLite database consistent when it is logged behind a page 1 with
    /// the change counter `before`: the change counter goes up, and the size is valid for it
    /// (`pager_write_changecounter`). Pages of any other content stay as they are.
    pub fn stamp(page_one: &mut [u8], before: u32, page_count: u32) {
        let Some(header) = page_one.first_chunk_mut::<{ Self::LEN }>() else {
            return;
        };
        if !header.starts_with(MAGIC) {
            return;
        }
        let counter = before.wrapping_add(1).to_be_bytes();
        header[24..28].copy_from_slice(&counter);
        header[28..32].copy_from_slice(&page_count.to_be_bytes());
        header[92..96].copy_from_slice(&counter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_one() -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..16].copy_from_slice(MAGIC);
        page[16..24].copy_from_slice(&[2, 0, 2, 2, 0, 64, 32, 32]);
        page
    }

    #[test]
    fn header_that_sqlite_refuses_has_a_fault() {
        let fault = |at: usize, byte: u8| {
            let mut page = page_one();
            page[at] = byte;
            DatabaseHeader::decode(&page).unwrap().fault(PageSize::MIN)
        };
        for (at, byte) in [(18, 1), (18, 9), (19, 1), (20, 32)] {
            assert_eq!(fault(at, byte), None, "{at}");
        }
        for (at, byte) in [
            (16, 4),
            (17, 1),
            (19, 3),
            (20, 33),
            (21, 0),
            (22, 0),
            (23, 31),
        ] {
            assert!(fault(at, byte).is_some(), "{at}");
        }
    }

    #[test]
    fn database_is_in_wal_mode_by_its_read_version() {
        for (write, read, is_wal) in [(2, 2, true), (1, 2, true), (2, 1, false), (1, 1, false)] {
            let mut page = page_one();
            page[18..20].copy_from_slice(&[write, read]);
            let header = DatabaseHeader::decode(&page).unwrap();
            assert_eq!(header.is_wal(), is_wal, "{write} {read}");
        }
    }

    #[test]
    fn only_sqlite_databases_have_a_header() {
        assert!(DatabaseHeader::decode(&[0; 512]).is_none());
        assert!(DatabaseHeader::decode(MAGIC).is_none());
        assert_eq!(
            DatabaseHeader::decode(&page_one())
                .unwrap()
                .page_size()
                .unwrap(),
            PageSize::MIN
        );
    }

    #[test]
    fn the_size_counts_only_if_it_is_valid_for_the_change_counter() {
        let mut page = page_one();
        page[28..32].copy_from_slice(&5u32.to_be_bytes());
        assert_eq!(DatabaseHeader::decode(&page).unwrap().page_count, Some(5));
        page[24] = 1;
        assert_eq!(DatabaseHeader::decode(&page).unwrap().page_count, None);
        DatabaseHeader::stamp(&mut page, 1, 6);
        assert_eq!(DatabaseHeader::decode(&page).unwrap().page_count, Some(6));
    }
}
