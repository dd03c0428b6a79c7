//! Begins a write transaction, with `WRITE` and on the newest state: see [`super::commit`].

use std::sync::Arc;
use std::time::Duration;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::{self};
use crate::protocol::durability::pipeline::Commit;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::locking::queued_try::QueuedTry;
use crate::protocol::locking::queued_write::{Begin, HeldWrite};
use crate::protocol::read::begin::ReadTx;
use crate::protocol::write::write_tx::{UpgradeRefused, WriteTx};
use crate::testing::rule;
use crate::types::Lock;

impl<C: WalCoordination> Wal<C> {
    /// Begins a write transaction on the newest state of the database, after
    /// waiting for other writers as `busy` says.
    ///
    /// At [`crate::protocol::Synchronous::Full`] that may be what another thread of this attachment
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
        self.wait_for_short_log(waiter)?;
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

    /// As [`ReadTx::upgrade`], as the writer that `queued` is in the writer queue: its slot is
    /// freed if it acquires `WRITE`.
    ///
    /// # Errors
    /// As [`ReadTx::upgrade`]. After [`Error::Busy`] and [`Error::BusySnapshot`] the caller
    /// waits by [`QueuedTry::wait`], and upgrades another read transaction.
    pub fn upgrade_queued(
        self,
        queued: &mut QueuedTry<C>,
    ) -> Result<WriteTx<C>, Box<UpgradeRefused<C>>> {
        let upgraded = self.upgrade();
        match &upgraded {
            Ok(_) => queued.acquired(),
            Err(refused) => queued.failed(matches!(refused.error, Error::Busy { .. })),
        }
        upgraded
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
    let held = LocksHeld {
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

/// How long Write is left alone: long enough, before long, for a stock SQLite
/// that looks every tenth of a second.
pub(super) fn pause_without_write(attempt: u32) -> Duration {
    Duration::from_millis(u64::from(attempt).pow(2).min(150))
}
