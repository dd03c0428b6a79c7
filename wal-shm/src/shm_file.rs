//! The `-shm` file: the blocks of the wal-index, mapped.
//!
//! # Protocol
//! The file is opened with SHARED held on the database file, so that no last
//! closer removes it meanwhile. The first opener cuts it to three bytes, as
//! SQLite does, which leaves no valid header, so that the index is rebuilt
//! from the log; everyone attached holds the byte DMS shared. It grows under
//! Write only, by space that is really there: touching a mapped page that the
//! disk has no room for would be a signal.
//!
//! Who may not write joins those who are attached, and maps the file
//! read-only. It is refused every exclusive lock, so the protocol never comes
//! to a store.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use wal_core::index::{BLOCK_LEN, IndexBlock};
use wal_core::io::{
    ByteLocks, Conflict, File, LOOK_IN_PLACE_EVERY, NowAndThen, OsFile, beside, shm_bytes,
};
use wal_core::once_table::OnceTable;
use wal_core::testing::{Point, step};
use wal_core::{Error, LockMode, Result};

use crate::first_opener;
use crate::lock_table::Beyond;
use crate::main_file::MainFile;
use crate::mapping::Shared;

/// What the first opener leaves of the file (`unixLockSharedMemory`): fewer
/// bytes than a header, but not zero, so that a cut by SQLite can be told
/// from a stranger's.
const RESET_LEN: u64 = 3;
/// The piece of a file in which space is made sure of.
const ALLOCATION_UNIT: u64 = 4096;

/// The `-shm` file of an attachment.
#[derive(Debug)]
pub(crate) struct ShmFile {
    file: OsFile,
    locks: ByteLocks,
    read_only: bool,
    blocks: OnceTable<Shared<IndexBlock>>,
    in_place: NowAndThen,
}

impl ShmFile {
    /// Opens the file and attaches to it; `None` if a first opener is at work.
    pub(crate) fn open(database: &MainFile, locks: ByteLocks) -> Result<Option<Self>> {
        let path = beside(database.path(), "-shm");
        let file = OsFile::open_for_locks(&path, database.create_like())?;
        let attached = first_opener::attach(&file, locks, shm_bytes::DMS, || {
            step(Point::ShmTruncate);
            file.set_len(RESET_LEN)
        })?;
        Ok(attached.map(|()| Self::attached(file, locks, false)))
    }

    /// The file of somebody else, who is attached, as this process is: opened
    /// for reading alone.
    pub(crate) fn joined(file: OsFile, locks: ByteLocks) -> Self {
        Self::attached(file, locks, true)
    }

    fn attached(file: OsFile, locks: ByteLocks, read_only: bool) -> Self {
        ShmFile {
            file,
            locks,
            read_only,
            blocks: OnceTable::new(),
            in_place: NowAndThen::new(LOOK_IN_PLACE_EVERY),
        }
    }

    /// Refuses, now and then, if the file was removed or replaced: then others
    /// use another index, and locks that we do not see.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        if !self.in_place.is_due() {
            return Ok(());
        }
        self.file
            .check_in_place()
            .inspect_err(|_| self.in_place.make_due())
    }

    pub(crate) fn file(&self) -> &OsFile {
        &self.file
    }

    /// Block `index`, if the file is long enough to have it.
    #[inline]
    pub(crate) fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        match self.blocks.get(index) {
            Some(block) => Ok(block.get()),
            None => self.block_if_there(index),
        }
    }

    #[cold]
    fn block_if_there(&self, index: u32) -> Result<Option<&IndexBlock>> {
        if self.file.len()? < end_of(index) {
            return Ok(None);
        }
        self.map(index)
    }

    /// Block `index`, for which the file is made long enough. The caller holds
    /// Write.
    pub(crate) fn grow(&self, index: u32) -> Result<&IndexBlock> {
        if self.read_only {
            return Err(Error::ReadOnly {
                path: self.file.path().to_owned(),
            });
        }
        // What is mapped was there, and the file never gets shorter while
        // somebody is attached.
        if let Some(block) = self.blocks.get(index).and_then(Shared::get) {
            return Ok(block);
        }
        let (len, end) = (self.file.len()?, end_of(index));
        if len < end {
            allocate(&self.file, len, end).map_err(|e| Error::io(self.file.path(), "grow", e))?;
        }
        self.map(index)?
            .ok_or_else(|| Error::corrupt(self.file.path(), "a block cannot be mapped"))
    }

    fn map(&self, index: u32) -> Result<Option<&IndexBlock>> {
        let start = end_of(index) - BLOCK_LEN as u64;
        self.blocks
            .get_or_try_make(index, || match self.read_only {
                true => Shared::map_read_only(&self.file, start),
                false => Shared::map(&self.file, start),
            })
            .map(Shared::get)
    }
}

impl ShmFile {
    /// The processes that hold a byte of `bytes` by a lock that belongs to a
    /// process. The system names one for each byte.
    pub(crate) fn holders(&self, bytes: Range<u64>) -> Vec<u32> {
        let mut holders = Vec::new();
        for byte in bytes {
            let conflict = self.locks.conflict(self.file.as_file(), byte..byte + 1);
            if let Ok(Some(Conflict { pid: Some(pid), .. })) = conflict {
                holders.push(pid);
            }
        }
        holders
    }
}

impl Beyond for ShmFile {
    /// A descriptor for reading alone cannot carry an exclusive lock.
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool> {
        if self.read_only && mode == LockMode::Exclusive {
            return Ok(false);
        }
        self.locks
            .try_lock(self.file.as_file(), bytes, mode)
            .map_err(|e| Error::io(self.file.path(), "lock", e))
    }

    fn unlock(&self, bytes: Range<u64>, _mode: LockMode) -> Result<()> {
        self.locks
            .unlock(self.file.as_file(), bytes)
            .map_err(|e| Error::io(self.file.path(), "unlock", e))
    }

    fn is_held_by_others(&self, bytes: Range<u64>) -> bool {
        let conflict = self.locks.conflict(self.file.as_file(), bytes);
        matches!(conflict, Ok(Some(_)))
    }
}

fn end_of(index: u32) -> u64 {
    (u64::from(index) + 1) * BLOCK_LEN as u64
}

/// Makes `file`, which is `len` long, `end` long, with all of the new part
/// really there.
pub(crate) fn allocate(file: &OsFile, len: u64, end: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::errno::Errno;
        let signed = |n| i64::try_from(n).map_err(|_| Errno::EFBIG);
        loop {
            let mode = nix::fcntl::FallocateFlags::empty();
            match nix::fcntl::fallocate(file.as_file(), mode, signed(len)?, signed(end - len)?) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                // The file system cannot; writing can.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    // One byte at the end of every unit that is not all there, as SQLite does.
    let first = len / ALLOCATION_UNIT;
    for unit in first..end.div_ceil(ALLOCATION_UNIT) {
        file.as_file()
            .write_all_at(&[0], (unit + 1) * ALLOCATION_UNIT - 1)?;
    }
    Ok(())
}
