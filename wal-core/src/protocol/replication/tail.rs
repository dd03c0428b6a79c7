//! Follows the log: every committed frame once, in order, for a replicator.
//!
//! # Protocol
//! A tail always holds a read mark, at the state up to which it has handed
//! frames out. So the log cannot begin anew behind its back, and nothing is
//! missed; for the same reason checkpoints copy no further than the tail has
//! come. It moves by raising its mark to the newest state, if it is alone in its slot
//! and the backend can tell ([`crate::protocol::read::raise`]), else by taking a mark there before it
//! gives the old one back. Only frames up to a published state are read: never one of a
//! transaction that is not committed.
//!
//! While somebody tails, nobody else begins the log anew. The tail does it
//! itself ([`Tail::restart_log`]): with Write held it has seen everything and
//! nothing can be added, so it changes to the new generation without a gap.
//!
//! # Crash
//! A tail that dies loses its mark. Where it stood is a [`TailPosition`]; if
//! the log is still of that generation it goes on there ([`Wal::resume_tail`]),
//! else the replica needs a new copy of the whole database.

use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{FRAME_HEADER_LEN, FrameHeader, LOG_HEADER_LEN};
use crate::index::IndexHeader;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::guard::LocksHeld;
use crate::protocol::locking::pause::pause_before;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::kept::Kept;
use crate::protocol::read::page_ref::PageRef;
use crate::testing::rule;
use crate::types::{FrameNo, Lock, PageNo, Salts};

/// After this many attempts others kept changing the log.
const MAX_ATTEMPTS: u32 = 100;

/// How far a tail has come: a frame of one generation of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailPosition {
    /// The generation.
    pub salts: Salts,
    /// The last frame that was handed out; 0 for none.
    pub frame: u32,
    /// The checksum of that frame, bytes 16 to 23 of its header, which depends on all
    /// before it; zeros for none. After a power failure the log may have other frames in
    /// the place of those that were not synced.
    pub checksum: [u8; 8],
}

impl TailPosition {
    /// The place at the end of what `header` covers.
    pub(in crate::protocol) fn of(header: &IndexHeader) -> Self {
        let frame = header.max_frame();
        TailPosition {
            salts: header.salts(),
            frame,
            checksum: match frame {
                0 => [0; 8],
                _ => header.frame_checksum().to_be_bytes(),
            },
        }
    }
}

/// Follows the log. It keeps the log from beginning anew until it is dropped.
pub struct Tail<C: WalCoordination> {
    /// At the state up to which frames were handed out.
    pub(in crate::protocol) at: ReadTx<C>,
}

/// The frames that were committed since a tail was last asked. They end with
/// the end of a transaction.
pub struct TailFrames<'t, C: WalCoordination> {
    at: &'t ReadTx<C>,
    numbers: Numbers,
}

/// The numbers of the frames behind one, in order.
#[derive(Debug)]
pub(in crate::protocol) struct Numbers {
    /// `None` behind the last number that a frame can have.
    next: Option<FrameNo>,
}

impl Numbers {
    /// Those behind `frame`; 0 is before all.
    fn behind(frame: u32) -> Self {
        let next = frame.checked_add(1);
        Numbers {
            next: next.and_then(FrameNo::new),
        }
    }

    /// The next one, if it is at most `last`.
    fn next_up_to(&mut self, last: u32) -> Option<FrameNo> {
        let number = self.next.filter(|number| number.get() <= last)?;
        *self = Numbers::behind(number.get());
        Some(number)
    }
}

/// A frame as it stands in the log.
pub struct RawFrame<'t> {
    /// Its number.
    pub number: FrameNo,
    /// The page that it holds.
    pub page: PageNo,
    /// The size of the database in pages, if this frame ends a transaction.
    pub commit_size: Option<u32>,
    /// The 24 bytes of its header.
    pub header: [u8; FRAME_HEADER_LEN],
    /// The content of the page.
    pub content: PageRef<'t>,
}

impl<C: WalCoordination> Wal<C> {
    /// Begins to follow the log behind the newest state, which
    /// [`Tail::state`] gives, to be copied as the base.
    ///
    /// # Errors
    /// Those of [`Wal::begin_read`].
    pub fn tail(self: &Arc<Self>) -> Result<Tail<C>> {
        let at = self.pin_newest(&LocksHeld::NOTHING)?;
        Ok(Tail { at })
    }

    /// Goes on where an earlier tail stood.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] if the log has begun anew since, has lost frames in a
    /// power failure, or was empty as SQLite leaves it; and those of
    /// [`Wal::begin_read`].
    pub fn resume_tail(self: &Arc<Self>, position: TailPosition) -> Result<ResumedTail<C>> {
        let at = self.pin_newest(&LocksHeld::NOTHING)?;
        let there = at.snapshot().salts().name_same(position.salts)
            && position.frame <= at.snapshot().max_frame();
        if !there || !has_frame(&at, position)? {
            return Err(self.snapshot_gone());
        }
        Ok(ResumedTail {
            tail: Tail { at },
            position,
        })
    }

