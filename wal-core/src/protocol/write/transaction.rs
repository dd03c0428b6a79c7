//! The one write transaction.
//!
//! # Protocol
//! The writer holds Write from its beginning to its end. Write is not given to
//! a reader whose snapshot is stale: what it read may be wrong by now. With
//! Write taken the published header stands still, so whoever takes Write first
//! and then begins to read has the newest state for sure. Who takes it over from
//! another thread begins on what that has left, of which the header may still be
//! on its way ([`crate::protocol::durability::pipelined_commit`]).
//!
//! Such a writer needs no read lock. Nobody can begin the log anew, which takes
//! Write; and a checkpoint may move what the published header covers and no
//! more, which is what the writer sees: a page that comes to the database file
//! meanwhile is one that the writer finds in the log, because it goes by the
//! count from before. So a commit costs two system calls for locks, and keeps
//! no checkpoint from going on.
//!
//! Pages that the transaction changes are kept on the heap, up to a limit;
//! beyond it they are spilled to the log, where nobody else sees them. A
//! rollback drops both.
//!
//! # Crash
//! Whoever takes Write next finds what a dead writer left in the index above
//! the published frame, and trims it. In the log such frames are overwritten.

use std::sync::Arc;
use std::time::Duration;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::{
    IndexHeader, {self},
};
use crate::protocol::config::Synchronous;
use crate::protocol::durability::group_commit::CommitSync;
use crate::protocol::durability::pipeline::Commit;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::queued_write::{Begin, HeldWrite};
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::header::Held;
use crate::protocol::read::snapshot::SavedSnapshot;
use crate::protocol::write::append;
use crate::protocol::write::write_tx::{UpgradeRefused, WriteTx};
use crate::testing::rule;
use crate::types::{FrameNo, Lock, PageNo};
use crate::wait::thread_number;

impl<C: WalCoordination> Wal<C> {
    /// Begins a write transaction on the newest state of the database, after
    /// waiting for other writers as `busy` says.
    ///
    /// At [`Synchronous::Full`] that may be what another thread of this attachment
    /// has just committed, before it is durable and before readers see it. The
    /// transaction then ends, by commit or rollback, once it is.
    ///
    /// # Errors
    /// [`Error::Busy`] if another writer is still at work when `busy` gives
    /// up, [`Error::OwnWrite`] if this thread waits for itself, [`Error::LogFull`] if there is a limit and the log is still beyond
    /// it, [`Error::Cancelled`], [`Error::Poisoned`] after a failed sync, and
    /// what [`Wal::begin_read`] gives.
    pub fn begin_write(self: &Arc<Self>, busy: impl Into<BusyHandler>) -> Result<WriteTx<C>> {
        self.begin_write_by(&mut Waiter::new(busy.into()))
    }

    pub(super) fn begin_write_by(self: &Arc<Self>, waiter: &mut Waiter) -> Result<WriteTx<C>> {
        self.check_writable()?;
        self.wait_for_room(waiter)?;
        self.begin_write_waiting(waiter, Begin::OnNewest)
    }

    /// As [`Wal::begin_write`], however long the log is.
    pub(in crate::protocol) fn begin_write_waiting(
        self: &Arc<Self>,
        waiter: &mut Waiter,
        on: Begin,
    ) -> Result<WriteTx<C>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match try_begin_fresh_write(self, waiter, on) {
                // Not Write, which was waited for already.
                Err(Error::Busy { lock, .. })
                    if lock != Lock::Write
                        && waiter.pause(lock, pause_without_write(attempt))? => {}
                begun => return begun,
            }
        }
    }
}

impl<C: WalCoordination> ReadTx<C> {
    /// Turns this into a write transaction on the very state that it sees, without
    /// waiting.
    ///
    /// # Errors
    /// [`Error::BusySnapshot`] if somebody wrote since it began,
    /// [`Error::Busy`] if somebody is writing, and what [`Wal::begin_write`]
    /// gives; each with this transaction, which can go on.
    pub fn upgrade(mut self) -> Result<WriteTx<C>, Box<UpgradeRefused<C>>> {
        match write_lock_for(self.wal(), &self) {
            Ok(write) => {
                self.lasts();
                Ok(WriteTx::new(self, write))
            }
            Err(error) => Err(Box::new(UpgradeRefused { read: self, error })),
        }
    }
}

/// The frame from which a commit went on that turned the state `before` into
/// `committed`: none, if the log began anew.
fn last_frame_before(before: &IndexHeader, committed: &IndexHeader) -> u32 {
    match before.salts() == committed.salts() {
        true => before.max_frame(),
        false => 0,
    }
}

