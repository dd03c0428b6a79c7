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

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::IndexHeader;
use crate::protocol::config::Synchronous;
use crate::protocol::durability::group_commit::CommitSync;
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::read::snapshot::SavedSnapshot;
use crate::protocol::write::append;
use crate::protocol::write::write_tx::WriteTx;
use crate::testing::rule;
use crate::types::{FrameNo, PageNo};
use crate::wait::thread_number;

/// The frame from which a commit went on that turned the state `before` into
/// `committed`: none, if the log began anew.
fn last_frame_before(before: &IndexHeader, committed: &IndexHeader) -> u32 {
    match before.salts() == committed.salts() {
        true => before.max_frame(),
        false => 0,
    }
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
    /// [`crate::Error::CommitOutcomeUnknown`]: then only opening the database again
    /// tells whether it is there. [`crate::Error::Refused`] if it has frames of
    /// [`WriteTx::append_frames_vectored`], which [`WriteTx::commit_frames`] commits. With [`crate::protocol::WalConfig::group_commit`] also
    /// [`crate::Error::DurabilityUnknown`]: it is visible, but may not survive a power
    /// failure. [`crate::protocol::Opener::committed`] is called unless there is an error or
    /// nothing was changed.
    pub fn commit(mut self) -> Result<SavedSnapshot> {
        let wal = self.wal().clone();
        wal.check_writable()?;
        let shared = wal.shared_sync();
        let sync = match shared {
            Some(_) => CommitSync::Shared,
            None if wal.tuning().synchronous() == Synchronous::Full => CommitSync::Pipelined,
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
        } else if sync == CommitSync::Pipelined {
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
    /// [`crate::Error::Corrupt`] if the wal-index contradicts itself, [`crate::Error::Poisoned`]
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