    /// A read transaction at a marked slot, on the newest state, though all of
    /// it be backfilled: slot 0 does not keep the log from beginning anew.
    pub(super) fn pin_newest(self: &Arc<Self>, held: &LocksHeld<'_, C>) -> Result<ReadTx<C>> {
        self.check_process()?;
        for attempt in 1..=MAX_ATTEMPTS {
            pause_before(attempt);
            let Some(header) = self.load_snapshot(held)? else {
                continue;
            };
            if let Some(pinned) = self.try_marked_slot(header)? {
                return Ok(pinned);
            }
        }
        Err(Error::Protocol {
            path: self.path().to_owned(),
            attempts: MAX_ATTEMPTS,
        })
    }
}

impl<'k, C: WalCoordination> Kept<'k, C> {
    /// The frame `number` of the log.
    fn raw_frame(self, number: FrameNo) -> Result<RawFrame<'k>> {
        let header = self.seal_at(number.get())?;
        let decoded = FrameHeader::of_published(&header).ok_or_else(|| {
            let log = self.wal().storage().log();
            Error::corrupt(log.path(), format!("{number:?} holds no page"))
        })?;
        Ok(RawFrame {
            number,
            page: decoded.page,
            commit_size: (decoded.commit_size != 0).then_some(decoded.commit_size),
            header,
            content: self.page_of_frame(number)?,
        })
    }
}

/// True if the log, which `at` keeps, has that very frame.
fn has_frame<C: WalCoordination>(at: &ReadTx<C>, position: TailPosition) -> Result<bool> {
    if position.frame == 0 {
        return Ok(true);
    }
    Ok(rule!(
        TailSeal,
        at.kept().checksum_at(position.frame)?.to_be_bytes() == position.checksum
    ))
}

/// A tail that has missed what was committed while there was none.
pub struct ResumedTail<C: WalCoordination> {
    tail: Tail<C>,
    /// Where the tail stood before.
    position: TailPosition,
}

impl<C: WalCoordination> ResumedTail<C> {
    /// The frames that were missed.
    pub fn missed(&self) -> TailFrames<'_, C> {
        TailFrames {
            at: &self.tail.at,
            numbers: Numbers::behind(self.position.frame),
        }
    }

    /// The tail, which stands behind them.
    pub fn into_tail(self) -> Tail<C> {
        self.tail
    }
}

impl<C: WalCoordination> Tail<C> {
    /// The state up to which frames were handed out.
    pub fn state(&self) -> &ReadTx<C> {
        &self.at
    }

    /// Where the tail stands.
    pub fn position(&self) -> TailPosition {
        TailPosition::of(&self.at.snapshot().header)
    }

    /// All frames of the log up to where the tail stands: what a copy of its
    /// state is given to become a replica ([`crate::protocol::ApplyTx`]). After a
    /// [`Tail::restart_log`] that failed there may be none that the tail keeps: the
    /// first one is then [`Error::SnapshotGone`].
    pub fn log_so_far(&self) -> TailFrames<'_, C> {
        TailFrames {
            at: &self.at,
            numbers: Numbers::behind(0),
        }
    }

    /// Goes on to the newest state, and gives the frames that lead there; none
    /// if nothing was committed. Frames that are not looked at are not given
    /// again.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] after a [`Tail::restart_log`] that failed, if
    /// the log has begun anew since; those of [`Wal::begin_read`].
    pub fn advance(&mut self) -> Result<TailFrames<'_, C>> {
        let wal = self.at.wal().clone();
        let numbers = self.numbers();
        if self.at.move_in_slot()? {
            return Ok(TailFrames {
                at: &self.at,
                numbers,
            });
        }
        let pinned = wal.pin_newest(&LocksHeld::NOTHING)?;
        self.check_follows(&pinned)?;
        // The old mark is given back when the new one is held.
        self.at = pinned;
        Ok(TailFrames {
            at: &self.at,
            numbers,
        })
    }

    /// Those of the frames behind the tail.
    pub(in crate::protocol) fn numbers(&self) -> Numbers {
        Numbers::behind(self.at.snapshot().max_frame())
    }

    /// Refuses a newer state with which the tail would miss frames.
    pub(super) fn check_follows(&self, newest: &ReadTx<C>) -> Result<()> {
        let (before, now) = (self.at.snapshot(), newest.snapshot());
        // A mark keeps the log from being restarted; only the first commit to an
        // empty log changes the salts under it. Slot 0, at which a failed
        // restart may have left the tail, keeps nothing.
        let keeps_log = rule!(TailRestartCheck, !before.bypasses_log());
        match keeps_log || before.salts() == now.salts() {
            true => Ok(()),
            false => Err(self.at.wal().snapshot_gone()),
        }
    }

    /// Begins the log anew, if the tail has handed everything out and all of it
    /// is in the database file; false if not. The tail then stands at the
    /// beginning of the new generation, with nothing missed between.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody checkpoints, writes or reads the log when
    /// `busy` gives up, and what [`Wal::begin_write`] gives.
    pub fn restart_log(&mut self, busy: impl Into<BusyHandler>) -> Result<bool> {
        let wal = self.at.wal().clone();
        wal.check_writable()?;
        let mut waiter = Waiter::new(busy.into());
        let checkpoint = wal.lock_or_busy(Lock::Checkpoint, &mut waiter)?;
        let write = wal.lock_or_busy(Lock::Write, &mut waiter)?;
        let held = LocksHeld {
            write: Some(&write),
            checkpoint: Some(&checkpoint),
        };
        let header = wal.settled_header(&held)?;
        let seen = self.at.snapshot().header == header;
        if !seen || wal.checkpoint_info()?.backfilled() != header.max_frame() {
            return Ok(false);
        }
        self.restart_backfilled(&held, &header, &mut waiter)?;
        Ok(true)
    }

    /// Restarts the log that `header` publishes, all of which the tail has handed out and is
    /// in the database file. The caller holds `CKPT` and `WRITE`.
    pub(super) fn restart_backfilled(
        &mut self,
        held: &LocksHeld<'_, C>,
        header: &IndexHeader,
        waiter: &mut Waiter,
    ) -> Result<()> {
        let wal = self.at.wal().clone();
        // With `WRITE` held nothing is added, so the mark may go: slot 0 will do
        // until the new generation is there.
        let bypass = wal.begin_read_holding(held)?;
        let pinned = std::mem::replace(&mut self.at, bypass);
        drop(pinned);
        let restarted = self.restart_unpinned(header, waiter);
        self.at = wal.pin_newest(held)?;
        restarted
    }

    fn restart_unpinned(&self, header: &IndexHeader, waiter: &mut Waiter) -> Result<()> {
        let wal = self.at.wal();
        let _readers = wal.lock_or_busy(Lock::ReadMarks, waiter)?;
        let proof = wal.backfill_proof(header)?;
        wal.publish_restart(header, &proof, header.salts().next())?;
        Ok(())
    }
}

