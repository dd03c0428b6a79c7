//! How far a checkpoint would advance now, and which lock stops it there.
//!
//! # Protocol
//! The rules are those of `protocol/checkpoint`, without a wait: `CKPT` must be free; no frame
//! above the smallest mark that a reader holds is copied; `READ(0)` must be free while the
//! database file is written; the modes beyond Passive need `WRITE`; to restart the log,
//! `READ(1)` to `READ(4)` must be free.

use super::IndexInfo;
use crate::protocol::CheckpointMode;
use crate::types::{Lock, LockMode, ReadSlot};

/// Which of the eight locks of the protocol users hold at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeldLocks([Option<LockMode>; Lock::COUNT]);

impl HeldLocks {
    /// Adds a holder of each lock that `lock` spans.
    pub fn add(&mut self, lock: Lock, mode: LockMode) {
        let (first, count) = lock.span();
        for held in &mut self.0[first..first + count] {
            if *held != Some(LockMode::Exclusive) {
                *held = Some(mode);
            }
        }
    }

    /// How a lock that `lock` spans is held; `None` if all of them are free.
    pub fn mode(&self, lock: Lock) -> Option<LockMode> {
        let (first, count) = lock.span();
        let mut held = self.0[first..first + count].iter().flatten();
        let one = held.next()?;
        let is_exclusive = |mode: &LockMode| *mode == LockMode::Exclusive;
        match is_exclusive(one) || held.any(is_exclusive) {
            true => Some(LockMode::Exclusive),
            false => Some(LockMode::Shared),
        }
    }

    fn is_held(&self, lock: Lock) -> bool {
        self.mode(lock).is_some()
    }
}

/// The lock that a checkpoint could not acquire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Blocker {
    /// The lock.
    pub lock: Lock,
    /// The frame up to which its holders read the log, if they are readers of the log.
    pub frame: Option<u32>,
}

/// What a checkpoint would leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Forecast {
    /// The committed frames in the log.
    pub log_frames: u32,
    /// Those of them that would be in the database file.
    pub backfilled: u32,
    /// Why it would not do all that its mode asks for; `None` if it would.
    pub blocked_by: Option<Blocker>,
}

/// What a checkpoint of `mode` that waits for no lock would leave now. `None` if the header is
/// not sound: the log is recovered first.
///
/// ```
/// use wal_core::index::WritableBlock;
/// use wal_core::inspect::{HeldLocks, forecast, inspect_index};
/// use wal_core::protocol::CheckpointMode;
///
/// let info = inspect_index(&WritableBlock::zeroed());
/// let forecast = forecast(&info, &HeldLocks::default(), CheckpointMode::Passive);
/// assert_eq!(forecast, None, "the index was never written");
/// ```
pub fn forecast(index: &IndexInfo, held: &HeldLocks, mode: CheckpointMode) -> Option<Forecast> {
    let log_frames = index.valid_header()?.max_frame();
    let before = index.backfilled();
    let blocked = |lock, frame| Some(Blocker { lock, frame });
    let stays = |blocked_by| Forecast {
        log_frames,
        backfilled: before,
        blocked_by,
    };
    if held.is_held(Lock::Checkpoint) {
        return Some(stays(blocked(Lock::Checkpoint, None)));
    }
    let mut forecast = stays(None);
    if before < log_frames {
        let (safe, reader) = safe_frame(index, held);
        let database = Lock::Read(ReadSlot::DATABASE);
        if before >= safe {
            forecast.blocked_by = reader;
        } else if held.is_held(database) {
            forecast.blocked_by = blocked(database, None);
        } else {
            forecast.backfilled = safe;
            forecast.blocked_by = reader;
        }
    }
    if mode == CheckpointMode::Passive {
        return Some(forecast);
    }
    if held.is_held(Lock::Write) {
        forecast.blocked_by = blocked(Lock::Write, None);
    } else if forecast.blocked_by.is_none() && mode >= CheckpointMode::Restart {
        forecast.blocked_by = reader_of_log(index, held);
    }
    Some(forecast)
}

/// The last frame that may be copied, and the reader that allows no more.
fn safe_frame(index: &IndexInfo, held: &HeldLocks) -> (u32, Option<Blocker>) {
    let end = index.max_frame();
    let reader = reader_of_log(index, held);
    match reader.and_then(|reader| reader.frame) {
        Some(frame) if frame < end => (frame, reader),
        _ => (end, None),
    }
}

