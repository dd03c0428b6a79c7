//! Begins a read transaction.
//!
//! # Protocol
//! A reader says what it reads by a shared lock on one of five slots. Slot 0:
//! everything is in the database file, the log is not looked at. Slots 1 to
//! 4: the log is read up to the reader's header, and the slot's mark, at most
//! that far, keeps a checkpoint from writing newer pages over those that the
//! reader may still take from the database file.
//!
//! # Ordering
//! The lock first, then the backfilled count, then all 48 header bytes
//! compared again. A checkpoint that published a count before our lock
//! was seen may have skipped older versions of a page in favour of a frame
//! beyond our header; then the header has moved too, the comparison fails, and
//! we start over. Taking a lock acquires, in the table of a process and in the
//! system's, and so does the load of the count: the loads of the header stay
//! behind both ([`crate::protocol::read::marks`] has more).
//!
//! # Crash
//! A reader that dies loses its lock and nothing else.
#![allow(unsafe_code)] // A lock is said to keep what is read under it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::index::IndexHeader;
use crate::protocol::handle::Wal;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::locking::pause::{deadline_after, pause_before};
use crate::protocol::read::kept::Kept;
use crate::protocol::read::page_ref::PageRef;
use crate::protocol::read::snapshot::Snapshot;
use crate::protocol::read::taken_map::TakenMap;
use crate::testing::rule;
use crate::types::{FrameNo, PageNo};
use crate::types::{Lock, LockMode, ReadSlot};

/// After this many attempts the protocol is taken for broken
/// (`WAL_RETRY_PROTOCOL_LIMIT`); together they last about ten seconds.
const MAX_ATTEMPTS: u32 = 100;

/// A read transaction: an unchanging view of the database until it is dropped.
pub struct ReadTx<C: WalCoordination> {
    pub(in crate::protocol) guard: LockGuard<C>,
    pub(in crate::protocol) snapshot: Snapshot,
    pub(in crate::protocol) map: TakenMap,
    /// When it becomes too old.
    expires: Option<Instant>,
}

impl<C: WalCoordination> ReadTx<C> {
    /// A transaction on the state that `header` publishes, all of which is in
    /// the database file. `guard` keeps that so.
    pub(in crate::protocol) fn of_database(
        guard: LockGuard<C>,
        header: &IndexHeader,
    ) -> Result<Self> {
        let wal = guard.wal().clone();
        let min_frame = header.max_frame().saturating_add(1);
        wal.read_tx(guard, header, Some(ReadSlot::DATABASE), min_frame)
    }

    /// The state that this transaction sees.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The size of the database in pages.
    pub fn page_count(&self) -> u32 {
        self.snapshot.page_count
    }

    /// The path of the database.
    pub fn path(&self) -> &Path {
        self.wal().path()
    }

    /// True if the database is no longer as this transaction sees it; also if that of a
    /// lone reader, which may not write, is no longer looked after because a writer has
    /// come.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`] in a forked child; opened read-only, those of
    /// [`Wal::begin_read`]. The reading side of a writer that
    /// began on a commit which is not durable waits for that, and gives
    /// [`Error::Poisoned`] if it never is.
    pub fn is_stale(&self) -> Result<bool> {
        let wal = self.wal();
        wal.check_process()?;
        if self.snapshot.slot.is_none() {
            rule!(OwnStateIsPublished, {
                wal.publish_all()?;
            });
        }
        let is_published = wal.header_cell()?.is(&self.snapshot.header);
        if is_published && wal.config().read_only {
            // A private index is not kept up to date by others.
            return match wal.begin_read() {
                Ok(newest) => Ok(!newest.snapshot.is_same_state(&self.snapshot)),
                Err(Error::Superseded { .. }) => Ok(true),
                Err(e) => Err(e),
            };
        }
        Ok(!is_published)
    }

