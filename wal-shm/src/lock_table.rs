//! Who holds which lock byte within this process.
//!
//! The locks of the system belong to an open file or to the process, so they
//! do not keep threads of one process apart: an exclusive lock over our own
//! shared one would succeed, and its release would leave nothing of either.
//! So every acquisition passes this table first. The system is asked only
//! when the first holder of a byte comes and when the last one goes.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wal_core::io::{ByteLocks, OsFile, shm_bytes};
use wal_core::{Lock, LockMode};

/// How one byte is held by this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Not,
    Shared(u32),
    Exclusively,
}

/// The table of one attachment.
#[derive(Debug)]
pub(crate) struct LockTable {
    held: Mutex<[Held; Lock::COUNT]>,
}

impl LockTable {
    pub(crate) fn new() -> Self {
        LockTable {
            held: Mutex::new([Held::Not; Lock::COUNT]),
        }
    }

    /// The mutex is held during the system call, so that the table and the
    /// system always agree for whoever looks. The calls never block.
    fn held(&self) -> MutexGuard<'_, [Held; Lock::COUNT]> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `lock` in the table and in `file`; false if it conflicts in
    /// either.
    pub(crate) fn try_lock(
        &self,
        file: &OsFile,
        locks: ByteLocks,
        lock: Lock,
        mode: LockMode,
    ) -> io::Result<bool> {
        let mut held = self.held();
        let span = span(&mut held, lock);
        if span.iter().any(|&byte| conflicts(byte, mode)) {
            return Ok(false);
        }
        let ours_already = span.iter().all(|&byte| byte != Held::Not);
        if !ours_already && !locks.try_lock(file.as_file(), shm_bytes::of(lock), mode)? {
            return Ok(false);
        }
        for byte in span {
            *byte = match (mode, *byte) {
                (LockMode::Exclusive, _) => Held::Exclusively,
                (LockMode::Shared, Held::Shared(count)) => Held::Shared(count + 1),
                (LockMode::Shared, _) => Held::Shared(1),
            };
        }
        Ok(true)
    }

    /// Gives `lock` back, in `file` only where this was the last holder.
    pub(crate) fn unlock(
        &self,
        file: &OsFile,
        locks: ByteLocks,
        lock: Lock,
        mode: LockMode,
    ) -> io::Result<()> {
        let mut held = self.held();
        let (first, count) = lock.span();
        let bytes = shm_bytes::of(lock);
        for (byte, at) in held[first..first + count].iter_mut().zip(bytes.clone()) {
            match (mode, *byte) {
                (LockMode::Shared, Held::Shared(count)) if count > 1 => {
                    *byte = Held::Shared(count - 1);
                }
                (LockMode::Shared, _) => {
                    *byte = Held::Not;
                    locks.unlock(file.as_file(), at..at + 1)?;
                }
                (LockMode::Exclusive, _) => *byte = Held::Not,
            }
        }
        match mode {
            LockMode::Exclusive => locks.unlock(file.as_file(), bytes),
            LockMode::Shared => Ok(()),
        }
    }
}

fn span(held: &mut [Held; Lock::COUNT], lock: Lock) -> &mut [Held] {
    let (first, count) = lock.span();
    &mut held[first..first + count]
}

fn conflicts(byte: Held, mode: LockMode) -> bool {
    match mode {
        LockMode::Shared => byte == Held::Exclusively,
        LockMode::Exclusive => byte != Held::Not,
    }
}
