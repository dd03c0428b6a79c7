//! The one write transaction.
//!
//! # Protocol
//! The writer holds Write from its beginning to its end, and a read lock, so
//! that the pages it reads stay. Write is not given to a reader whose
//! snapshot is stale: what it read may be wrong by now. With Write held the
//! published header stands still, so whoever takes Write first and then
//! begins to read has the newest state for sure.
//!
//! Pages that the transaction changes are kept on the heap until it commits;
//! a rollback drops them.
//!
//! # Crash
//! Whoever takes Write next finds what a dead writer left in the index above
//! the published frame, and trims it. In the log such frames are overwritten.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::append;
use super::busy::{BusyHandler, Waiter};
use super::page::PageRef;
use super::read::ReadTx;
use super::snapshot::Held;
use super::{LockGuard, Wal};
use crate::coordination::{Lock, LockMode, WalCoordination};
use crate::error::{Error, Result};
use crate::index;
use crate::testing::{Mutation, mutated};
use crate::types::PageNo;

/// The pages that a transaction changed, by number.
pub(super) type DirtyPages = BTreeMap<PageNo, Box<[u8]>>;

/// A write transaction. Dropping it without [`WriteTx::commit`] rolls it
/// back.
#[derive(Debug)]
pub struct WriteTx<C: WalCoordination> {
    // Fields are dropped in this order: the read lock goes before Write, so
    // the next writer finds the slot free.
    pub(super) read: ReadTx<C>,
    pub(super) write: LockGuard<C>,
    pub(super) dirty: DirtyPages,
    pub(super) page_count: u32,
}

/// Why a read transaction did not become a write transaction.
#[derive(Debug)]
pub struct UpgradeRefused<C: WalCoordination> {
    /// The read transaction, as it was.
    pub read: ReadTx<C>,
    /// The reason.
    pub error: Error,
}

impl<C: WalCoordination> Wal<C> {
    /// Begins a write transaction on the newest state of the database, after
    /// waiting for other writers as `busy` says.
    ///
    /// # Errors
    /// [`Error::Busy`] if another writer is still at work when `busy` gives
    /// up, [`Error::Cancelled`], [`Error::Poisoned`] after a failed sync, and
    /// what [`Wal::begin_read`] gives.
    pub fn begin_write(self: &Arc<Self>, busy: impl Into<BusyHandler>) -> Result<WriteTx<C>> {
        self.check_writable()?;
        let mut waiter = Waiter::new(busy.into());
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_begin_fresh_write(&mut waiter) {
                // Not Write, which was waited for already.
                Err(Error::Busy { lock, .. })
                    if lock != Lock::Write
                        && waiter.pause(lock, pause_without_write(attempt))? => {}
                begun => return begun,
            }
        }
    }

    /// Takes Write, then a snapshot. If that needs a recovery and a
    /// checkpointer is in the way, Write is given back: the checkpointer may
    /// be waiting for it.
    fn try_begin_fresh_write(self: &Arc<Self>, waiter: &mut Waiter) -> Result<WriteTx<C>> {
        let write = self.wait_for_lock(Lock::Write, waiter)?;
        let write = write.ok_or_else(|| self.busy(Lock::Write))?;
        let held = Held {
            write: Some(&write),
            checkpoint: None,
        };
        let mut read = self.begin_read_holding(&held)?;
        if self.mend_backfilled(&read.snapshot.header)? {
            drop(read);
            read = self.begin_read_holding(&held)?;
        }
        index::trim(&**self, read.snapshot.max_frame())?;
        Ok(WriteTx::new(read, write))
    }

    /// Turns a read transaction into a write transaction, without waiting.
    ///
    /// # Errors
    /// [`Error::BusySnapshot`] if somebody wrote since it began,
    /// [`Error::Busy`] if somebody is writing, and what [`Wal::begin_write`]
    /// gives; each with the read transaction, which can go on.
    pub fn try_begin_write_tx(
        self: &Arc<Self>,
        read: ReadTx<C>,
    ) -> Result<WriteTx<C>, Box<UpgradeRefused<C>>> {
        match self.write_lock_for(&read) {
            Ok(write) => Ok(WriteTx::new(read, write)),
            Err(error) => Err(Box::new(UpgradeRefused { read, error })),
        }
    }

    fn write_lock_for(self: &Arc<Self>, read: &ReadTx<C>) -> Result<LockGuard<C>> {
        self.check_writable()?;
        let write = self
            .try_lock(Lock::Write, LockMode::Exclusive)?
            .ok_or_else(|| self.busy(Lock::Write))?;
        // Compared once Write is held: from here on the header stands still.
        if !self.header_cell()?.is(&read.snapshot.header) && !mutated(Mutation::SkipStaleCheck) {
            return Err(Error::BusySnapshot);
        }
        if self.mend_backfilled(&read.snapshot.header)? {
            return Err(Error::BusySnapshot);
        }
        index::trim(&**self, read.snapshot.max_frame())?;
        Ok(write)
    }
}

