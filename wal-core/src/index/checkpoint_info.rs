//! The words of block 0 that say how far the log is backfilled (`WalCkptInfo`).
//! The read marks beside them belong to the coordination.
//!
//! # Protocol
//! - *Backfilled* goes up under Checkpoint and exclusive Read 0, and back to 0
//!   under Write with the log restarted or recovered, or under Checkpoint after a
//!   failed sync of the database file.
//! - *Attempted* is stored before the first page is written to the database,
//!   so that frames up to it may be there already.

use super::block::{IndexBlock, Word, WritableBlock};
use super::header::IndexHeader;
use crate::index::HeaderCell;
use crate::sync::Ordering;
use crate::testing::{Point, rule, step};
use crate::types::ReadSlot;

const BACKFILLED: usize = 24;
const ATTEMPTED: usize = 32;

/// The checkpoint words of block 0.
#[derive(Clone, Copy)]
pub(crate) struct CheckpointInfo<'a>(&'a [Word]);

impl<'a> CheckpointInfo<'a> {
    pub(crate) fn of(block: &'a IndexBlock) -> Self {
        CheckpointInfo(block.header_words())
    }

    /// How many frames are in the database file. The load comes before the
    /// header is compared again, so that a count of a newer state cannot go
    /// with an older header; acquire pairs with the release of
    /// [`WritableBlock::set_backfilled`].
    #[inline]
    pub(crate) fn backfilled(&self) -> u32 {
        self.0[BACKFILLED].load_acquire()
    }

    /// How many frames of the log that `header` publishes are in the database file.
    ///
    /// A count that is larger than the log belongs to an older generation: a restart by
    /// SQLite that died between the header and the count leaves it. No frame counts as
    /// backfilled then, which is always safe.
    #[inline]
    pub(crate) fn backfilled_of(&self, header: &IndexHeader) -> u32 {
        Self::count_within(self.backfilled(), header)
    }

    /// The same of a `count` that was loaded before.
    #[inline]
    pub(crate) fn count_within(count: u32, header: &IndexHeader) -> u32 {
        match rule!(CountOfThisGeneration, count <= header.max_frame()) {
            true => count,
            false => 0,
        }
    }

    /// Up to which frame a checkpoint may have written the database file.
    /// Acquire pairs with the release of [`WritableBlock::set_attempted`].
    #[inline]
    pub(crate) fn attempted(&self) -> u32 {
        self.0[ATTEMPTED].load_acquire()
    }
}

impl WritableBlock {
    /// Says in block 0 how many frames are in the database file.
    pub(crate) fn set_backfilled(&self, frames: u32) {
        step(Point::BackfilledStore);
        self.store_word(BACKFILLED, frames, Ordering::Release);
    }

    /// Says in block 0 up to which frame a checkpoint may have written the
    /// database file.
    pub(crate) fn set_attempted(&self, frames: u32) {
        step(Point::AttemptedStore);
        self.store_word(ATTEMPTED, frames, Ordering::Release);
    }
}

/// A number that differs between consecutive publications: the change counter and the last
/// committed frame in copy 0 of the header. Copy 1 is not compared, so the number serves for
/// hints only. `block` is block 0.
#[inline]
#[must_use]
pub fn publication_hint(block: &IndexBlock) -> u64 {
    HeaderCell::of(block).publication_hint()
}

/// The published header in `block`, which is block 0; `None` if a writer stores it at this
/// moment, or if it is damaged.
///
/// The caller, which may be without a lock, sees one state that was published.
#[must_use]
pub fn published_header(block: &IndexBlock) -> Option<IndexHeader> {
    HeaderCell::of(block).load().ok()
}

/// True if a reader of the newest state would take `slot` again: its mark is the end of the
/// log or, for slot 0, all of the log is in the database file. `block` is block 0.
///
/// It takes no lock, so the answer may be out of date at once.
#[inline]
#[must_use]
pub fn serves_newest(block: &IndexBlock, slot: ReadSlot) -> bool {
    let covered = match slot {
        ReadSlot::DATABASE => CheckpointInfo::of(block).backfilled(),
        _ => block.mark(slot),
    };
    covered == HeaderCell::of(block).max_frame_hint()
}
