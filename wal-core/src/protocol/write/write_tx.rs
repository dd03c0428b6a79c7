//! The write transaction: its pages, before they are committed.

use std::fmt;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::page_ref::PageRef;
use crate::protocol::read::pages::pages;
use crate::protocol::write::dirty_pages::Changes;
use crate::protocol::write::frames_mark::Cuts;
use crate::protocol::write::own_frames::OwnFrames;
use crate::types::PageNo;

/// A write transaction. Dropping it without [`WriteTx::commit`] rolls it
/// back.
pub struct WriteTx<C: WalCoordination> {
    // Fields are dropped in this order: the read lock goes before Write, so
    // the next writer finds the slot free.
    pub(in crate::protocol) read: ReadTx<C>,
    pub(in crate::protocol) write: LockGuard<C>,
    pub(in crate::protocol) changes: Changes,
    /// What the transaction has in the log, from its first spill on.
    pub(in crate::protocol) own: Option<OwnFrames>,
    /// Where an engine has cut its frames.
    pub(in crate::protocol) cuts: Cuts,
    /// The number of the commit it began on, which may be unpublished.
    pub(super) begun_on: Option<u64>,
    /// The number of the thread that began it.
    pub(in crate::protocol) thread: u32,
}

/// Why a read transaction did not become a write transaction. `?` turns it into its
/// [`Error`], and ends the read transaction.
pub struct UpgradeRefused<C: WalCoordination> {
    /// The read transaction, as it was.
    pub read: ReadTx<C>,
    /// The reason.
    pub error: Error,
}

impl<C: WalCoordination> fmt::Display for UpgradeRefused<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<C: WalCoordination> std::error::Error for UpgradeRefused<C> {
    /// What is behind the reason; the message is that of the reason itself.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<C: WalCoordination> From<UpgradeRefused<C>> for Error {
    fn from(refused: UpgradeRefused<C>) -> Self {
        refused.error
    }
}

impl<C: WalCoordination> From<Box<UpgradeRefused<C>>> for Error {
    fn from(refused: Box<UpgradeRefused<C>>) -> Self {
        refused.error
    }
}

pages!(WriteTx);

impl<C: WalCoordination> WriteTx<C> {
    pub(in crate::protocol) fn new(read: ReadTx<C>, write: LockGuard<C>) -> Self {
        let changes = Changes::none(read.page_count());
        let thread = write.wal().own_write().begin();
        WriteTx {
            read,
            write,
            changes,
            own: None,
            cuts: Cuts::default(),
            begun_on: None,
            thread,
        }
    }

    /// The size of the database in pages, as this transaction has made it.
    pub fn page_count(&self) -> u32 {
        self.changes.page_count()
    }

