//! The list of free pages of a SQLite database.
//!
//! Page 1 names the first trunk page. A trunk has the number of the next one, the number of its
//! leaves, and the leaves, four bytes each.

use std::collections::HashSet;
use std::fmt;

use super::{CommittedPages, PageSource};
use crate::error::Result;
use crate::format::DatabaseHeader;
use crate::types::PageNo;

/// How many faults are returned; the others are counted.
const MAX_FAULTS: usize = 8;

/// What is wrong with a list of free pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FreelistFault {
    /// The page is no page of the database, or that of the lock bytes.
    NoPage {
        /// The page.
        page: u32,
        /// The trunk that names it; 0 is the header.
        named_by: u32,
    },
    /// The page is in the list twice.
    Twice {
        /// The page.
        page: u32,
        /// The trunk that names it the second time.
        named_by: u32,
    },
    /// The trunk names more leaves than it has room for.
    TooManyLeaves {
        /// The trunk.
        trunk: u32,
        /// How many.
        leaves: u32,
    },
    /// The header counts another number of pages.
    Count {
        /// As many as the header says.
        header: u32,
        /// As many as the list has.
        found: u32,
    },
}

impl fmt::Display for FreelistFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |named_by: u32| match named_by {
            0 => "the header".to_owned(),
            trunk => format!("page {trunk}"),
        };
        match *self {
            FreelistFault::NoPage { page, named_by } => write!(
                f,
                "{} names page {page}, which the database does not have",
                by(named_by)
            ),
            FreelistFault::Twice { page, named_by } => {
                write!(
                    f,
                    "{} names page {page}, which is free already",
                    by(named_by)
                )
            }
            FreelistFault::TooManyLeaves { trunk, leaves } => {
                write!(f, "page {trunk} has no room for {leaves} leaves")
            }
            FreelistFault::Count { header, found } => {
                write!(
                    f,
                    "the header counts {header} free pages, the list has {found}"
                )
            }
        }
    }
}

/// What a walk along the list has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Freelist {
    /// The trunk pages.
    pub trunks: u32,
    /// All free pages, trunks included.
    pub pages: u32,
    /// The first faults.
    pub faults: Vec<FreelistFault>,
    /// All faults.
    pub fault_count: u64,
}

impl Freelist {
    fn fault(&mut self, fault: FreelistFault) {
        self.fault_count += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }
}

/// Walks along the list of free pages of the database `pages`, whose page 1 has `header`.
///
/// # Errors
/// [`crate::Error::Io`].
pub fn walk_freelist(pages: &CommittedPages<'_>, header: &DatabaseHeader) -> Result<Freelist> {
    let mut walk = Walk {
        pages,
        seen: HashSet::new(),
        found: Freelist::default(),
    };
    let usable = header.usable(pages.page_size());
    let mut buffer = vec![0; pages.page_size().len()];
    let (mut named_by, mut next) = (0, header.freelist_trunk);
    // Each trunk is a page that was not seen before, so a list without an end ends, too.
    while next != 0 && walk.is_new(next, named_by) {
        let trunk = next;
        let Ok(number) = PageNo::new(trunk) else {
            break;
        };
        if pages.read(number, &mut buffer)? == PageSource::Missing {
            walk.found.fault(FreelistFault::NoPage {
                page: trunk,
                named_by,
            });
            break;
        }
        walk.found.trunks += 1;
        let words = buffer[..usable].as_chunks::<4>().0;
        let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
        (named_by, next) = (trunk, words.next().unwrap_or(0));
        let leaves = words.next().unwrap_or(0);
        if leaves as usize > words.len() {
            walk.found
                .fault(FreelistFault::TooManyLeaves { trunk, leaves });
            break;
        }
        for leaf in words.take(leaves as usize) {
            walk.is_new(leaf, trunk);
        }
    }
    let mut found = walk.found;
    found.pages = u32::try_from(walk.seen.len()).unwrap_or(u32::MAX);
    if found.fault_count == 0 && found.pages != header.freelist_pages {
        found.fault(FreelistFault::Count {
            header: header.freelist_pages,
            found: found.pages,
        });
    }
    Ok(found)
}