impl<C: WalCoordination> TailFrames<'_, C> {
    /// The first 32 bytes of the log that the frames are in, which name its
    /// generation ([`crate::protocol::ApplyTx::begin_generation`]); `None` if the log has
    /// no frame.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the log is shorter than that, [`Error::SnapshotGone`] after a
    /// [`Tail::restart_log`] that failed, [`Error::Io`].
    pub fn log_header(&self) -> Result<Option<[u8; LOG_HEADER_LEN]>> {
        let wal = self.at.wal();
        wal.check_process()?;
        self.check_kept()?;
        // The mark keeps the log from beginning anew.
        if self.at.snapshot().max_frame() == 0 {
            return Ok(None);
        }
        let mut header = [0; LOG_HEADER_LEN];
        let log = wal.storage().log();
        if log.read_at(&mut header, 0)? < header.len() {
            return Err(Error::corrupt(log.path(), "it ends before its first frame"));
        }
        Ok(Some(header))
    }
}

impl<'t, C: WalCoordination> TailFrames<'t, C> {
    pub(in crate::protocol) fn new(at: &'t ReadTx<C>, numbers: Numbers) -> Self {
        TailFrames { at, numbers }
    }

    /// The state with which the frames end.
    pub(in crate::protocol) fn at(&self) -> &ReadTx<C> {
        self.at
    }

    /// The number of the next frame; `None` behind the last one of any log.
    pub(in crate::protocol) fn next_number(&self) -> Option<FrameNo> {
        self.numbers.next
    }

    /// Refuses at slot 0, where a failed restart has left the tail: the log may be
    /// restarted there at any moment.
    fn check_kept(&self) -> Result<()> {
        match self.at.snapshot().bypasses_log() {
            true => Err(self.at.wal().snapshot_gone()),
            false => Ok(()),
        }
    }
}

impl<'t, C: WalCoordination> Iterator for TailFrames<'t, C> {
    type Item = Result<RawFrame<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        let last = self.at.snapshot().max_frame();
        let number = self.numbers.next_up_to(last)?;
        if let Err(gone) = self.check_kept() {
            self.numbers = Numbers { next: None };
            return Some(Err(gone));
        }
        let kept: Kept<'t, C> = self.at.kept();
        Some(kept.raw_frame(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_with_the_last_frame_of_any_log() {
        for (frame, last) in [
            (0, 0),
            (0, 2),
            (5, 4),
            (5, 6),
            (u32::MAX - 2, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            let mut numbers = Numbers::behind(frame);
            let given = std::iter::from_fn(|| numbers.next_up_to(last)).map(FrameNo::get);
            let given: Vec<u64> = given.take(10).map(u64::from).collect();
            let expected: Vec<u64> = (u64::from(frame) + 1..=u64::from(last)).collect();
            assert_eq!(given, expected);
            assert_eq!(numbers.next_up_to(last), None, "it goes on behind its end");
        }
    }
}