/// How long Write is left alone: long enough, before long, for a stock SQLite
/// that looks every tenth of a second.
fn pause_without_write(attempt: u32) -> Duration {
    Duration::from_millis(u64::from(attempt).pow(2).min(150))
}

impl<C: WalCoordination> WriteTx<C> {
    pub(super) fn new(read: ReadTx<C>, write: LockGuard<C>) -> Self {
        let page_count = read.page_count();
        WriteTx {
            read,
            write,
            dirty: DirtyPages::new(),
            page_count,
        }
    }

    /// The size of the database in pages, as this transaction has made it.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The content of `page` as this transaction sees it, its own changes
    /// included.
    ///
    /// # Errors
    /// As [`ReadTx::page`].
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        self.check_page(page)?;
        match self.dirty.get(&page) {
            Some(bytes) => Ok(PageRef::borrowed(bytes)),
            None => self.read.page(page),
        }
    }

    /// The content of `page`, to be changed.
    ///
    /// # Errors
    /// As [`ReadTx::page`].
    pub fn page_mut(&mut self, page: PageNo) -> Result<&mut [u8]> {
        self.check_page(page)?;
        match self.dirty.entry(page) {
            Entry::Occupied(dirty) => Ok(dirty.into_mut()),
            Entry::Vacant(clean) => Ok(clean.insert((*self.read.page(page)?).into())),
        }
    }

    /// Adds a page of zeros at the end of the database. The page of the lock
    /// bytes is passed over.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`] if there is no higher page number.
    pub fn allocate(&mut self) -> Result<PageNo> {
        let size = self.wal().config.page_size;
        let after = |count: u32| {
            count
                .checked_add(1)
                .ok_or_else(|| self.no_such_page(u32::MAX))
        };
        let mut next = PageNo::new(after(self.page_count)?)?;
        if next == size.lock_byte_page() {
            next = PageNo::new(after(next.get())?)?;
        }
        self.dirty
            .insert(next, vec![0; size.len()].into_boxed_slice());
        self.page_count = next.get();
        Ok(next)
    }

    /// Cuts the database to its first `page_count` pages. Making room for more
    /// is [`WriteTx::allocate`]'s affair.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`] if that is none, or more than there are.
    pub fn truncate(&mut self, page_count: u32) -> Result<()> {
        self.wal().check_process()?;
        if page_count == 0 || page_count > self.page_count {
            return Err(self.no_such_page(page_count));
        }
        self.dirty.retain(|page, _| page.get() <= page_count);
        self.page_count = page_count;
        Ok(())
    }

    /// Makes the changes visible to everyone, and durable as the database's
    /// [`super::Synchronous`] promises, and tells how many frames the log has
    /// now. A transaction that changed nothing leaves no trace.
    ///
    /// # Errors
    /// The transaction is rolled back, except for
    /// [`Error::CommitOutcomeUnknown`]: then only opening the database again
    /// tells whether it is there.
    pub fn commit(mut self) -> Result<u32> {
        self.wal().check_writable()?;
        append::commit(&mut self)
    }

    /// Forgets the changes; dropping the transaction does the same.
    pub fn rollback(self) {}

    pub(super) fn wal(&self) -> &Arc<Wal<C>> {
        self.write.wal()
    }

    fn check_page(&self, page: PageNo) -> Result<()> {
        self.wal().check_process()?;
        if page.get() > self.page_count || page == self.wal().config.page_size.lock_byte_page() {
            return Err(self.no_such_page(page.get()));
        }
        Ok(())
    }

    fn no_such_page(&self, page: u32) -> Error {
        Error::NoSuchPage {
            page,
            page_count: self.page_count,
        }
    }
}
