//! The eight locks of the protocol, and the spans of them that are acquired as one.

use std::fmt;

use super::ReadSlot;

/// A lock of the protocol (`WAL_WRITE_LOCK` and the others).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Lock {
    /// Held by the one writer.
    Write,
    /// Held by whoever moves frames to the database file.
    Checkpoint,
    /// Held while the wal-index is rebuilt.
    Recover,
    /// Shared by the readers of a slot; exclusive to change its mark, or, for
    /// slot 0, to write the database file.
    Read(ReadSlot),
    /// Read 1 to 4 as one span: shuts out every reader of the log.
    ReadMarks,
    /// Read 0 to 4 as one span: shuts out every reader.
    Readers,
    /// Checkpoint and Recover as one span: what recovery holds beside Write.
    CheckpointAndRecover,
}

impl Lock {
    /// The number of single locks.
    pub const COUNT: usize = 8;

    /// The first single lock of the span and their number, in the order of
    /// the lock bytes: Write 0, Checkpoint 1, Recover 2, Read 0 to 4 from 3.
    pub const fn span(self) -> (usize, usize) {
        match self {
            Lock::Write => (0, 1),
            Lock::Checkpoint => (1, 1),
            Lock::Recover => (2, 1),
            Lock::Read(slot) => (3 + slot.index(), 1),
            Lock::ReadMarks => (4, 4),
            Lock::Readers => (3, 5),
            Lock::CheckpointAndRecover => (1, 2),
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lock::Write => f.write_str("Write"),
            Lock::Checkpoint => f.write_str("Checkpoint"),
            Lock::Recover => f.write_str("Recover"),
            Lock::Read(slot) => write!(f, "Read {}", slot.index()),
            Lock::ReadMarks => f.write_str("Read 1-4"),
            Lock::Readers => f.write_str("Read 0-4"),
            Lock::CheckpointAndRecover => f.write_str("Checkpoint and Recover"),
        }
    }
}

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LockMode {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}
