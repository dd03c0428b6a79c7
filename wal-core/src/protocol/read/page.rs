//! A page of a snapshot, and how it is asked for.

use std::ops::Deref;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::protocol::read::begin::{ReadTx, Snapshot};
use crate::types::{FrameNo, PageNo, PageSize};

/// What stands where nothing was ever written.
static ZEROS: [u8; 65536] = [0; 65536];

/// A page as a snapshot sees it. It borrows the transaction that keeps it as it is.
pub struct PageRef<'tx>(Content<'tx>);

enum Content<'tx> {
    Mapped(&'tx [u8]),
    Copied(Box<[u8]>),
}

impl<'tx> PageRef<'tx> {
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

impl<C: WalCoordination> ReadTx<C> {
    /// The newest frame of the snapshot that holds `page`; `None` if the page
    /// is in the database file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the wal-index contradicts itself,
    /// [`Error::SnapshotTooOld`] beyond the age limit,
    /// [`Error::UsedAfterFork`] in a forked child.
    pub fn find_frame(&self, page: PageNo) -> Result<Option<FrameNo>> {
        self.wal().check_process()?;
        self.check_age()?;
        self.kept()
            .find_frame(&self.snapshot, Some(&self.map), page)
    }

    /// The content of `page`: without a copy, if the files are mapped.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`] beyond the end of the snapshot,
    /// [`Error::SnapshotTooOld`] beyond the age limit, [`Error::UsedAfterFork`] in a forked child, [`Error::Corrupt`] if a
    /// file is shorter than the snapshot says, [`Error::Io`].
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        self.check_age()?;
        self.kept().page(&self.snapshot, Some(&self.map), page)
    }
}

impl Snapshot {
    pub(in crate::protocol) fn check_page(&self, page: PageNo, size: PageSize) -> Result<()> {
        if page.get() > self.page_count || page == size.lock_byte_page() {
            return Err(Error::NoSuchPage {
                page: page.get(),
                page_count: self.page_count,
            });
        }
        Ok(())
    }
}
