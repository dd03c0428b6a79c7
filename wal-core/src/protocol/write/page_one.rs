//! Page 1 says what the file is, so it is checked wherever it is given to the database: at a
//! commit, when frames of another log are applied, and when a checkpoint moves it.
//!
//! Stock SQLite refuses a database whose page 1 is no header, and nothing restores one. So a
//! commit that would destroy it is refused.

use crate::format::{DatabaseHeader, DecodedStoreHeader, PageStoreHeader};
use crate::protocol::config::DatabaseKind;
use crate::types::PageSize;

/// Why `page_one` cannot be page 1 of a database of this kind and page size, if it cannot.
pub(in crate::protocol) fn fault(
    kind: DatabaseKind,
    page_size: PageSize,
    page_one: &[u8],
) -> Option<&'static str> {
    match kind {
        DatabaseKind::Sqlite => match DatabaseHeader::decode(page_one) {
            None => Some("it does not begin with the header of a SQLite database"),
            Some(header) => header.fault(page_size),
        },
        DatabaseKind::PageStore => {
            let is_store = matches!(
                PageStoreHeader::decode(page_one),
                DecodedStoreHeader::Valid(header) if header.page_size == page_size
            );
            (!is_store).then_some("its first 64 bytes are not the header of this page store")
        }
        DatabaseKind::RawPages => None,
    }
}

/// Why `after` must not become page 1 of a database, if it must not. `before` is the page 1
/// that it replaces, or empty if there is none.
pub(super) fn refusal(
    kind: DatabaseKind,
    page_size: PageSize,
    before: &[u8],
    after: &[u8],
) -> Option<&'static str> {
    if let Some(fault) = fault(kind, page_size, after) {
        return Some(fault);
    }
    let versions = |page: &[u8]| {
        let header = DatabaseHeader::decode(page)?;
        Some((header.write_version, header.read_version))
    };
    match (kind, versions(after)) {
        (DatabaseKind::Sqlite, Some(new)) => {
            let is_wal = matches!(new, (1 | 2, 2));
            (!is_wal && versions(before) != Some(new))
                .then_some("its versions at bytes 18 and 19 are not those of WAL mode")
        }
        (DatabaseKind::PageStore, _) => (!before.is_empty()
            && PageStoreHeader::decode(before) != PageStoreHeader::decode(after))
        .then_some("its first 64 bytes are the header of another page store"),
        // The next opener would take the file for a database of that kind.
        (DatabaseKind::RawPages, Some(_)) => Some("it begins with the header of a SQLite database"),
        (DatabaseKind::RawPages, None)
            if PageStoreHeader::decode(after) != DecodedStoreHeader::None =>
        {
            Some("it begins with the header of a page store")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: PageSize = PageSize::MIN;

    fn sqlite() -> Vec<u8> {
        let mut page = vec![0; SIZE.len()];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..24].copy_from_slice(&[2, 0, 2, 2, 0, 64, 32, 32]);
        page
    }

    fn store(page_size: PageSize) -> Vec<u8> {
        let mut page = vec![7; page_size.len()];
        let header = PageStoreHeader::new(page_size).encode();
        page[..PageStoreHeader::LEN].copy_from_slice(&header);
        page
    }

    #[test]
    fn page_one_of_another_kind_is_refused() {
        let pages = [sqlite(), store(SIZE), vec![9; SIZE.len()]];
        let kinds = [
            DatabaseKind::Sqlite,
            DatabaseKind::PageStore,
            DatabaseKind::RawPages,
        ];
        for (is, before) in pages.iter().enumerate() {
            for (becomes, after) in pages.iter().enumerate() {
                let refused = refusal(kinds[is], SIZE, before, after).is_some();
                assert_eq!(refused, is != becomes, "{is} {becomes}");
            }
        }
    }

    #[test]
    fn page_store_of_another_page_size_is_refused() {
        let after = store(PageSize::DEFAULT);
        assert!(fault(DatabaseKind::PageStore, SIZE, &after[..SIZE.len()]).is_some());
    }

    #[test]
    fn header_of_another_page_store_is_refused() {
        let (before, other) = (store(SIZE), store(SIZE));
        let refused = |after: &[u8]| refusal(DatabaseKind::PageStore, SIZE, &before, after);
        assert!(refused(&other).is_some());
        assert_eq!(refused(&before), None);
    }

    #[test]
    fn versions_of_rollback_mode_stay_or_are_refused() {
        let wal = sqlite();
        let mut rollback = sqlite();
        rollback[18..20].copy_from_slice(&[1, 1]);
        let refused = |before: &[u8], after: &[u8]| {
            refusal(DatabaseKind::Sqlite, SIZE, before, after).is_some()
        };
        assert!(refused(&wal, &rollback));
        assert!(!refused(&rollback, &rollback));
        assert!(!refused(&rollback, &wal));
    }
}
