//! A snapshot as a value: remembered, sent to another process, and opened
//! again while the log still has it.
//!
//! # Protocol
//! A saved snapshot holds nothing up. Opening it needs two things to be true
//! still: the log is of the same generation, and no checkpoint has begun to
//! copy frames beyond the snapshot, because the database file may hold newer
//! pages then. Checkpoint is held shared while that is found out, so that no
//! checkpointer is between deciding how far it goes and saying so in the
//! *attempted* count (`sqlite3WalSnapshotOpen`, `walBeginReadTransaction`).
//! A read mark of at most the snapshot's last frame is held by then, which
//! keeps every later checkpoint from going further.
//!
//! # Crash
//! A restart sets *attempted* back last, a recovery sets it to the end of the
//! log: whoever dies leaves a count that is too high, by which a snapshot is
//! gone too early and never opened wrongly.
#![allow(unsafe_code)] // A lock is said to keep what is read under it.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::{self, IndexHeader};
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::locking::pause::pause_before;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::kept::Kept;
use crate::protocol::read::snapshot::SavedSnapshot;
use crate::sync::{Ordering, fence};
use crate::testing::rule;
use crate::types::{Lock, LockMode, PageNo, ReadSlot};

/// After this many attempts, which take a millisecond, readers of newer states have all
/// slots, or a writer was stopped while it published.
const MAX_ATTEMPTS: u32 = 12;

impl<C: WalCoordination> ReadTx<C> {
    /// The pages that changed between `older` and this transaction, by number.
    /// Pages that were cut off are not among them. Where all of the log is in the
    /// database file, an `older` state that a writer gave away and that was never
    /// published is not told from the one that took its place.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] if `older` is of another generation of the log,
    /// newer than this transaction, or of an empty log as SQLite leaves it, which no
    /// salts tell from another one; [`Error::UsedAfterFork`], [`Error::Corrupt`].
    pub fn pages_changed_since(&self, older: &SavedSnapshot) -> Result<Vec<PageNo>> {
        let wal = self.wal();
        wal.check_process()?;
        self.check_age()?;
        let (from, to) = (older.max_frame(), self.snapshot.max_frame());
        let is_older = older.salts().name_same(self.snapshot.salts()) && from <= to;
        if !rule!(ChangedSinceOlder, is_older) {
            return Err(wal.snapshot_gone());
        }
        let mut pages = Vec::new();
        for frame in from.saturating_add(1)..=to {
            pages.push(index::page_of_frame(&**wal, frame)?);
        }
        // Slot 0 does not keep the log from beginning anew, with other pages
        // in these frames. The fence keeps the look at the header behind them.
        // Slot 0 does not keep the log to be read either.
        let is_there = self.snapshot.bypasses_log()
            || rule!(
                OlderStateIsInLog,
                self.kept().has_frames_of(older.header())?
            );
        fence(Ordering::SeqCst);
        let live = wal.header_cell()?.load();
        if !is_there || !live.is_ok_and(|live| live.salts() == older.salts()) {
            return Err(wal.snapshot_gone());
        }
        pages.sort_unstable();
        pages.dedup();
        let is_there = |&page: &u32| rule!(ChangedWithinDatabase, page <= self.page_count());
        let there = pages.into_iter().filter(is_there);
        there.map(PageNo::new).collect()
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Begins a read transaction on the state that `saved` names.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] if the log does not have it any more, or if it is of an
    /// empty log as SQLite leaves it; [`Error::Busy`] while a checkpoint is running, or
    /// if readers of newer states have all slots; and those of [`Wal::begin_read`].
    pub fn open_snapshot(self: &Arc<Self>, saved: &SavedSnapshot) -> Result<ReadTx<C>> {
        self.check_process()?;
        let mut in_the_way = Lock::Write;
        for attempt in 1..=MAX_ATTEMPTS {
            pause_before(attempt);
            // A header that is not whole is mended before Checkpoint is held,
            // which a recovery needs for itself.
            in_the_way = Lock::Write;
            if self.load_snapshot(&LocksHeld::NOTHING)?.is_none() {
                continue;
            }
            in_the_way = Lock::ReadMarks;
            if let Some(tx) = try_open_snapshot(self, saved)? {
                return Ok(tx.aging());
            }
        }
        Err(self.busy(in_the_way))
    }

    pub(in crate::protocol) fn snapshot_gone(&self) -> Error {
        Error::SnapshotGone {
            path: self.path().to_owned(),
        }
    }
}

impl<C: WalCoordination> Kept<'_, C> {
    /// True if the log has the frames of `header`, by the checksum of the last one,
    /// which depends on all before it.
    fn has_frames_of(self, header: &IndexHeader) -> Result<bool> {
        if header.max_frame() == 0 {
            return Ok(true);
        }
        Ok(rule!(
            SnapshotSeal,
            self.checksum_at(header.max_frame())? == header.frame_checksum()
        ))
    }
}

fn try_open_snapshot<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    saved: &SavedSnapshot,
) -> Result<Option<ReadTx<C>>> {
    let checkpoint = wal.try_lock(Lock::Checkpoint, LockMode::Shared)?;
    if !rule!(OpenSnapshotHoldsCkpt, checkpoint.is_some()) {
        return Err(wal.busy(Lock::Checkpoint));
    }
    let header = *saved.header();
    let Some(guard) = wal.lock_some_mark(header.max_frame())? else {
        return Ok(None);
    };
    let Lock::Read(slot) = guard.lock() else {
        return Ok(None);
    };
    // Behind the lock, which keeps the log from being restarted and any
    // later checkpoint from going beyond the mark.
    fence(Ordering::SeqCst);
    let Ok(live) = wal.header_cell()?.load() else {
        return Ok(None);
    };
    let info = wal.checkpoint_info()?;
    let there = live.salts().name_same(header.salts())
        && rule!(
            SavedSnapshotIsPublished,
            live.max_frame() >= header.max_frame()
        )
        && rule!(
            AttemptedWithinSnapshot,
            info.attempted() <= header.max_frame()
        );
    // A state that a writer has handed on and that was never published may have
    // other frames in its place.
    // SAFETY: `guard` is held until this returns, and with it the log, unless it is of
    // slot 0, at which nothing is looked at.
    let kept = unsafe { wal.kept(1, header.max_frame()) };
    if !there || slot == ReadSlot::DATABASE || !kept.has_frames_of(&header)? {
        return Err(wal.snapshot_gone());
    }
    // From the first frame on, whatever is backfilled: a checkpoint that
    // saw a newer frame of a page, beyond this snapshot, has left older
    // ones of it out.
    wal.read_tx(guard, &header, Some(slot), 1).map(Some)
}
