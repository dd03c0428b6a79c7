//! The `-shm` file: the blocks of the wal-index, mapped.
//!
//! # Protocol
//! The file is opened with SHARED held on the database file, so that no last
//! closer removes it meanwhile. The first opener cuts it to three bytes, as
//! SQLite does, which leaves no valid header, so that the index is rebuilt
//! from the log; everyone attached holds the byte DMS shared. It grows under
//! WRITE only, by space that is really there: a store to a mapped page that the
//! disk has no room for would be a signal. SQLite writes one byte in each 4 KiB
//! instead, which leaves holes where the blocks of the file system are smaller. So
//! blocks are made sure of before the first store too: those of the header and the
//! marks when block 0 is mapped, as a reader may store a mark, and those of a whole
//! block when a writer asks for it.
//!
//! Who may not write joins those who are attached, and maps the file
//! read-only. It is refused every exclusive lock, so the protocol never comes
//! to a store.

use std::ops::Range;

use wal_core::index::{BLOCK_LEN, IndexBlock, WritableBlock};
use wal_core::once_table::OnceTable;
use wal_core::storage::{
    ByteLocks, Conflict, File, LOOK_IN_PLACE_EVERY, NowAndThen, OsFile, shm_bytes,
};
use wal_core::sync::{AtomicBool, Ordering};
use wal_core::testing::{Point, step};
use wal_core::{Error, LockMode, Result};

use crate::lock_table::Beyond;
use crate::main_file::MainFile;
use crate::mapping::Shared;
use crate::{allocate, first_opener};

/// What the first opener leaves of the file (`unixLockSharedMemory`): fewer
/// bytes than a header, but not zero, so that a cut by SQLite can be told
/// from a stranger's.
const RESET_LEN: u64 = 3;
/// The part of block 0 that has all that is stored without WRITE.
const HEADER_AND_MARKS: usize = 4096;

/// The `-shm` file of an attachment.
#[derive(Debug)]
pub(crate) struct ShmFile {
    file: OsFile,
    locks: ByteLocks,
    blocks: Blocks,
    in_place: NowAndThen,
}

/// The blocks that were mapped.
#[derive(Debug)]
enum Blocks {
    Writable(OnceTable<Block>),
    ReadOnly(OnceTable<Shared<IndexBlock>>),
}

/// A block that was mapped to be written.
#[derive(Debug)]
struct Block {
    memory: Shared<WritableBlock>,
    /// All of it was made sure of on the disk. That is never undone.
    has_room: AtomicBool,
}

impl Block {
    fn map(file: &OsFile, index: u32) -> Result<Self> {
        let memory = Shared::map(file, start_of(index))?;
        if index == 0 {
            memory.make_room(file, HEADER_AND_MARKS)?;
        }
        Ok(Block {
            memory,
            has_room: AtomicBool::new(false),
        })
    }

    /// The block, once all of it can be stored to.
    fn with_room(&self, file: &OsFile) -> Result<&WritableBlock> {
        // Relaxed: another thread that finds it set stores to the same pages.
        if !self.has_room.load(Ordering::Relaxed) {
            self.memory.make_room(file, BLOCK_LEN)?;
            self.has_room.store(true, Ordering::Relaxed);
        }
        self.memory.get().ok_or(Error::UsedAfterFork)
    }
}

impl ShmFile {
    /// Opens the file and attaches to it; `None` if a first opener is at work.
    pub(crate) fn open(database: &MainFile, locks: ByteLocks) -> Result<Option<Self>> {
        let place = database.held_path().beside("-shm");
        let file = OsFile::open_for_locks_at(place, database.create_like())?;
        let attached = first_opener::attach(&file, locks, shm_bytes::DMS, || {
            step(Point::ShmTruncate);
            allocate::empty(&file)?;
            file.set_len(RESET_LEN)
        })?;
        let blocks = Blocks::Writable(OnceTable::new());
        Ok(attached.map(|()| Self::attached(file, locks, blocks)))
    }

    /// The file of somebody else, who is attached, as this process is: opened
    /// for reading alone.
    pub(crate) fn joined(file: OsFile, locks: ByteLocks) -> Self {
        Self::attached(file, locks, Blocks::ReadOnly(OnceTable::new()))
    }