/// The held slot with the smallest mark. A slot that is held without a mark is being changed.
fn reader_of_log(index: &IndexInfo, held: &HeldLocks) -> Option<Blocker> {
    let slots = ReadSlot::MARKED.into_iter();
    let held = slots.filter(|&slot| held.is_held(Lock::Read(slot)));
    let readers = held.map(|slot| Blocker {
        lock: Lock::Read(slot),
        frame: index.mark(slot),
    });
    readers.min_by_key(|reader| reader.frame.unwrap_or(u32::MAX))
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, unsafe_code)] // Marks are stored without their locks.
mod tests {
    use super::*;
    use crate::format::Checksum;
    use crate::index::{IndexHeader, WritableBlock};
    use crate::inspect::inspect_index;
    use crate::types::PageSize;
    use CheckpointMode::{Full, Passive, Restart, Truncate};

    const READ_0: Lock = Lock::Read(ReadSlot::DATABASE);
    const READ_1: Lock = Lock::Read(ReadSlot::MARKED[0]);
    const READ_2: Lock = Lock::Read(ReadSlot::MARKED[1]);

    /// A log of 10 frames, with `backfilled` of them in the database file and the marks 10
    /// and 6 in slots 1 and 2.
    fn index(backfilled: u32) -> IndexInfo {
        let block = WritableBlock::zeroed();
        block.store_header(&IndexHeader::empty().committed(PageSize::MIN, 10, 3, Checksum::ZERO));
        block.set_backfilled(backfilled);
        for (slot, mark) in ReadSlot::MARKED.into_iter().zip([10, 6]) {
            // SAFETY: the test is alone with the block.
            unsafe { block.set_mark(slot, mark) };
        }
        inspect_index(&block)
    }

    fn outcome(backfilled: u32, held: &[Lock], mode: CheckpointMode) -> (u32, Option<Lock>) {
        let mut locks = HeldLocks::default();
        held.iter()
            .for_each(|&lock| locks.add(lock, LockMode::Shared));
        let forecast = forecast(&index(backfilled), &locks, mode).unwrap();
        assert_eq!(forecast.log_frames, 10);
        let frame = |lock| match lock {
            READ_1 => Some(10),
            READ_2 => Some(6),
            _ => None,
        };
        let blocker = forecast.blocked_by;
        assert_eq!(
            blocker.and_then(|by| by.frame),
            blocker.and_then(|by| frame(by.lock))
        );
        (forecast.backfilled, blocker.map(|by| by.lock))
    }

    #[test]
    fn checkpoint_stops_at_the_smallest_mark_that_is_held() {
        assert_eq!(outcome(0, &[], Passive), (10, None));
        assert_eq!(outcome(0, &[READ_1], Passive), (10, None));
        assert_eq!(outcome(0, &[READ_1, READ_2], Passive), (6, Some(READ_2)));
        assert_eq!(outcome(6, &[READ_2], Passive), (6, Some(READ_2)));
        assert_eq!(outcome(2, &[READ_2], Full), (6, Some(READ_2)));
    }

    #[test]
    fn reader_of_the_database_file_blocks_each_copy() {
        assert_eq!(outcome(2, &[READ_0], Passive), (2, Some(READ_0)));
        assert_eq!(outcome(10, &[READ_0], Truncate), (10, None));
    }

    #[test]
    fn lock_of_another_checkpoint_blocks_all_and_write_the_modes_beyond_passive() {
        assert_eq!(
            outcome(2, &[Lock::Checkpoint], Passive),
            (2, Some(Lock::Checkpoint))
        );
        assert_eq!(outcome(2, &[Lock::Write], Passive), (10, None));
        for mode in [Full, Restart, Truncate] {
            assert_eq!(outcome(2, &[Lock::Write], mode), (10, Some(Lock::Write)));
        }
    }

    #[test]
    fn reader_of_the_whole_log_blocks_its_restart() {
        assert_eq!(outcome(10, &[READ_1], Full), (10, None));
        assert_eq!(outcome(0, &[READ_1], Restart), (10, Some(READ_1)));
        assert_eq!(outcome(10, &[READ_1], Truncate), (10, Some(READ_1)));
    }

    #[test]
    fn span_of_locks_is_held_as_its_most_exclusive_part() {
        let mut held = HeldLocks::default();
        held.add(Lock::ReadMarks, LockMode::Shared);
        held.add(READ_2, LockMode::Exclusive);
        held.add(READ_2, LockMode::Shared);
        assert_eq!(held.mode(READ_1), Some(LockMode::Shared));
        assert_eq!(held.mode(Lock::Readers), Some(LockMode::Exclusive));
        assert_eq!((held.mode(READ_0), held.mode(Lock::Write)), (None, None));
    }
}
