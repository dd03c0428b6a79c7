//! What kind of file a database is, by its first bytes.

use crate::error::Result;
use crate::format::{DatabaseHeader, DecodedStoreHeader, PageStoreHeader};
use crate::storage::File;
use crate::types::PageSize;

/// What a database file holds, by its header.
///
/// Page 1 may be newer in the log: a file whose first commit is not checkpointed is
/// [`Content::Empty`], and one whose journal mode was just changed shows the mode before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Content {
    /// A SQLite database; [`DatabaseHeader::is_wal`] tells its mode.
    Sqlite(DatabaseHeader),
    /// A page store of this library.
    PageStore(PageStoreHeader),
    /// A page store of a version that this library does not know.
    UnknownStoreVersion(u32),
    /// A page store whose header is damaged.
    DamagedStore,
    /// Nothing: the file has no bytes.
    Empty,
    /// Something else: no database, an encrypted one, or raw pages.
    Other,
}

/// What is known of a database file by its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DatabaseInfo {
    /// The length of the file in bytes.
    pub len: u64,
    /// What it holds.
    pub content: Content,
}

impl DatabaseInfo {
    /// The page size that the header names, if it is a valid one.
    pub fn page_size(&self) -> Option<PageSize> {
        match &self.content {
            Content::Sqlite(header) => header.page_size().ok(),
            Content::PageStore(header) => Some(header.page_size),
            _ => None,
        }
    }
}

/// Describes `database`, of which the first 100 bytes are read.
///
/// # Errors
/// [`crate::Error::Io`] if it cannot be read.
///
/// ```
/// use wal_core::inspect::{Content, read_database};
/// use wal_core::storage::MemoryFile;
///
/// let info = read_database(&MemoryFile::new("app.db", Vec::new()))?;
/// assert_eq!((info.len, info.content), (0, Content::Empty));
/// # Ok::<(), wal_core::Error>(())
/// ```
pub fn read_database(database: &dyn File) -> Result<DatabaseInfo> {
    let mut bytes = [0; DatabaseHeader::LEN];
    let read = database.read_at(&mut bytes, 0)?;
    Ok(DatabaseInfo {
        len: database.len()?,
        content: content_of(&bytes[..read]),
    })
}

fn content_of(bytes: &[u8]) -> Content {
    if bytes.is_empty() {
        return Content::Empty;
    }
    match (
        DatabaseHeader::decode(bytes),
        PageStoreHeader::decode(bytes),
    ) {
        (Some(header), _) => Content::Sqlite(header),
        (None, DecodedStoreHeader::Valid(header)) => Content::PageStore(header),
        (None, DecodedStoreHeader::OtherVersion(version)) => Content::UnknownStoreVersion(version),
        (None, DecodedStoreHeader::Damaged) => Content::DamagedStore,
        (None, DecodedStoreHeader::None) => Content::Other,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_content_is_told_by_the_first_bytes() {
        let store = PageStoreHeader::new(PageSize::MIN);
        assert_eq!(content_of(&store.encode()), Content::PageStore(store));
        assert_eq!(content_of(b""), Content::Empty);
        assert_eq!(
            content_of(b"SQLite format 3\0"),
            Content::Other,
            "too short"
        );
        assert_eq!(content_of(&[7; 100]), Content::Other);
        let mut sqlite = [0; 100];
        sqlite[..16].copy_from_slice(b"SQLite format 3\0");
        sqlite[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        let Content::Sqlite(header) = content_of(&sqlite) else {
            unreachable!("it begins as a SQLite database")
        };
        let info = DatabaseInfo {
            len: 100,
            content: Content::Sqlite(header),
        };
        assert!(header.is_wal());
        assert_eq!(info.page_size().map(PageSize::bytes), Some(4096));
    }
}
