//! SQLite's lock bytes, and how a process takes them.
//!
//! Two kinds of lock serve. *Open-file-description* locks belong to the open
//! file: they conflict with the locks of every other description, in this
//! process too, and go when the last copy of the descriptor is closed.
//! *Classic* POSIX locks belong to the process and vanish when the process
//! closes any descriptor of the file. Both conflict with stock SQLite's.
//!
//! A description never conflicts with itself: taking an exclusive lock over
//! one's own shared lock succeeds, and the unlock then leaves nothing. So a
//! table in front of these calls decides within the process, and a call is
//! made only when the first user comes or the last one goes.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::types::LockMode;

/// The lock bytes of the database file (`PENDING_BYTE` and those behind it).
pub mod database_bytes {
    use std::ops::Range;

    /// Held for a moment while SHARED is taken, and by a writer that waits for
    /// readers to leave, in rollback mode.
    pub const PENDING: Range<u64> = 0x4000_0000..0x4000_0001;
    /// Held by a writer in rollback mode.
    pub const RESERVED: Range<u64> = 0x4000_0001..0x4000_0002;
    /// Read-locked by everyone who uses the database, write-locked by an owner.
    pub const SHARED: Range<u64> = 0x4000_0002..0x4000_0002 + 510;
    /// All of them.
    pub const ALL: Range<u64> = 0x4000_0000..0x4000_0002 + 510;
}

/// The lock bytes of the `-shm` file.
pub mod shm_bytes {
    use std::ops::Range;

    use crate::types::Lock;

    /// Where the eight locks of the protocol begin (`UNIX_SHM_BASE`).
    const BASE: u64 = 120;
    /// Read-locked by everyone attached, write-locked by the first opener
    /// ("dead man's switch", `UNIX_SHM_DMS`).
    pub const DMS: Range<u64> = 128..129;

    /// The bytes of `lock`.
    pub const fn of(lock: Lock) -> Range<u64> {
        let (first, count) = lock.span();
        BASE + first as u64..BASE + (first + count) as u64
    }
}

/// Which locks of the system are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum LockKind {
    /// Locks of the open file description; classic ones on systems other than Linux. A Linux
    /// without them (WSL 1, some sandboxes) refuses to open a database, and the error names
    /// [`LockKind::Classic`].
    #[default]
    OpenFileDescription,
    /// Classic POSIX locks of the process. They vanish when anything in the
    /// process closes the file, so no other SQLite may use the database in
    /// this process.
    Classic,
}

/// A conflicting lock that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// How it is held.
    pub mode: LockMode,
    /// The process that holds it; `None` for a lock of an open file
    /// description, which no process owns, and for a process that this one cannot see: in
    /// another container, or on another machine.
    pub pid: Option<u32>,
}

/// Byte-range locks of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteLocks(LockKind);

impl ByteLocks {
    /// Locks of `kind`.
    pub const fn new(kind: LockKind) -> Self {
        ByteLocks(kind)
    }

    /// True if two descriptions of one process exclude each other, and one
    /// does not lose its locks when the other is closed.
    pub const fn belong_to_description(self) -> bool {
        cfg!(any(target_os = "linux", target_os = "android"))
            && matches!(self.0, LockKind::OpenFileDescription)
    }

