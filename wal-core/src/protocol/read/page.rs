//! A page of a snapshot, and how it is asked for.

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::page_ref::PageRef;
use crate::types::{FrameNo, PageNo};

impl<C: WalCoordination> ReadTx<C> {
    /// The newest frame of the snapshot that holds `page`; `None` if the page
    /// is in the database file.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] if the wal-index contradicts itself,
    /// [`crate::Error::SnapshotTooOld`] beyond the age limit,
    /// [`crate::Error::UsedAfterFork`] in a forked child.
    pub fn find_frame(&self, page: PageNo) -> Result<Option<FrameNo>> {
        self.wal().check_process()?;
        self.check_age()?;
        self.kept()
            .find_frame(&self.snapshot, Some(&self.map), page)
    }

    /// The content of `page`: without a copy, if the files are mapped.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchPage`] beyond the end of the snapshot,
    /// [`crate::Error::SnapshotTooOld`] beyond the age limit, [`crate::Error::UsedAfterFork`] in a forked child, [`crate::Error::Corrupt`] if a
    /// file is shorter than the snapshot says, [`crate::Error::Io`].
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        self.check_age()?;
        self.kept().page(&self.snapshot, Some(&self.map), page)
    }
}