/// How long Write is left alone: long enough, before long, for a stock SQLite
/// that looks every tenth of a second.
pub(super) fn pause_without_write(attempt: u32) -> Duration {
    Duration::from_millis(u64::from(attempt).pow(2).min(150))
}

impl<C: WalCoordination> WriteTx<C> {
    /// Makes the changes visible to everyone, and durable as the database's
    /// [`crate::protocol::Synchronous`] promises, and returns the state that it made, or that it
    /// began on if it changed nothing. A transaction that changed nothing leaves no
    /// trace.
    ///
    /// When this returns, every read transaction of every process that begins later sees
    /// the state. A replica sees it later: see [`crate::protocol::Snapshot::includes`].
    ///
    /// # Errors
    /// The transaction is rolled back, except for
    /// [`Error::CommitOutcomeUnknown`]: then only opening the database again
    /// tells whether it is there. [`Error::Refused`] if it has frames of
    /// [`WriteTx::append_frames_vectored`], which [`WriteTx::commit_frames`] commits. With [`crate::protocol::WalConfig::group_commit`] also
    /// [`Error::DurabilityUnknown`]: it is visible, but may not survive a power
    /// failure. [`crate::protocol::Opener::committed`] is called unless there is an error or
    /// nothing was changed.
    pub fn commit(mut self) -> Result<SavedSnapshot> {
        let wal = self.wal().clone();
        wal.check_writable()?;
        let shared = wal.shared_sync();
        let sync = match shared {
            Some(_) => CommitSync::Shared,
            None if wal.tuning().synchronous() == Synchronous::Full => CommitSync::InRelay,
            None => CommitSync::BeforeVisible,
        };
        let before = self.read.snapshot.header;
        let Some(committed) = append::commit(&mut self, sync)? else {
            self.end_on_published()?;
            return Ok(SavedSnapshot::of(before));
        };
        // Others write while this one has to do with the disk.
        if let Some(wait_state) = shared {
            wait_state.writer_queue().end_slice(thread_number());
            drop(self);
            wal.sync_with_others(wait_state, &committed)?;
        } else if sync == CommitSync::InRelay {
            let commit = wal.leave_unpublished(committed)?;
            self.begun_on = None;
            drop(self);
            commit.wait()?;
            observe!(
                wal,
                Committed {
                    frames: committed.max_frame() - last_frame_before(&before, &committed),
                    log_frames: committed.max_frame()
                }
            );
        } else {
            drop(self);
            if wal.tuning().synchronous() == Synchronous::Normal {
                let_disk_begin(&wal, &before, &committed);
            }
        }
        wal.tell_opener();
        Ok(SavedSnapshot::of(committed))
    }

    /// Takes what a rollback or a failed commit leaves out of the index. Write is
    /// held: behind it stand the frames of others.
    fn forget_own_frames(&mut self) {
        if let Some(own) = self.own.take() {
            // What cannot be trimmed now is trimmed by the next writer.
            let _ = self.wal().trim_own_frames(own.start.max_frame());
        }
    }

    /// Gives Write up, with what the transaction has in the log, and returns once the
    /// state that it began on is durable: whoever has seen it does not get away
    /// before. Such a transaction has no slot to give back.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if it never is, [`Error::UsedAfterFork`].
    fn end_on_published(&mut self) -> Result<()> {
        let Some(number) = self.begun_on.take() else {
            return Ok(());
        };
        // In a forked child the index and the lock are the parent's.
        self.wal().check_process()?;
        self.forget_own_frames();
        self.wal().own_write().end(self.thread);
        let lent = self.write.lent();
        drop(std::mem::replace(&mut self.write, lent));
        rule!(WriterWaitsForBase, {
            self.wal().wait_for_base(number)?;
        });
        Ok(())
    }

    /// Forgets the changes; dropping the transaction does the same. One that began
    /// on what was not durable returns when it is; if that fails, the attachment
    /// refuses to write from then on, and [`WriteTx::rollback_with`] says so.
    pub fn rollback(self) {}

    /// As [`WriteTx::rollback`], and calls `undo` for each page that was
    /// changed, added or cut off, so that whoever keeps copies of pages can
    /// drop them (`xUndo`). Pages behind the end are among them. Nobody else
    /// writes before the last call.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the wal-index contradicts itself, [`Error::Poisoned`]
    /// if the state that the transaction began on turns out not to be durable. The
    /// changes are forgotten all the same.
    pub fn rollback_with(self, undo: impl FnMut(PageNo)) -> Result<()> {
        let mut changed = self.changes.changed(None)?;
        changed.extend(self.pages_in_log(None)?);
        changed.into_iter().for_each(undo);
        let mut ending = self;
        ending.end_on_published()
    }

