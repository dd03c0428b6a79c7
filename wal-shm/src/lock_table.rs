//! Who holds which lock byte within this process.
//!
//! The locks of the system belong to an open file or to the process, so they
//! do not keep threads of one process apart: an exclusive lock over our own
//! shared one would succeed, and its release would leave nothing of either.
//! So every acquisition passes this table first. The system is asked only
//! when the first holder of a byte comes and when the last one goes. What is
//! asked then is behind [`Beyond`].

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wal_core::io::shm_bytes;
use wal_core::{Lock, LockMode, Result};

use crate::side_file::SideFile;

/// Where a lock that is free within the process is taken against all others.
/// A table makes one call at a time.
pub(crate) trait Beyond {
    /// Takes `bytes`, or answers false if another process conflicts.
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool>;

    /// Gives `bytes` back, which were taken in `mode`.
    fn unlock(&self, bytes: Range<u64>, mode: LockMode) -> Result<()>;
}

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
    /// Where it is told what this process holds.
    told: Option<Arc<SideFile>>,
}

impl LockTable {
    pub(crate) fn new(told: Option<Arc<SideFile>>) -> Self {
        LockTable {
            held: Mutex::new([Held::Not; Lock::COUNT]),
            told,
        }
    }

    /// Tells what is held. Called with the mutex held, so that the last word
    /// is the right one.
    fn tell(&self, held: &[Held; Lock::COUNT]) {
        if let Some(told) = &self.told {
            let bit = |(at, byte): (usize, &Held)| u8::from(*byte != Held::Not) << at;
            told.note(held.iter().enumerate().map(bit).sum());
        }
    }

    /// The mutex is held during the system call, so that the table and the
    /// system always agree for whoever looks. The calls never block.
    fn held(&self) -> MutexGuard<'_, [Held; Lock::COUNT]> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `lock` in the table and beyond; false if it conflicts in either.
    pub(crate) fn try_lock(
        &self,
        beyond: &impl Beyond,
        lock: Lock,
        mode: LockMode,
    ) -> Result<bool> {
        let mut held = self.held();
        let span = span(&mut held, lock);
        if span.iter().any(|&byte| conflicts(byte, mode)) {
            return Ok(false);
        }
        let ours_already = span.iter().all(|&byte| byte != Held::Not);
        if !ours_already && !beyond.try_lock(shm_bytes::of(lock), mode)? {
            return Ok(false);
        }
        for byte in span {
            *byte = match (mode, *byte) {
                (LockMode::Exclusive, _) => Held::Exclusively,
                (LockMode::Shared, Held::Shared(count)) => Held::Shared(count + 1),
                (LockMode::Shared, _) => Held::Shared(1),
            };
        }
        if !ours_already {
            self.tell(&held);
        }
        Ok(true)
    }

    /// Gives `lock` back, beyond only where this was the last holder.
    pub(crate) fn unlock(&self, beyond: &impl Beyond, lock: Lock, mode: LockMode) -> Result<()> {
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
                    beyond.unlock(at..at + 1, mode)?;
                }
                (LockMode::Exclusive, _) => *byte = Held::Not,
            }
        }
        if held[first] == Held::Not {
            self.tell(&held);
        }
        match mode {
            LockMode::Exclusive => beyond.unlock(bytes, mode),
            LockMode::Shared => Ok(()),
        }
    }

    /// True if this process holds a byte of `lock`.
    pub(crate) fn holds(&self, lock: Lock) -> bool {
        span(&mut self.held(), lock)
            .iter()
            .any(|&byte| byte != Held::Not)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::main_file::MainFile;
    use crate::shm_file::ShmFile;
    use wal_core::ReadSlot;
    use wal_core::io::{ByteLocks, LockKind, OpenMode, OsFile};

    const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

    /// A file with a table, and a stranger's view of the same file.
    struct Scene {
        table: LockTable,
        file: ShmFile,
        stranger: std::fs::File,
        _dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db-shm");
            let database = OsFile::open(&dir.path().join("db"), OpenMode::Create).unwrap();
            let file = ShmFile::open(&MainFile::Own(Arc::new(database)), LOCKS)
                .unwrap()
                .unwrap();
            let stranger = std::fs::File::options()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            Scene {
                table: LockTable::new(None),
                file,
                stranger,
                _dir: dir,
            }
        }

        fn take(&self, lock: Lock, mode: LockMode) -> bool {
            self.table.try_lock(&self.file, lock, mode).unwrap()
        }

        fn give(&self, lock: Lock, mode: LockMode) {
            self.table.unlock(&self.file, lock, mode).unwrap();
        }

        /// How the stranger sees `lock`.
        fn seen(&self, lock: Lock) -> Option<LockMode> {
            let conflict = LOCKS.conflict(&self.stranger, shm_bytes::of(lock)).unwrap();
            conflict.map(|conflict| conflict.mode)
        }
    }

    const READ_1: Lock = Lock::Read(ReadSlot::MARKED[0]);

    #[test]
    fn a_shared_lock_stays_until_its_last_holder_in_the_process_goes() {
        let scene = Scene::new();
        assert!(scene.take(READ_1, LockMode::Shared));
        assert!(scene.take(READ_1, LockMode::Shared));
        scene.give(READ_1, LockMode::Shared);
        assert_eq!(scene.seen(READ_1), Some(LockMode::Shared));
        scene.give(READ_1, LockMode::Shared);
        assert_eq!(scene.seen(READ_1), None);
    }

    #[test]
    fn an_exclusive_lock_does_not_run_over_a_shared_one_of_the_same_process() {
        let scene = Scene::new();
        assert!(scene.take(READ_1, LockMode::Shared));
        for lock in [READ_1, Lock::ReadMarks, Lock::Readers] {
            assert!(!scene.take(lock, LockMode::Exclusive), "{lock}");
            assert_eq!(scene.seen(READ_1), Some(LockMode::Shared), "{lock}");
        }
        scene.give(READ_1, LockMode::Shared);
        assert!(scene.take(Lock::ReadMarks, LockMode::Exclusive));
        assert!(!scene.take(READ_1, LockMode::Shared));
        assert_eq!(scene.seen(Lock::ReadMarks), Some(LockMode::Exclusive));
        scene.give(Lock::ReadMarks, LockMode::Exclusive);
        assert_eq!(scene.seen(Lock::ReadMarks), None);
    }

    #[test]
    fn a_lock_of_a_stranger_is_respected_and_leaves_no_trace_in_the_table() {
        let scene = Scene::new();
        let write = shm_bytes::of(Lock::Write);
        assert!(
            LOCKS
                .try_lock(&scene.stranger, write.clone(), LockMode::Exclusive)
                .unwrap()
        );
        assert!(!scene.take(Lock::Write, LockMode::Exclusive));
        LOCKS.unlock(&scene.stranger, write).unwrap();
        assert!(scene.take(Lock::Write, LockMode::Exclusive));
    }
}
