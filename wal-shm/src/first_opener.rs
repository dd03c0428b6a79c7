//! Who resets a shared file, and who joins those that use it already
//! (`unixLockSharedMemory`).
//!
//! # Protocol
//! Everyone who uses the file holds a shared lock on one byte of it. An opener
//! asks who does:
//! - nobody: it takes the byte alone, resets the file, and keeps the byte
//!   shared. What was in the file is from before a crash, or from before
//!   everybody left, and is worth nothing;
//! - someone, shared: it joins;
//! - someone, alone: that one is resetting the file. The opener answers "busy"
//!   and comes again. It must not queue for the shared lock: the first opener
//!   may die before it has reset the file, and then the next one must.
//!
//! Who may not write the file cannot reset it, so it only joins.

use std::ops::Range;

use wal_core::storage::{ByteLocks, File, OsFile};
use wal_core::{Error, LockMode, Result};

/// Holds `byte` of `file` shared afterwards. `reset` is called by the first
/// opener, with the byte held alone. `None` says that another opener is at
/// work.
pub(crate) fn attach(
    file: &OsFile,
    locks: ByteLocks,
    byte: Range<u64>,
    reset: impl FnOnce() -> Result<()>,
) -> Result<Option<()>> {
    let io = |e| Error::io(file.path(), "lock", e);
    let open = file.as_file()?;
    let lock = |mode| locks.try_lock(open, byte.clone(), mode).map_err(io);
    match locks.conflict(open, byte.clone()).map_err(io)? {
        Some(conflict) if conflict.mode == LockMode::Exclusive => return Ok(None),
        Some(_joining) => {}
        None if lock(LockMode::Exclusive)? => {
            if let Err(e) = reset() {
                locks.unlock(open, byte).map_err(io)?;
                return Err(e);
            }
        }
        None => return Ok(None),
    }
    // No other opener comes between exclusive and shared.
    let shared = lock(LockMode::Shared);
    if !matches!(shared, Ok(true)) {
        // It may be held alone still, by a descriptor that stays open.
        let _ = locks.unlock(open, byte);
    }
    Ok(shared?.then_some(()))
}

/// Whether those who use a file could be joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Joined {
    Yes,
    /// A first opener is at work.
    Busy,
    /// Nobody uses the file, and what is in it is worth nothing.
    NobodyThere,
}

/// Holds `byte` of `file` shared afterwards, if somebody else does.
pub(crate) fn join(file: &OsFile, locks: ByteLocks, byte: Range<u64>) -> Result<Joined> {
    join_after(file, locks, byte, || {})
}