    /// The lock of the reading side and `WRITE`. The transaction has them on loan from then
    /// on, and is of no use but to be dropped before they are.
    pub(in crate::protocol) fn take_locks(&mut self) -> (LockGuard<C>, LockGuard<C>) {
        let lent = self.write.lent();
        (
            self.read.take_lock(),
            std::mem::replace(&mut self.write, lent),
        )
    }
}

impl<C: WalCoordination> Drop for WriteTx<C> {
    /// Whatever a rollback or a failed commit leaves in the index goes before
    /// Write is given back. A child of `fork` leaves it alone, and a panic
    /// leaves it to the next writer, as the death of the process does.
    fn drop(&mut self) {
        self.wal().own_write().end(self.thread);
        if !std::thread::panicking() && self.wal().check_process().is_ok() {
            self.forget_own_frames();
            // That it never is can be told to who has committed it only.
            let _ = self.end_on_published();
        }
    }
}

/// Takes Write, then a snapshot. If that needs a recovery and a
/// checkpointer is in the way, Write is given back: the checkpointer may
/// be waiting for it.
fn try_begin_fresh_write<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    waiter: &mut Waiter,
    on: Begin,
) -> Result<WriteTx<C>> {
    let held = wal.observe_wait(Lock::Write, waiter, |waiter| {
        wal.wait_for_held_write(waiter, on)
    })?;
    let HeldWrite { write, after } = held.ok_or_else(|| wal.busy_after(Lock::Write, waiter))?;
    if let Some(commit) = after {
        return begin_on(wal, write, commit);
    }
    let held = Held {
        write: Some(&write),
        checkpoint: None,
    };
    let header = wal.settled_header(&held)?;
    wal.mend_backfilled(&header)?;
    index::trim(&**wal, header.max_frame())?;
    // Behind Write, so no restart sets it back; a checkpoint may raise it,
    // and what it has moved by then is in the log too.
    let min_frame = wal.first_in_log(&header)?;
    let read = wal.read_tx(write.lent(), &header, None, min_frame)?;
    Ok(WriteTx::new(read, write))
}

/// Begins on `commit` of another thread, from which `write` was taken over. It
/// has left nothing to mend but the entries of a rollback, or of one that panicked.
fn begin_on<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    write: LockGuard<C>,
    commit: Commit,
) -> Result<WriteTx<C>> {
    let header = commit.header;
    rule!(InheritTrimsIndex, {
        index::trim(&**wal, header.max_frame())?;
    });
    // What a checkpoint moves meanwhile is published, and in the log too; and
    // that does not begin anew while something is unpublished.
    let min_frame = wal.first_in_log(&header)?;
    let read = wal.read_tx(write.lent(), &header, None, min_frame)?;
    let mut tx = WriteTx::new(read, write);
    tx.begun_on = Some(commit.number);
    Ok(tx)
}

fn write_lock_for<C: WalCoordination>(wal: &Arc<Wal<C>>, read: &ReadTx<C>) -> Result<LockGuard<C>> {
    wal.check_writable()?;
    let write = wal
        .try_begin_write_tx()?
        .ok_or_else(|| wal.busy_again(Lock::Write))?;
    // Compared once Write is held: from here on the header stands still.
    if !rule!(
        WriterOnNewestSnapshot,
        wal.header_cell()?.is(&read.snapshot.header)
    ) {
        return Err(Error::BusySnapshot);
    }
    if wal.mend_backfilled(&read.snapshot.header)? {
        return Err(Error::BusySnapshot);
    }
    index::trim(&**wal, read.snapshot.max_frame())?;
    Ok(write)
}

/// Lets the disk begin with what a commit that is not synced has added to the
/// log, which turned the state `before` into `published`. If it cannot, that is
/// no failure of the commit: it was promised no more than to be seen.
fn let_disk_begin<C: WalCoordination>(wal: &Wal<C>, before: &IndexHeader, published: &IndexHeader) {
    let first = last_frame_before(before, published).saturating_add(1);
    if let (Some(first), Some(last)) = (FrameNo::new(first), FrameNo::new(published.max_frame())) {
        // Whoever syncs the log next hears of it.
        let _ = wal.start_writeback(first, last);
    }
}
