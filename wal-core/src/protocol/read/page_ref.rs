//! A page, as it is handed out: a slice of a mapping, or bytes of its own.

use std::ops::Deref;

use crate::types::PageSize;

/// What stands where nothing was ever written.
static ZEROS: [u8; 65536] = [0; 65536];

/// A page as a snapshot sees it. It borrows the transaction that keeps it as it is.
pub struct PageRef<'tx>(Content<'tx>);

enum Content<'tx> {
    Mapped(&'tx [u8]),
    Copied(Box<[u8]>),
}

impl<'tx> PageRef<'tx> {
    #[inline]
    pub(in crate::protocol) fn borrowed(bytes: &'tx [u8]) -> Self {
        PageRef(Content::Mapped(bytes))
    }

    pub(in crate::protocol) fn copied(bytes: Box<[u8]>) -> Self {
        PageRef(Content::Copied(bytes))
    }

    /// A page of zeros.
    pub(in crate::protocol) fn zeros(size: PageSize) -> Self {
        Self::borrowed(&ZEROS[..size.len()])
    }

    /// True if the page was not copied.
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Content::Mapped(_))
    }
}

impl Deref for PageRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Mapped(bytes) => bytes,
            Content::Copied(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for PageRef<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