/// As [`join`], and calls `looked` behind the first look at who is there.
fn join_after(
    file: &OsFile,
    locks: ByteLocks,
    byte: Range<u64>,
    looked: impl FnOnce(),
) -> Result<Joined> {
    let io = |e| Error::io(file.path(), "lock", e);
    let open = file.as_file()?;
    let others = || locks.conflict(open, byte.clone()).map_err(io);
    match others()?.map(|conflict| conflict.mode) {
        None => return Ok(Joined::NobodyThere),
        Some(LockMode::Exclusive) => return Ok(Joined::Busy),
        Some(LockMode::Shared) => {}
    }
    looked();
    let shared = locks.try_lock(open, byte.clone(), LockMode::Shared);
    if !shared.map_err(io)? {
        return Ok(Joined::Busy);
    }
    // They may have left meanwhile. From here on nobody can reset the file, so
    // somebody who is there now has joined it as it was, too.
    let still_there = others();
    if !matches!(still_there, Ok(Some(_))) {
        locks.unlock(open, byte.clone()).map_err(io)?;
    }
    Ok(match still_there? {
        Some(_) => Joined::Yes,
        None => Joined::NobodyThere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use wal_core::storage::{LockKind, OpenMode};

    const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);
    const BYTE: Range<u64> = 128..129;

    /// Attaches; tells whether that worked and whether the file was reset.
    fn try_attach(file: &OsFile) -> (bool, bool) {
        let reset = Cell::new(false);
        let attached = attach(file, LOCKS, BYTE, || {
            reset.set(true);
            Ok(())
        });
        (attached.unwrap().is_some(), reset.get())
    }

    #[test]
    fn the_first_resets_and_the_others_join_until_all_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OsFile::open(&dir.path().join("shm"), OpenMode::Create).unwrap();
        let (first, second, third) = (open(), open(), open());
        assert_eq!(try_attach(&first), (true, true));
        assert_eq!(try_attach(&second), (true, false));
        drop(first);
        assert_eq!(try_attach(&third), (true, false));
        drop((second, third));
        assert_eq!(try_attach(&open()), (true, true));
    }

    /// Between its look and its lock the last user of the file leaves.
    #[test]
    fn reader_does_not_join_a_file_that_everyone_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let open = |mode| OsFile::open(&dir.path().join("shm"), mode).unwrap();
        let (writer, reader) = (open(OpenMode::Create), open(OpenMode::ReadOnly));
        assert_eq!(try_attach(&writer), (true, true));
        let joined = join_after(&reader, LOCKS, BYTE, || drop(writer));
        assert_eq!(joined.unwrap(), Joined::NobodyThere);
        assert_eq!(
            try_attach(&open(OpenMode::Existing)),
            (true, true),
            "the reader has left the byte to the next first opener"
        );
    }

    #[test]
    fn openers_that_come_at_once_reset_the_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shm");
        let resets = AtomicU32::new(0);
        for round in 1..=50 {
            let barrier = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let file = OsFile::open(&path, OpenMode::Create).unwrap();
                        let reset = || {
                            resets.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        };
                        barrier.wait();
                        while attach(&file, LOCKS, BYTE, reset).unwrap().is_none() {
                            std::thread::yield_now();
                        }
                        // Each of them stays until all are attached.
                        barrier.wait();
                    });
                }
            });
            assert_eq!(resets.load(Ordering::SeqCst), round, "round {round}");
        }
    }

    #[test]
    fn nobody_queues_behind_a_first_opener_that_may_die() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OsFile::open(&dir.path().join("shm"), OpenMode::Create).unwrap();
        let (first, second) = (open(), open());
        assert!(
            LOCKS
                .try_lock(first.as_file().unwrap(), BYTE, LockMode::Exclusive)
                .unwrap()
        );
        assert_eq!(try_attach(&second), (false, false));
        drop(first);
        assert_eq!(try_attach(&second), (true, true));
    }

    #[test]
    fn who_may_not_reset_the_file_joins_only_those_who_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let open = |mode| OsFile::open(&dir.path().join("shm"), mode).unwrap();
        let writer = open(OpenMode::Create);
        let reader = open(OpenMode::ReadOnly);
        let try_join = || join(&reader, LOCKS, BYTE).unwrap();
        assert_eq!(try_join(), Joined::NobodyThere);
        let alone = LOCKS.try_lock(writer.as_file().unwrap(), BYTE, LockMode::Exclusive);
        assert!(alone.unwrap());
        assert_eq!(try_join(), Joined::Busy);
        LOCKS.unlock(writer.as_file().unwrap(), BYTE).unwrap();
        assert_eq!(try_attach(&writer), (true, true));
        assert_eq!(try_join(), Joined::Yes);
        drop(writer);
        assert_eq!(
            try_attach(&open(OpenMode::Existing)),
            (true, false),
            "the reader is there, so nobody resets the file"
        );
    }

    #[test]
    fn a_reset_that_fails_leaves_the_file_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OsFile::open(&dir.path().join("shm"), OpenMode::Create).unwrap();
        let (first, second) = (open(), open());
        let full = || Err(Error::cannot_open(std::path::Path::new("shm"), "full"));
        assert!(attach(&first, LOCKS, BYTE, full).is_err());
        assert_eq!(try_attach(&second), (true, true));
    }
}
