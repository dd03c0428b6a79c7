//! Rewrites the whole database: shuts out everybody, or nobody.
//!
//! # Protocol
//! A rewrite is one transaction in the log, so it is there as a whole or not
//! at all, whatever dies. It is never done in place.
//!
//! A plain [`WriteTx::rewrite`] shuts nobody out: readers keep their
//! snapshots, and the database file shrinks with the next complete
//! checkpoint. The exclusive form holds Checkpoint, Write, then Read 0–4, of
//! which SQLite has no name for the whole; together they are enough for any
//! peer that keeps the protocol. They are taken in the order in which
//! everybody takes them, so there is no deadlock. Both backends get them from
//! their ordinary locks.
//!
//! # Crash
//! Before the commit frame nothing happened; after it the log has it all, and
//! whoever comes next checkpoints it.
#![allow(unsafe_code)] // A lock is said to keep what is read under it.

use std::path::Path;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::DatabaseHeader;
use crate::protocol::checkpoint::backfill::{Backfill, ThenLog};
use crate::protocol::checkpoint::options::CheckpointReport;
use crate::protocol::config::DatabaseKind;
use crate::protocol::durability::group_commit::CommitSync;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::page_ref::PageRef;
use crate::protocol::read::pages::pages;
use crate::protocol::read::snapshot::Snapshot;
use crate::protocol::write::append;
use crate::protocol::write::write_tx::WriteTx;
use crate::types::{Lock, PageNo};

/// `CKPT`, held for a vacuum: no other user checkpoints, so the checkpoint that ends the
/// vacuum cannot be refused.
pub struct VacuumCheckpointLock<C: WalCoordination> {
    checkpoint: LockGuard<C>,
    /// Waits for the other locks too, within the same time.
    waiter: Waiter,
}

/// While this is held, no other user reads, writes or checkpoints.
///
/// Hold it briefly: after about ten seconds stock SQLite gives up with
/// `SQLITE_PROTOCOL`, which its busy handler does not retry.
pub struct VacuumLockGuard<C: WalCoordination> {
    // Released in this order, the reverse of the order in which they are acquired.
    readers: LockGuard<C>,
    write: LockGuard<C>,
    checkpoint: LockGuard<C>,
}

/// A write transaction while everybody else is shut out.
pub struct VacuumTx<C: WalCoordination> {
    /// Holds `READ(0)` to `READ(4)` and `WRITE` itself: the caller may put another
    /// transaction in its place, and go on with this one when the rest is gone.
    tx: WriteTx<C>,
    checkpoint: LockGuard<C>,
}

/// The pages as they were before a rewrite.
pub struct OldPages<C: WalCoordination> {
    wal: Arc<Wal<C>>,
    snapshot: Snapshot,
}

/// The pages that a rewrite puts in the place of the old ones.
pub struct NewPages<'tx, C: WalCoordination> {
    tx: &'tx mut WriteTx<C>,
    count: u32,
}

impl<C: WalCoordination> VacuumTx<C> {
    pub(super) fn inner(&self) -> &WriteTx<C> {
        &self.tx
    }
}

impl<C: WalCoordination> NewPages<'_, C> {
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

pages!(OldPages);

impl<C: WalCoordination> OldPages<C> {
    pub(super) fn wal(&self) -> &Arc<Wal<C>> {
        &self.wal
    }

    /// How many pages there were.
    pub fn page_count(&self) -> u32 {
        self.snapshot.page_count()
    }

    /// The old content of `page`.
    ///
    /// # Errors
    /// As [`ReadTx::page`].
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        // SAFETY: this is made by `rewrite` alone, and is gone when that returns. The
        // transaction that is rewritten is borrowed by then, and holds `WRITE`. It
        // restarts the log only if its snapshot bypasses the log, and then no frame is
        // asked for.
        let kept = unsafe { self.wal.kept(1, self.snapshot.max_frame()) };
        kept.page(&self.snapshot, None, page)
    }
}