struct Walk<'a, 'p> {
    pages: &'a CommittedPages<'p>,
    seen: HashSet<u32>,
    found: Freelist,
}

impl Walk<'_, '_> {
    /// Notes that `page` is free; false, with a fault, if it cannot be.
    fn is_new(&mut self, page: u32, named_by: u32) -> bool {
        // Page 1 has the header, so it is never free.
        let is_page = (2..=self.pages.page_count()).contains(&page)
            && page != self.pages.page_size().lock_byte_page().get();
        if !is_page {
            self.found.fault(FreelistFault::NoPage { page, named_by });
            false
        } else if !self.seen.insert(page) {
            self.found.fault(FreelistFault::Twice { page, named_by });
            false
        } else {
            true
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::storage::MemoryFile;
    use crate::types::PageSize;
    use proptest::prelude::*;

    /// A database of 6 pages of 512 bytes with the free pages 3 (trunk: 4, 5) and 2 (trunk).
    fn database() -> Vec<u8> {
        let mut bytes = vec![0; 6 * 512];
        bytes[..16].copy_from_slice(b"SQLite format 3\0");
        bytes[16..24].copy_from_slice(&[2, 0, 2, 2, 0, 64, 32, 32]);
        put(&mut bytes, 32, &[3, 4]);
        put(&mut bytes, 2 * 512, &[2, 2, 4, 5]);
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, words: &[u32]) {
        for (word, bytes) in words.iter().zip(bytes[at..].chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn walk(bytes: &[u8], page_count: u32) -> Freelist {
        let log = MemoryFile::new("db-wal", Vec::new());
        let database = MemoryFile::new("db", bytes.to_vec());
        let pages = CommittedPages::new(&database, &log, PageSize::MIN, page_count, &[]);
        walk_freelist(&pages, &DatabaseHeader::decode(bytes).unwrap()).unwrap()
    }

    #[test]
    fn sound_list_has_its_trunks_and_leaves() {
        let found = walk(&database(), 6);
        assert_eq!((found.trunks, found.pages, found.fault_count), (2, 4, 0));
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let fault = |at: usize, words: &[u32]| {
            let mut bytes = database();
            put(&mut bytes, at, words);
            let found = walk(&bytes, 6);
            assert_eq!(found.fault_count, 1, "{found:?}");
            found.faults[0]
        };
        let trunk = 2 * 512;
        let no_page = |page, named_by| FreelistFault::NoPage { page, named_by };
        let twice = |page, named_by| FreelistFault::Twice { page, named_by };
        assert_eq!(fault(32, &[7]), no_page(7, 0));
        assert_eq!(fault(32, &[1]), no_page(1, 0));
        assert_eq!(fault(trunk + 12, &[0]), no_page(0, 3));
        assert_eq!(fault(trunk + 12, &[4]), twice(4, 3));
        assert_eq!(fault(trunk, &[3]), twice(3, 3));
        assert_eq!(fault(512, &[3]), twice(3, 2));
        let leaves = |leaves| FreelistFault::TooManyLeaves { trunk: 3, leaves };
        assert_eq!(fault(trunk + 4, &[127]), leaves(127));
        assert_eq!(fault(trunk + 4, &[u32::MAX]), leaves(u32::MAX));
        let count = FreelistFault::Count {
            header: 9,
            found: 4,
        };
        assert_eq!(fault(36, &[9]), count);
        assert_eq!(walk(&database()[..1024], 6).faults, [no_page(3, 0)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_a_panic(
            bytes in proptest::collection::vec(0..9_u8, 512..3000),
            page_count: u32,
        ) {
            let mut bytes = bytes;
            bytes[..24].copy_from_slice(&database()[..24]);
            let _ = walk(&bytes, page_count);
        }
    }
}
