//! The calls that a user makes to its coordination and its storage, as values.

use wal_core::types::{Lock, LockMode, ReadSlot};

/// One of the two files of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Database,
    Log,
}

/// What a sleeper waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    Commit,
    Turn,
    Sync,
}

/// A call that a user made to its coordination or its storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Block(u32),
    Grow(u32),
    TryLock(Lock, LockMode),
    TryLockMark(ReadSlot, u32),
    Downgrade(ReadSlot),
    RaiseMark(ReadSlot, u32),
    Unlock(Lock, LockMode),
    Mark(ReadSlot),
    SetMark(ReadSlot, u32),
    Wake(Awaited),
    Sleep(Awaited),
    Leave,
    Remove,
    Read {
        file: Which,
        offset: u64,
        len: usize,
    },
    Write {
        file: Which,
        offset: u64,
        len: usize,
    },
    Sync(Which),
    StartWriteback(Which),
    ForgetFailures(Which),
    SetLen(Which, u64),
    FreeSpace(Which),
    RemoveLog,
    SyncDirectory,
}