    /// The content of `page` as this transaction sees it, its own changes
    /// included.
    ///
    /// # Errors
    /// As [`ReadTx::page`].
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        self.check_page(page)?;
        if let Some(bytes) = self.changes.dirty().get(&page) {
            return Ok(PageRef::borrowed(bytes));
        }
        match self.spilled_page(page)? {
            Some(content) => Ok(content),
            None => self.read.page(page),
        }
    }

    /// The content of `page`, to be changed.
    ///
    /// # Errors
    /// As [`ReadTx::page`], [`WriteTx::spill`] if there is no room for
    /// another page, and [`Error::Refused`] beside frames of [`WriteTx::append_frames_vectored`].
    pub fn page_mut(&mut self, page: PageNo) -> Result<&mut [u8]> {
        self.check_page(page)?;
        self.check_changes_pages("changing a page")?;
        if !self.changes.is_ready(page) {
            self.make_room()?;
            self.take_copy(page)?;
        }
        let no_such_page = self.no_such_page(page.get());
        self.changes.page_mut(page).ok_or(no_such_page)
    }

    /// Takes `page` to the heap, whatever room there is.
    pub(super) fn take_copy(&mut self, page: PageNo) -> Result<()> {
        if self.changes.dirty().contains_key(&page) {
            self.changes.prepare(page);
        } else {
            let content = (*self.page(page)?).into();
            self.changes.put(page, content);
        }
        Ok(())
    }

    /// True if the transaction changed `page`, on the heap or in the log.
    pub(super) fn has_changed(&self, page: PageNo) -> Result<bool> {
        Ok(self.changes.dirty().contains_key(&page) || self.spilled_page(page)?.is_some())
    }

    /// True if there is nothing to commit.
    pub(super) fn is_unchanged(&self) -> bool {
        self.changes.dirty().is_empty()
            && self.page_count() == self.read.page_count()
            && self.own.as_ref().is_none_or(OwnFrames::is_empty)
    }

    /// Adds a page of zeros at the end of the database. The page of the lock
    /// bytes is passed over.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`] beyond [`PageNo::MAX`], those of
    /// [`WriteTx::spill`] if there is no room for another page, and [`Error::Refused`] as
    /// for [`WriteTx::page_mut`].
    pub fn allocate(&mut self) -> Result<PageNo> {
        self.check_changes_pages("adding a page")?;
        let size = self.wal().config().page_size;
        let next = self.data_page_after(self.page_count())?;
        self.make_room()?;
        self.changes.resize(next.get());
        self.changes
            .put(next, vec![0; size.len()].into_boxed_slice());
        Ok(next)
    }

    /// The first page behind the first `count` ones that holds data.
    pub(in crate::protocol) fn data_page_after(&self, count: u32) -> Result<PageNo> {
        let next = self.page_after(count)?;
        match next == self.wal().config().page_size.lock_byte_page() {
            true => self.page_after(next.get()),
            false => Ok(next),
        }
    }

    /// The page behind the first `count` ones.
    fn page_after(&self, count: u32) -> Result<PageNo> {
        match count.checked_add(1) {
            Some(next) if next <= PageNo::MAX.get() => PageNo::new(next),
            _ => Err(self.no_such_page(count.saturating_add(1))),
        }
    }

    /// Makes the database `page_count` pages long: pages beyond are cut off,
    /// and pages that are added are zeros, which the commit writes.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`] if that is none or more than [`PageNo::MAX`], or if the
    /// last one would be the page of the lock bytes; those of [`WriteTx::spill`], and
    /// [`Error::Refused`] as for [`WriteTx::page_mut`]. The size is then what it was.
    pub fn set_page_count(&mut self, page_count: u32) -> Result<()> {
        self.wal().check_process()?;
        self.check_changes_pages("changing the size")?;
        let before = self.page_count();
        let lock_bytes = self.wal().config().page_size.lock_byte_page();
        let last = 1..=PageNo::MAX.get();
        if !last.contains(&page_count) || page_count == lock_bytes.get() {
            return Err(self.no_such_page(page_count));
        }
        if page_count <= before {
            self.changes.resize(page_count);
        }
        while self.page_count() < page_count {
            if let Err(e) = self.allocate() {
                self.changes.resize(before);
                return Err(e);
            }
        }
        Ok(())
    }

    pub(in crate::protocol) fn wal(&self) -> &Arc<Wal<C>> {
        self.write.wal()
    }

    /// Refuses to change pages beside frames of an engine, which a savepoint could not
    /// restore and a commit would include without the engine's size.
    pub(super) fn check_changes_pages(&self, operation: &'static str) -> Result<()> {
        self.wal().own_write().touch(self.thread);
        match &self.own {
            Some(own) if own.of_engine && !own.is_empty() => {
                let reason = "the transaction has frames of `write_frames` in the log; commit \
                    them with `commit_frames`, or cut them off with `undo_frames`";
                Err(Error::refused(self.wal().path(), operation, reason))
            }
            _ => Ok(()),
        }
    }

    fn check_page(&self, page: PageNo) -> Result<()> {
        self.wal().check_process()?;
        if page.get() > self.page_count() || page == self.wal().config().page_size.lock_byte_page()
        {
            return Err(self.no_such_page(page.get()));
        }
        Ok(())
    }

    fn no_such_page(&self, page: u32) -> Error {
        Error::NoSuchPage {
            page,
            page_count: self.page_count(),
        }
    }

    /// Notes that this transaction stays on its thread until it ends.
    pub(in crate::protocol) fn stay(&self) {
        self.wal().own_write().stays(self.thread);
    }
}