impl<C: WalCoordination> NewPages<'_, C> {
    /// How many pages there are so far, that of the lock bytes included.
    pub fn page_count(&self) -> u32 {
        self.count
    }

    /// Adds the next page, and tells its number: from 1 on, in order, without
    /// the page of the lock bytes.
    ///
    /// # Errors
    /// [`Error::Refused`] unless `content` is one page long, and what
    /// [`WriteTx::page_mut`] gives.
    pub fn push(&mut self, content: &[u8]) -> Result<PageNo> {
        let size = self.tx.wal().config().page_size;
        if content.len() != size.len() {
            let path = self.tx.wal().path();
            let reason = format!("a page of {} bytes was given", content.len());
            return Err(Error::refused(path, "rewrite", reason));
        }
        let number = self.tx.data_page_after(self.count)?;
        while self.tx.page_count() < number.get() {
            self.tx.allocate()?;
        }
        self.tx.page_mut(number)?.copy_from_slice(content);
        self.count = number.get();
        Ok(number)
    }
}

impl<C: WalCoordination> WriteTx<C> {
    /// Replaces all pages of the database by those that `rewrite` pushes;
    /// commit it to make that so.
    ///
    /// The pages of a SQLite database point at each other. Who gives them
    /// other numbers has to rewrite its B-trees, and to change the schema
    /// cookie, from which other connections learn it; `btrees_rewritten` says
    /// that this was done, and the cookie is looked at.
    ///
    /// # Errors
    /// [`Error::Refused`] for a SQLite database without `btrees_rewritten`, or
    /// with the same schema cookie, or if no page was pushed; what `rewrite`
    /// and [`ReadTx::page`] give. The transaction is then half rewritten, and
    /// of no use but to be rolled back.
    pub fn rewrite(
        &mut self,
        btrees_rewritten: bool,
        rewrite: impl FnOnce(&OldPages<C>, &mut NewPages<'_, C>) -> Result<()>,
    ) -> Result<()> {
        let wal = self.wal().clone();
        let refused = |reason: &str| Err(Error::refused(wal.path(), "rewrite", reason));
        let is_sqlite = wal.config().kind == DatabaseKind::Sqlite;
        if is_sqlite && !btrees_rewritten {
            return refused(
                "the pages of a SQLite database cannot be moved without rewriting its B-trees; \
                say that they are rewritten, or run VACUUM in stock SQLite",
            );
        }
        let old = OldPages {
            wal: wal.clone(),
            snapshot: self.read.snapshot,
        };
        let mut new = NewPages { tx: self, count: 0 };
        rewrite(&old, &mut new)?;
        let count = new.count;
        if count == 0 {
            return refused("no page was pushed, and a database has at least one");
        }
        self.set_page_count(count)?;
        if is_sqlite {
            let cookie =
                |page: &[u8]| DatabaseHeader::decode(page).map(|header| header.schema_cookie);
            if cookie(&old.page(PageNo::ONE)?) == cookie(&self.page(PageNo::ONE)?) {
                return refused("the schema cookie of page 1 was not changed");
            }
        }
        Ok(())
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Acquires the lock of checkpoints for a vacuum, after waiting for it as `busy` says.
    ///
    /// # Errors
    /// [`Error::Busy`] with the lock, [`Error::Cancelled`], and what [`Wal::begin_write`]
    /// gives.
    pub fn try_begin_vacuum_checkpoint_lock(
        self: &Arc<Self>,
        busy: impl Into<BusyHandler>,
    ) -> Result<VacuumCheckpointLock<C>> {
        self.check_writable()?;
        let mut waiter = Waiter::new(busy.into());
        let checkpoint = self.lock_or_busy(Lock::Checkpoint, &mut waiter)?;
        Ok(VacuumCheckpointLock { checkpoint, waiter })
    }
}

impl<C: WalCoordination> VacuumCheckpointLock<C> {
    pub(super) fn path(&self) -> &Path {
        self.checkpoint.wal().path()
    }

    /// Excludes every other user: acquires `WRITE` and `READ(0)` to `READ(4)`, waiting in
    /// what is left of the time for `CKPT`.
    ///
    /// # Errors
    /// [`Error::Busy`] with the lock that another user holds, [`Error::Cancelled`], and what
    /// [`Wal::begin_write`] gives.
    pub fn exclude_all(self) -> Result<VacuumLockGuard<C>> {
        let VacuumCheckpointLock {
            checkpoint,
            mut waiter,
        } = self;
        let wal = checkpoint.wal();
        let write = wal.lock_or_busy(Lock::Write, &mut waiter)?;
        let held = LocksHeld {
            write: Some(&write),
            checkpoint: Some(&checkpoint),
        };
        // Before the slots are acquired: a recovery looks for those that have readers.
        wal.settled_header(&held)?;
        let readers = wal.lock_or_busy(Lock::Readers, &mut waiter)?;
        Ok(VacuumLockGuard {
            readers,
            write,
            checkpoint,
        })
    }

    /// Begins a write transaction beside which no other user does anything
    /// ([`VacuumCheckpointLock::exclude_all`]). The log is moved to the database file first,
    /// so that the transaction has the log for itself.
    ///
    /// # Errors
    /// Those of [`VacuumCheckpointLock::exclude_all`] and
    /// [`VacuumLockGuard::vacuum_checkpoint_with_held_lock`].
    pub fn begin_vacuum_blocking_tx(self) -> Result<VacuumTx<C>> {
        self.exclude_all()?.begin()
    }
}

impl<C: WalCoordination> VacuumLockGuard<C> {
    pub(super) fn path(&self) -> &Path {
        self.write.wal().path()
    }

    /// Moves all of the log to the database file, cuts that to its size, and
    /// cuts the log to nothing, while every other user stays excluded.
    ///
    /// # Errors
    /// What [`Wal::checkpoint_with`] gives.
    pub fn vacuum_checkpoint_with_held_lock(&self) -> Result<CheckpointReport> {
        let wal = self.checkpoint.wal();
        wal.check_writable()?;
        let held = LocksHeld {
            write: Some(&self.write),
            checkpoint: Some(&self.checkpoint),
        };
        let header = wal.settled_header(&held)?;
        wal.mend_log_for_checkpoint(&header, true)?;
        let mut waiter = Waiter::new(BusyHandler::FAIL);
        let mut backfill = Backfill::new(wal, header, None, &mut waiter, false);
        backfill.nobody_reads();
        let mut report = backfill.run(u32::MAX)?;
        if report.is_complete() {
            backfill.shut_readers_out(ThenLog::IsCut, &mut report)?;
        }
        Ok(report)
    }

    fn begin(self) -> Result<VacuumTx<C>> {
        let report = self.vacuum_checkpoint_with_held_lock()?;
        let wal = self.checkpoint.wal().clone();
        if !report.is_complete() {
            return Err(wal.busy(Lock::Readers));
        }
        let held = LocksHeld {
            write: Some(&self.write),
            checkpoint: Some(&self.checkpoint),
        };
        let header = wal.settled_header(&held)?;
        let VacuumLockGuard {
            readers,
            write,
            checkpoint,
        } = self;
        let read = ReadTx::of_database(readers, &header)?;
        let tx = WriteTx::new(read, write);
        Ok(VacuumTx { tx, checkpoint })
    }
}

impl<C: WalCoordination> VacuumTx<C> {
    /// The transaction.
    pub fn tx(&mut self) -> &mut WriteTx<C> {
        &mut self.tx
    }

    /// Commits, and keeps everybody shut out for
    /// [`VacuumLockGuard::vacuum_checkpoint_with_held_lock`].
    ///
    /// # Errors
    /// As [`WriteTx::commit`], and [`Error::Refused`] if another transaction was put in
    /// the place of the one that shuts everybody out; everybody is let in again then.
    pub fn commit(mut self) -> Result<VacuumLockGuard<C>> {
        let wal = self.tx.wal().clone();
        wal.check_writable()?;
        let is_of_this_vacuum =
            Arc::ptr_eq(&wal, self.checkpoint.wal()) && self.tx.read.lock() == Lock::Readers;
        if !is_of_this_vacuum {
            let reason = "it is not the transaction that was begun for it";
            return Err(Error::refused(wal.path(), "a vacuum", reason));
        }
        append::commit(&mut self.tx, CommitSync::BeforeVisible)?;
        let VacuumTx { mut tx, checkpoint } = self;
        let (readers, write) = tx.take_locks();
        // What is left of it has the locks on loan.
        drop(tx);
        Ok(VacuumLockGuard {
            readers,
            write,
            checkpoint,
        })
    }
}
