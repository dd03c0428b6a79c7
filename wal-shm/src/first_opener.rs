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

use std::ops::Range;

use wal_core::io::{ByteLocks, File, OsFile};
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
    let lock = |mode| {
        locks
            .try_lock(file.as_file(), byte.clone(), mode)
            .map_err(io)
    };
    match locks.conflict(file.as_file(), byte.clone()).map_err(io)? {
        Some(conflict) if conflict.mode == LockMode::Exclusive => return Ok(None),
        Some(_joining) => {}
        None if lock(LockMode::Exclusive)? => {
            if let Err(e) = reset() {
                locks.unlock(file.as_file(), byte).map_err(io)?;
                return Err(e);
            }
        }
        None => return Ok(None),
    }
    // From exclusive to shared nobody comes between.
    Ok(lock(LockMode::Shared)?.then_some(()))
}