    /// Begins another read transaction on the very same state, however much
    /// was committed and checkpointed since. Its age is its own.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`] in a forked child, [`Error::Io`].
    pub fn try_clone(&self) -> Result<Self> {
        let wal = self.wal();
        wal.check_process()?;
        // While this one holds the slot, nobody has it exclusively and its mark
        // stands still; and all that the snapshot needs stays as long as
        // anybody holds it.
        if self.snapshot.slot.is_none() {
            // Nobody else writes as long as Write is held, so that is the state,
            // once it is published.
            wal.publish_all()?;
            return Ok(wal.begin_read_holding(&LocksHeld::NOTHING)?.aging());
        }
        let guard = wal.relock_shared(&self.guard)?;
        Ok(ReadTx {
            guard: guard.ok_or_else(|| wal.busy(self.guard.lock()))?,
            snapshot: self.snapshot,
            map: TakenMap::default(),
            expires: None,
        }
        .aging())
    }

    /// Begins to count its age, if that is limited.
    pub(in crate::protocol) fn aging(mut self) -> Self {
        self.begin_to_age();
        self
    }

    #[inline]
    fn begin_to_age(&mut self) {
        if let Some(limit) = self.wal().config().snapshot_age_limit {
            self.expires = Some(deadline_after(limit));
        }
    }

    /// Lets it last, whatever the limit is.
    pub(in crate::protocol) fn lasts(&mut self) {
        self.expires = None;
    }

