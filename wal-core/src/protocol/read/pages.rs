//! What has pages: code that reads a tree of pages need not know whether a snapshot or a write
//! transaction has them.

use crate::error::Result;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::page_ref::PageRef;
use crate::types::{PageNo, PageSize};

/// One state of a database, page by page.
///
/// ```
/// use wal_core::protocol::Pages;
/// use wal_core::{PageNo, Result};
///
/// /// Adds up the first bytes of all pages, in a snapshot or in a write transaction.
/// fn sum(pages: &impl Pages) -> Result<u64> {
///     let numbers = (1..=pages.page_count()).map(PageNo::try_from);
///     numbers.map(|number| Ok(u64::from(pages.page(number?)?[0]))).sum()
/// }
/// ```
pub trait Pages {
    /// The content of `page`.
    ///
    /// # Errors
    /// [`NoSuchPage`](crate::Error::NoSuchPage) beyond [`Pages::page_count`] and for the
    /// page of the lock bytes; those of [`ReadTx::page`].
    fn page(&self, page: PageNo) -> Result<PageRef<'_>>;

    /// The size of the database in pages.
    fn page_count(&self) -> u32;

    /// The size of a page.
    fn page_size(&self) -> PageSize;
}

/// Implements [`Pages`] by the methods that the type has.
macro_rules! pages {
    ($type:ident) => {
        impl<C: $crate::WalCoordination> $crate::protocol::Pages for $type<C> {
            fn page(&self, page: $crate::PageNo) -> $crate::Result<$crate::protocol::PageRef<'_>> {
                $type::page(self, page)
            }

            fn page_count(&self) -> u32 {
                $type::page_count(self)
            }

            fn page_size(&self) -> $crate::PageSize {
                $type::page_size(self)
            }
        }

        impl<C: $crate::WalCoordination> $type<C> {
            /// The size of a page.
            pub fn page_size(&self) -> $crate::PageSize {
                self.wal().config().page_size
            }
        }
    };
}

pub(in crate::protocol) use pages;

pages!(ReadTx);