    fn attached(file: OsFile, locks: ByteLocks, blocks: Blocks) -> Self {
        ShmFile {
            file,
            locks,
            blocks,
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
        match &self.blocks {
            Blocks::Writable(blocks) => match blocks.get(index) {
                Some(block) => Ok(block.memory.get().map(|block| &**block)),
                None => self.block_if_there(index),
            },
            Blocks::ReadOnly(blocks) => match blocks.get(index) {
                Some(block) => Ok(block.get()),
                None => self.block_if_there(index),
            },
        }
    }

    #[cold]
    fn block_if_there(&self, index: u32) -> Result<Option<&IndexBlock>> {
        if self.file.len()? < end_of(index) {
            return Ok(None);
        }
        match &self.blocks {
            Blocks::Writable(blocks) => {
                let block = blocks.get_or_try_make(index, || Block::map(&self.file, index))?;
                Ok(block.memory.get().map(|block| &**block))
            }
            Blocks::ReadOnly(blocks) => {
                let map = || Shared::map_read_only(&self.file, start_of(index));
                blocks.get_or_try_make(index, map).map(Shared::get)
            }
        }
    }

    /// Block `index`, for which the file is made long enough. The caller holds
    /// Write.
    pub(crate) fn grow(&self, index: u32) -> Result<&WritableBlock> {
        let Blocks::Writable(blocks) = &self.blocks else {
            return Err(Error::ReadOnly {
                path: self.file.path().to_owned(),
            });
        };
        // What is mapped was there, and the file never gets shorter while
        // somebody is attached.
        if let Some(block) = blocks.get(index) {
            return block.with_room(&self.file);
        }
        let (len, end) = (self.file.len()?, end_of(index));
        if len < end {
            allocate::allocate(&self.file, len, end)?;
        }
        let block = blocks.get_or_try_make(index, || Block::map(&self.file, index))?;
        block.with_room(&self.file)
    }

    /// Block 0, for a mark to be stored there, if it was mapped to be written.
    #[inline]
    pub(crate) fn marks(&self) -> Option<&WritableBlock> {
        match &self.blocks {
            Blocks::Writable(blocks) => blocks.get(0)?.memory.get(),
            Blocks::ReadOnly(_) => None,
        }
    }
}

impl ShmFile {
    /// The processes that hold a byte of `bytes` by a lock that belongs to a
    /// process. The system names one for each byte.
    pub(crate) fn holders(&self, bytes: Range<u64>) -> Vec<u32> {
        let mut holders = Vec::new();
        let Ok(file) = self.file.as_file() else {
            return holders;
        };
        for byte in bytes {
            let conflict = self.locks.conflict(file, byte..byte + 1);
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
        if matches!(self.blocks, Blocks::ReadOnly(_)) && mode == LockMode::Exclusive {
            return Ok(false);
        }
        self.locks
            .try_lock(self.file.as_file()?, bytes, mode)
            .map_err(|e| Error::io(self.file.path(), "lock", e))
    }

    fn unlock(&self, bytes: Range<u64>, _mode: LockMode) -> Result<()> {
        self.locks
            .unlock(self.file.as_file()?, bytes)
            .map_err(|e| Error::io(self.file.path(), "unlock", e))
    }

    fn is_held_by_others(&self, bytes: Range<u64>) -> bool {
        let conflict = |file| self.locks.conflict(file, bytes);
        matches!(self.file.as_file().map(conflict), Ok(Ok(Some(_))))
    }
}

fn start_of(index: u32) -> u64 {
    u64::from(index) * BLOCK_LEN as u64
}

fn end_of(index: u32) -> u64 {
    start_of(index) + BLOCK_LEN as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]
    #![allow(unsafe_code)] // A mark is stored without its lock.

    use std::sync::Arc;

    use wal_core::ReadSlot;
    use wal_core::storage::{LockKind, OpenMode, beside};

    use super::*;

    #[test]
    fn read_only_block_follows_its_writer_and_takes_no_store() {
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let database = Arc::new(OsFile::open(&path, OpenMode::Create).unwrap());
        let writer = ShmFile::open(&MainFile::Own(database), locks).unwrap();
        let writer = writer.unwrap();
        let file = OsFile::open_for_locks(&beside(&path, "-shm"), OpenMode::ReadOnly).unwrap();
        let reader = ShmFile::joined(file, locks);
        assert!(reader.block(0).unwrap().is_none(), "it is not grown");

        let written = writer.grow(0).unwrap();
        let read = reader.block(0).unwrap().unwrap();
        for mark in [7, 8] {
            // SAFETY: the test is alone with the file.
            unsafe { written.set_mark(ReadSlot::MARKED[0], mark) };
            assert_eq!(read.mark(ReadSlot::MARKED[0]), mark);
        }
        for index in [0, 1] {
            let refused = reader.grow(index);
            assert!(
                matches!(refused, Err(Error::ReadOnly { .. })),
                "{refused:?}"
            );
        }
    }

    /// A writer of SQLite that finds other lengths takes them for a stranger's cut.
    #[test]
    fn first_opener_leaves_three_bytes_and_the_next_one_leaves_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let database = OsFile::open(&path, OpenMode::Create).unwrap();
        let database = MainFile::Own(Arc::new(database));
        std::fs::write(beside(&path, "-shm"), [7; 40_000]).unwrap();
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let first = ShmFile::open(&database, locks).unwrap();
        let first = first.expect("nobody else opens it");
        assert_eq!(first.file().len().unwrap(), 3);
        assert!(first.block(0).unwrap().is_none());
        first.grow(0).unwrap();
        let next = ShmFile::open(&database, locks).unwrap();
        assert_eq!(
            next.expect("it joins").file().len().unwrap(),
            BLOCK_LEN as u64
        );
    }
}