    /// Refuses what is too old.
    #[inline]
    pub(super) fn check_age(&self) -> Result<()> {
        match self.expires {
            Some(expires) if !rule!(SnapshotAgeLimit, Instant::now() < expires) => {
                observe!(self.wal(), SnapshotTooOld);
                Err(Error::SnapshotTooOld {
                    path: self.wal().path().to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// A transaction that goes on in place of this one, which is of no use
    /// afterwards but to be dropped. The caller still holds Write.
    pub(in crate::protocol) fn hand_over(&mut self) -> Result<Self> {
        if self.snapshot.slot.is_none() {
            return self.wal().begin_read_holding(&LocksHeld::NOTHING);
        }
        Ok(ReadTx {
            guard: self.take_lock(),
            snapshot: self.snapshot,
            map: TakenMap::default(),
            expires: self.expires,
        })
    }

    /// The lock of this transaction, which has it on loan from then on.
    pub(in crate::protocol) fn take_lock(&mut self) -> LockGuard<C> {
        let lent = self.guard.lent();
        std::mem::replace(&mut self.guard, lent)
    }

    /// The lock under which this transaction reads.
    pub(in crate::protocol) fn lock(&self) -> Lock {
        self.guard.lock()
    }

    pub(in crate::protocol) fn wal(&self) -> &Arc<Wal<C>> {
        self.guard.wal()
    }

    /// What this transaction reads, as long as it is borrowed.
    #[inline(always)]
    pub(in crate::protocol) fn kept(&self) -> Kept<'_, C> {
        // At slot 0 the log may be restarted at any moment, but for what the transaction
        // itself has committed there, which is not all in the database file as long as
        // `READ(0)` is held.
        let first = match self.snapshot.slot {
            Some(ReadSlot::DATABASE) => self.snapshot.min_frame,
            _ => 1,
        };
        // SAFETY: `guard` holds the slot, or has `WRITE` on loan from the write
        // transaction or the vacuum that this one is a part of, and either is released
        // only when this one is dropped or cannot be used any more. What lies beyond its
        // mark or its frames is not asked for, by the checks of `begin_read_holding`.
        unsafe { self.wal().kept(first, self.snapshot.max_frame()) }
    }

    /// The newest frame of the snapshot that holds `page`; `None` if the page
    /// is in the database file.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] if the wal-index contradicts itself,
    /// [`crate::Error::SnapshotTooOld`] beyond the age limit,
    /// [`crate::Error::UsedAfterFork`] in a forked child.
    #[inline]
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
    #[inline]
    pub fn page(&self, page: PageNo) -> Result<PageRef<'_>> {
        self.check_age()?;
        self.kept().page(&self.snapshot, Some(&self.map), page)
    }
}

impl<C: WalCoordination> ReadTx<C> {
    /// Goes on at the state that `header` publishes.
    pub(in crate::protocol) fn move_to(&mut self, header: IndexHeader) {
        self.snapshot.header = header;
        // It was compared with the log up to the state before only.
        self.map = TakenMap::default();
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Begins a read transaction on the newest state of the database. Others
    /// do not wait for it, and it waits only while somebody recovers.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process recovers the log,
    /// [`Error::Protocol`] if others kept changing the log for ten seconds,
    /// [`Error::UsedAfterFork`], [`Error::Corrupt`], [`Error::Io`].
    #[inline]
    pub fn begin_read(self: &Arc<Self>) -> Result<ReadTx<C>> {
        // Changed where it is: each copy of what was only just written makes the
        // processor wait.
        let mut begun = self.begin_read_holding(&LocksHeld::NOTHING);
        if let Ok(tx) = &mut begun {
            tx.begin_to_age();
            observe!(
                self,
                ReadBegan {
                    max_frame: tx.snapshot.max_frame()
                }
            );
        }
        begun
    }

    /// As [`Wal::begin_read`], but waits up to `timeout` for a recovery by
    /// another process.
    ///
    /// # Errors
    /// As [`Wal::begin_read`].
    pub fn begin_read_within(self: &Arc<Self>, timeout: Duration) -> Result<ReadTx<C>> {
        self.check_process()?;
        let deadline = deadline_after(timeout);
        loop {
            match self.begin_read() {
                Err(Error::Busy { .. } | Error::NeedsRecovery { .. })
                    if Instant::now() < deadline =>
                {
                    self.sleep(None, deadline);
                }
                begun => return begun,
            }
        }
    }

    /// Tries until the state does not move under it (`walTryBeginRead`).
    // One body, which returns the transaction from where it is made: a snapshot
    // that is handed on as a part of something larger is copied each time, and
    // the processor waits for what was only just written.
    #[inline(always)]
    pub(in crate::protocol) fn begin_read_holding(
        self: &Arc<Self>,
        held: &LocksHeld<'_, C>,
    ) -> Result<ReadTx<C>> {
        self.check_process()?;
        for attempt in 1..=MAX_ATTEMPTS {
            pause_before(attempt);
            let Some(header) = self.load_snapshot(held)? else {
                continue;
            };
            let slot_zero = Lock::Read(ReadSlot::DATABASE);
            if self.checkpoint_info()?.backfilled() == header.max_frame()
                && let Some(guard) = self.try_lock(slot_zero, LockMode::Shared)?
            {
                // Kept only if the header is still the one for which all was
                // backfilled: a later writer may have restarted the log, which
                // slot 0 does not prevent, and committed.
                if rule!(SlotZeroRecheck, self.header_cell()?.is(&header)) {
                    let min_frame = header.max_frame().saturating_add(1);
                    return self.read_tx(guard, &header, Some(ReadSlot::DATABASE), min_frame);
                }
            } else if let Some(tx) = self.try_marked_slot(header)? {
                return Ok(tx);
            }
        }
        Err(Error::Protocol {
            path: self.path().to_owned(),
            attempts: MAX_ATTEMPTS,
        })
    }

    /// One attempt at a slot with a mark, which prevents a restart of the log; `None` if the
    /// state has changed, or no slot could be had.
    // Out of line, and the header a copy, so that the code for slot 0 stays short.
    #[inline(never)]
    pub(in crate::protocol) fn try_marked_slot(
        self: &Arc<Self>,
        header: IndexHeader,
    ) -> Result<Option<ReadTx<C>>> {
        let Some(guard) = self.lock_some_mark(header.max_frame())? else {
            return Ok(None);
        };
        let Lock::Read(slot) = guard.lock() else {
            return Ok(None);
        };
        let min_frame = self.first_in_log(&header)?;
        if !rule!(HeaderRecheck, self.header_cell()?.is(&header)) {
            return Ok(None);
        }
        self.read_tx(guard, &header, Some(slot), min_frame)
            .map(Some)
    }

    #[inline(always)]
    pub(in crate::protocol) fn read_tx(
        self: &Arc<Self>,
        mut guard: LockGuard<C>,
        header: &IndexHeader,
        slot: Option<ReadSlot>,
        min_frame: u32,
    ) -> Result<ReadTx<C>> {
        if slot.is_some_and(|slot| self.may_delay_release(slot, header, min_frame)) {
            guard.delay_release();
        }
        self.look_at_database_again(header, min_frame)?;
        // SAFETY: `guard` is held until this returns.
        let kept = unsafe { self.kept(1, 0) };
        let page_count = kept.page_count(header)?;
        Ok(ReadTx {
            guard,
            snapshot: Snapshot {
                header: *header,
                slot,
                min_frame,
                page_count,
            },
            map: TakenMap::default(),
            expires: None,
        })
    }
}
