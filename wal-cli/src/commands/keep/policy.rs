//! When a checkpoint is worth it.

use std::time::Duration;

use wal::CheckpointMode;
use wal_core::inspect::IndexInfo;

/// A part of the limit that is copied into the database once it is in the log: so much that a
/// checkpoint seldom copies a page twice, and so little that a restart has little left to copy.
const COPY_AT: u64 = 8;
/// The part of the limit at which the log is restarted. The rest is room for the commits until a
/// moment without readers of the log comes.
const RESTART_AT: u64 = 4;

/// What the caller allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The length of a log in bytes.
    pub(super) max_log: u64,
    /// For how long writers wait at once.
    pub(super) max_block: Duration,
}

/// How long a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogLength {
    /// The bytes of its committed frames.
    pub(super) committed: u64,
    /// Those of them that are not in the database file.
    pub(super) to_copy: u64,
    /// The frames that are not in the database file.
    pub(super) frames_to_copy: u32,
    /// The bytes of the file.
    pub(super) file: u64,
}

impl LogLength {
    pub(super) fn of(index: &IndexInfo, frame_len: u64, file: u64) -> Self {
        let (frames, backfilled) = (index.max_frame(), index.backfilled());
        let frames_to_copy = frames.saturating_sub(backfilled);
        LogLength {
            committed: u64::from(frames) * frame_len,
            to_copy: u64::from(frames_to_copy) * frame_len,
            frames_to_copy,
            file,
        }
    }
}

impl Limits {
    /// The checkpoint that a log of this length is worth, if it is worth one.
    pub(super) fn checkpoint(&self, log: LogLength) -> Option<CheckpointMode> {
        if log.committed >= self.max_log / RESTART_AT {
            // A file that has outgrown its limit is cut. Else its blocks are written again,
            // which costs writers less than to get new ones.
            let is_too_long = log.file > self.max_log;
            return Some(match is_too_long {
                true => CheckpointMode::Truncate,
                false => CheckpointMode::Restart,
            });
        }
        if log.file > self.max_log {
            return Some(CheckpointMode::Truncate);
        }
        (log.to_copy >= self.max_log / COPY_AT).then_some(CheckpointMode::Passive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_copied_then_restarted_then_cut() {
        let limits = Limits {
            max_log: 100,
            max_block: Duration::ZERO,
        };
        let mode = |committed, to_copy, file| {
            limits.checkpoint(LogLength {
                committed,
                to_copy,
                frames_to_copy: 0,
                file,
            })
        };
        assert_eq!(mode(11, 11, 11), None);
        assert_eq!(mode(12, 12, 12), Some(CheckpointMode::Passive));
        assert_eq!(mode(24, 11, 49), None);
        assert_eq!(mode(25, 10, 100), Some(CheckpointMode::Restart));
        assert_eq!(mode(25, 10, 101), Some(CheckpointMode::Truncate));
        assert_eq!(mode(1, 1, 101), Some(CheckpointMode::Truncate));
    }
}
