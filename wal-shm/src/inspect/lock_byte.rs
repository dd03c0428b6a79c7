//! The names of the lock bytes.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use wal_core::storage::{beside, database_bytes, shm_bytes};
use wal_core::{Lock, ReadSlot};

use crate::side_file;

/// A file of a database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum DatabaseFile {
    /// The database itself.
    Database,
    /// The log, `-wal`, on which no lock is acquired.
    Log,
    /// The wal-index, `-shm`.
    Index,
    /// The side file of this library, `-coord`.
    Side,
}

impl DatabaseFile {
    /// All of them.
    pub const ALL: [DatabaseFile; 4] = [
        DatabaseFile::Database,
        DatabaseFile::Log,
        DatabaseFile::Index,
        DatabaseFile::Side,
    ];

    /// What its name adds to that of the database.
    pub const fn suffix(self) -> &'static str {
        match self {
            DatabaseFile::Database => "",
            DatabaseFile::Log => "-wal",
            DatabaseFile::Index => "-shm",
            DatabaseFile::Side => "-coord",
        }
    }

    /// Its path, beside `database`.
    pub fn path(self, database: &Path) -> PathBuf {
        beside(database, self.suffix())
    }
}

/// A lock byte, or a range of bytes that one lock is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum LockByte {
    /// One of the eight locks of the protocol, on `-shm`.
    Protocol(Lock),
    /// On `-shm`: shared by each process that has it mapped ("dead man's switch").
    Dms,
    /// On the database file, for a moment: its holder acquires SHARED or EXCLUSIVE.
    Pending,
    /// On the database file: a writer in rollback mode.
    Reserved,
    /// On the database file: each user; held exclusively, it is EXCLUSIVE.
    Shared,
    /// On the side file: each process that has it mapped.
    Attached,
    /// Bytes that are no lock of SQLite or of this library.
    Other,
}

impl fmt::Display for LockByte {
    /// The name of the constant in SQLite.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockByte::Protocol(Lock::Write) => "WRITE",
            LockByte::Protocol(Lock::Checkpoint) => "CKPT",
            LockByte::Protocol(Lock::Recover) => "RECOVER",
            LockByte::Protocol(Lock::Read(slot)) => return write!(f, "READ({})", slot.index()),
            LockByte::Protocol(lock) => return write!(f, "{lock}"),
            LockByte::Dms => "DMS",
            LockByte::Pending => "PENDING",
            LockByte::Reserved => "RESERVED",
            LockByte::Shared => "SHARED",
            LockByte::Attached => "ATTACHED",
            LockByte::Other => "OTHER",
        })
    }
}

/// The locks that a lock on `bytes` of `file` is made of, each with its part of the range.
pub(super) fn parts_of(file: DatabaseFile, bytes: &Range<u64>) -> Vec<(LockByte, Range<u64>)> {
    let mut parts = Vec::new();
    for (byte, range) in named(file) {
        let part = range.start.max(bytes.start)..range.end.min(bytes.end);
        if !part.is_empty() {
            parts.push((byte, part));
        }
    }
    if parts.is_empty() {
        parts.push((LockByte::Other, bytes.clone()));
    }
    parts
}

/// The lock bytes of `file`.
fn named(file: DatabaseFile) -> Vec<(LockByte, Range<u64>)> {
    match file {
        DatabaseFile::Database => vec![
            (LockByte::Pending, database_bytes::PENDING),
            (LockByte::Reserved, database_bytes::RESERVED),
            (LockByte::Shared, database_bytes::SHARED),
        ],
        DatabaseFile::Index => {
            let others = [Lock::Write, Lock::Checkpoint, Lock::Recover].into_iter();
            let locks = others.chain(ReadSlot::ALL.map(Lock::Read));
            let protocol = locks.map(|lock| (LockByte::Protocol(lock), shm_bytes::of(lock)));
            protocol.chain([(LockByte::Dms, shm_bytes::DMS)]).collect()
        }
        DatabaseFile::Side => vec![(LockByte::Attached, side_file::FIRST_OPENER)],
        DatabaseFile::Log => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: DatabaseFile, bytes: Range<u64>) -> String {
        let parts = parts_of(file, &bytes).into_iter();
        let shown =
            parts.map(|(byte, part)| format!("{byte} {}+{}", part.start, part.end - part.start));
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn lock_over_several_bytes_has_the_name_of_each() {
        use DatabaseFile::{Database, Index, Log, Side};
        assert_eq!(names(Index, 120..122), "WRITE 120+1, CKPT 121+1");
        assert_eq!(
            names(Index, 122..125),
            "RECOVER 122+1, READ(0) 123+1, READ(1) 124+1"
        );
        assert_eq!(names(Index, 127..129), "READ(4) 127+1, DMS 128+1");
        assert_eq!(names(Index, 0..u64::MAX).matches(',').count(), 8);
        assert_eq!(names(Index, 3..7), "OTHER 3+4");
        let shared = database_bytes::SHARED;
        assert_eq!(names(Database, shared), "SHARED 1073741826+510");
        let all = "PENDING 1073741824+1, RESERVED 1073741825+1, SHARED 1073741826+510";
        assert_eq!(names(Database, database_bytes::ALL), all);
        assert_eq!(
            names(Database, 1_073_741_900..1_073_741_901),
            "SHARED 1073741900+1"
        );
        assert_eq!(names(Side, 1 << 20..(1 << 20) + 1), "ATTACHED 1048576+1");
        assert_eq!(names(Log, 0..1), "OTHER 0+1");
    }
}