    /// Takes `bytes` of `file`, or answers false if another holder conflicts.
    ///
    /// # Errors
    /// Whatever else the system says (`ENOLCK`, `EIO`, …).
    pub fn try_lock(
        self,
        file: &File,
        bytes: std::ops::Range<u64>,
        mode: LockMode,
    ) -> io::Result<bool> {
        let kind = match mode {
            LockMode::Shared => libc::F_RDLCK,
            LockMode::Exclusive => libc::F_WRLCK,
        };
        match self.set(file, &flock(kind, &bytes)) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(self.refused(errno)),
        }
    }

    /// Gives `bytes` of `file` back.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn unlock(self, file: &File, bytes: std::ops::Range<u64>) -> io::Result<()> {
        let unlocked = self.set(file, &flock(libc::F_UNLCK, &bytes));
        unlocked.map_err(|errno| self.refused(errno))
    }

    /// Gives back all of `file`, for which the system needs no memory: no lock is split.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn unlock_all(self, file: &File) -> io::Result<()> {
        // A length of 0 reaches to the end of every file.
        let unlocked = self.set(file, &flock(libc::F_UNLCK, &(0..0)));
        unlocked.map_err(|errno| self.refused(errno))
    }

    /// Tells who would stand in the way of an exclusive lock on `bytes`,
    /// without taking it. Locks of `file`'s own description (or, for the
    /// classic kind, of this process) are not seen.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn conflict(
        self,
        file: &File,
        bytes: std::ops::Range<u64>,
    ) -> io::Result<Option<Conflict>> {
        let mut lock = flock(libc::F_WRLCK, &bytes);
        self.get(file, &mut lock)
            .map_err(|errno| self.refused(errno))?;
        let mode = match i32::from(lock.l_type) {
            libc::F_UNLCK => return Ok(None),
            libc::F_RDLCK => LockMode::Shared,
            _ => LockMode::Exclusive,
        };
        Ok(Some(Conflict {
            mode,
            // 0 is a process in another namespace of process numbers.
            pid: u32::try_from(lock.l_pid).ok().filter(|pid| *pid > 0),
        }))
    }

    /// What the system said. One that does not know locks of open file descriptions takes
    /// their commands for an error of the caller.
    fn refused(self, errno: Errno) -> io::Error {
        if !self.belong_to_description() || errno != Errno::EINVAL {
            return errno.into();
        }
        io::Error::new(
            io::ErrorKind::Unsupported,
            "the system has no open file description locks; set \
             `lock_kind(LockKind::Classic)` if no other SQLite in this process uses the database",
        )
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn set(self, file: &File, lock: &libc::flock) -> nix::Result<()> {
        retry(|| match self.0 {
            LockKind::OpenFileDescription => fcntl(file, FcntlArg::F_OFD_SETLK(lock)),
            LockKind::Classic => fcntl(file, FcntlArg::F_SETLK(lock)),
        })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn get(self, file: &File, lock: &mut libc::flock) -> nix::Result<()> {
        retry(|| match self.0 {
            LockKind::OpenFileDescription => fcntl(file, FcntlArg::F_OFD_GETLK(&mut *lock)),
            LockKind::Classic => fcntl(file, FcntlArg::F_GETLK(&mut *lock)),
        })
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn set(self, file: &File, lock: &libc::flock) -> nix::Result<()> {
        retry(|| fcntl(file, FcntlArg::F_SETLK(lock)))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn get(self, file: &File, lock: &mut libc::flock) -> nix::Result<()> {
        retry(|| fcntl(file, FcntlArg::F_GETLK(&mut *lock)))
    }
}

fn retry(mut call: impl FnMut() -> nix::Result<i32>) -> nix::Result<()> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// The structure by which `fcntl` is asked. OFD calls want `l_pid` to be 0.
#[allow(clippy::cast_possible_truncation)] // The constants are small and the field's type differs between systems.
fn flock(kind: i32, bytes: &std::ops::Range<u64>) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: bytes.start as libc::off_t,
        l_len: (bytes.end - bytes.start) as libc::off_t,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    fn two_descriptions() -> (tempfile::TempDir, File, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .unwrap()
        };
        let (a, b) = (open(), open());
        (dir, a, b)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn descriptions_of_one_process_exclude_each_other() {
        let (_dir, a, b) = two_descriptions();
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        assert!(locks.try_lock(&a, 0..1, LockMode::Shared).unwrap());
        assert!(locks.try_lock(&b, 0..1, LockMode::Shared).unwrap());
        assert!(!locks.try_lock(&b, 0..1, LockMode::Exclusive).unwrap());
        let conflict = Conflict {
            mode: LockMode::Shared,
            pid: None,
        };
        assert_eq!(locks.conflict(&b, 0..1).unwrap(), Some(conflict));
        locks.unlock(&a, 0..1).unwrap();
        assert_eq!(locks.conflict(&b, 0..1).unwrap(), None);
        assert!(locks.try_lock(&b, 0..1, LockMode::Exclusive).unwrap());
        assert!(!locks.try_lock(&a, 0..1, LockMode::Shared).unwrap());
    }

    #[test]
    fn the_lock_bytes_are_sqlites() {
        use crate::types::{Lock, ReadSlot};
        assert_eq!(shm_bytes::of(Lock::Write), 120..121);
        assert_eq!(shm_bytes::of(Lock::Checkpoint), 121..122);
        assert_eq!(shm_bytes::of(Lock::Recover), 122..123);
        assert_eq!(shm_bytes::of(Lock::Read(ReadSlot::DATABASE)), 123..124);
        assert_eq!(shm_bytes::of(Lock::ReadMarks), 124..128);
        assert_eq!(database_bytes::ALL.end - database_bytes::ALL.start, 512);
    }
}
