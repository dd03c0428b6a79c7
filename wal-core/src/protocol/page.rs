//! Finds the version of a page that a snapshot sees.

use std::ops::Deref;

use super::Wal;
use super::page_map::TakenMap;
use super::read::{ReadTx, Snapshot};
use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{FRAME_HEADER_LEN, frame_offset};
use crate::types::{FrameNo, PageNo, PageSize};

/// What stands where nothing was ever written.
static ZEROS: [u8; 65536] = [0; 65536];

/// A page as a snapshot sees it. It goes with its transaction.
#[derive(Debug)]
pub struct PageRef<'tx>(Content<'tx>);

#[derive(Debug)]
enum Content<'tx> {
    Mapped(&'tx [u8]),
    Copied(Box<[u8]>),
}

impl<'tx> PageRef<'tx> {
    pub(super) fn borrowed(bytes: &'tx [u8]) -> Self {
        PageRef(Content::Mapped(bytes))
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
        self.wal().find_frame(&self.snapshot, Some(&self.map), page)
    }

    /// The content of `page`: without a copy, if the files are mapped.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`] beyond the end of the snapshot,
    /// [`Error::SnapshotTooOld`] beyond the age limit, [`Error::UsedAfterFork`] in a forked child, [`Error::Corrupt`] if a
    /// file is shorter than the snapshot says, [`Error::Io`].
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        self.check_age()?;
        self.wal()
            .checked_page(&self.snapshot, Some(&self.map), page)
    }
}

impl Snapshot {
    fn check_page(&self, page: PageNo, size: PageSize) -> Result<()> {
        if page.get() > self.page_count || page == size.lock_byte_page() {
            return Err(Error::NoSuchPage {
                page: page.get(),
                page_count: self.page_count,
            });
        }
        Ok(())
    }
}

impl<C: WalCoordination> Wal<C> {
    /// The content of `page`, if it is one of `snapshot`, whose lock the caller
    /// holds. `map` is as for [`Wal::find_frame`].
    pub(super) fn checked_page(
        &self,
        snapshot: &Snapshot,
        map: Option<&TakenMap>,
        page: PageNo,
    ) -> Result<PageRef<'_>> {
        self.check_process()?;
        snapshot.check_page(page, self.config.page_size)?;
        match self.find_frame(snapshot, map, page)? {
            Some(frame) => self.page_of_frame(frame),
            None => self.page_of_database(snapshot, page),
        }
    }

    /// The page in `frame`. The caller holds a slot that keeps the log from
    /// being restarted.
    pub(super) fn page_of_frame(&self, frame: FrameNo) -> Result<PageRef<'_>> {
        let size = self.config.page_size;
        let offset = frame_offset(frame, size) + FRAME_HEADER_LEN as u64;
        let log = self.storage.log();
        if let Some(mapped) = log.mapped() {
            return mapped.slice(offset, size.len()).map(PageRef::borrowed);
        }
        let mut copy = vec![0; size.len()].into_boxed_slice();
        if log.read_at(&mut copy, offset)? < copy.len() {
            return Err(Error::corrupt(
                log.path(),
                format!("it ends before {frame:?}"),
            ));
        }
        Ok(PageRef(Content::Copied(copy)))
    }

    fn page_of_database(&self, snapshot: &Snapshot, page: PageNo) -> Result<PageRef<'_>> {
        let size = self.config.page_size;
        let offset = page.offset(size);
        let file = self.storage.database();
        if let Some(mapped) = file.mapped() {
            return match mapped.slice(offset, size.len()) {
                Ok(bytes) => Ok(PageRef::borrowed(bytes)),
                Err(Error::Corrupt { .. }) if !snapshot.reads_database_only() => {
                    self.never_written(page)
                }
                Err(e) => Err(e),
            };
        }
        let mut copy = vec![0; size.len()].into_boxed_slice();
        if file.read_at(&mut copy, offset)? < copy.len() {
            if snapshot.reads_database_only() {
                return Err(Error::corrupt(
                    file.path(),
                    format!("it ends before {page:?}"),
                ));
            }
            return self.never_written(page);
        }
        Ok(PageRef(Content::Copied(copy)))
    }

    /// A page that the snapshot counts but that is in neither file. SQLite
    /// does not write a page that was added and freed in one transaction, so
    /// while the log is not backfilled the file may be too short for it. Once
    /// all is backfilled, the file has its full length.
    fn never_written(&self, page: PageNo) -> Result<PageRef<'_>> {
        let file = self.storage.database();
        if file.len()? >= page.offset(self.config.page_size) + self.config.page_size.len() as u64 {
            return Err(Error::corrupt(
                file.path(),
                format!("{page:?} cannot be mapped"),
            ));
        }
        Ok(PageRef::borrowed(&ZEROS[..self.config.page_size.len()]))
    }
}
