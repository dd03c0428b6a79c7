//! The wal-index of an attachment: shared with other processes, or this
//! process's own.
//!
//! Who may write always shares it. Who may not does so while another process
//! is attached, which keeps the index up to date or will when it writes again;
//! alone, it cannot tell whether what is in `-shm` fits the log, and may not
//! reset it, so it builds an index of its own ([`PrivateIndex`]).

use std::io;
use std::ops::Range;

use wal_core::index::{IndexBlock, WritableBlock};
use wal_core::storage::{ByteLocks, File, OpenMode, OsFile, shm_bytes};
use wal_core::{Error, LockMode, Result};

use crate::file_system;
use crate::first_opener::{self, Joined};
use crate::lock_table::Beyond;
use crate::main_file::MainFile;
use crate::private_index::PrivateIndex;
use crate::shm_file::ShmFile;

/// The wal-index of an attachment.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one in each attachment, which is on the heap.
pub(crate) enum Index {
    Shared(ShmFile),
    Private(PrivateIndex),
}

impl Index {
    /// Attaches to `-shm`; `None` if a first opener is at work.
    pub(crate) fn open(database: &MainFile, locks: ByteLocks) -> Result<Option<Self>> {
        Ok(ShmFile::open(database, locks)?.map(Index::Shared))
    }

    /// Joins those who are attached to `-shm`, without writing to it, or
    /// begins a private index if nobody is; `None` if a first opener is at
    /// work.
    pub(crate) fn open_read_only(database: &MainFile, locks: ByteLocks) -> Result<Option<Self>> {
        let place = database.held_path().beside("-shm");
        let file = match OsFile::open_for_locks_at(place, OpenMode::ReadOnly) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::cannot_open(database.path(), NO_INDEX));
            }
            opened => opened?,
        };
        match first_opener::join(&file, locks, shm_bytes::DMS)? {
            Joined::Yes => {
                let file = join_copy(file, locks)?;
                Ok(file.map(|file| Index::Shared(ShmFile::joined(file, locks))))
            }
            Joined::Busy => Ok(None),
            Joined::NobodyThere if locks.belong_to_description() => {
                let index = PrivateIndex::new(database.clone(), file, locks);
                Ok(Some(Index::Private(index)))
            }
            Joined::NobodyThere => Err(Error::cannot_open(database.path(), CLASSIC)),
        }
    }

    /// True if its locks are those that peers see, byte for byte.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Index::Shared(_))
    }

    /// The `-shm` file, if there is one.
    pub(crate) fn file(&self) -> Option<&OsFile> {
        match self {
            Index::Shared(shm) => Some(shm.file()),
            Index::Private(private) => private.file(),
        }
    }

    #[inline]
    pub(crate) fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        match self {
            Index::Shared(shm) => shm.block(index),
            Index::Private(private) => Ok(private.block(index).map(|block| &**block)),
        }
    }

    pub(crate) fn grow(&self, index: u32) -> Result<&WritableBlock> {
        match self {
            Index::Shared(shm) => shm.grow(index),
            Index::Private(private) => Ok(private.grow(index)),
        }
    }
}

/// `-shm` as it is mapped by a process that has joined by `file`: a descriptor that was opened
/// before the writer may be of what an overlay file system has copied. `None` if a first
/// opener is at work.
fn join_copy(file: OsFile, locks: ByteLocks) -> Result<Option<OsFile>> {
    if !file_system::copies_up(file.path(), file.as_file()?)? {
        return Ok(Some(file));
    }
    let copy = OsFile::open_for_locks_at(file.held_path().clone(), OpenMode::ReadOnlyCopy)?;
    if !locks.belong_to_description() {
        // The process holds DMS, by whichever descriptor.
        return Ok(Some(copy));
    }
    // DMS is held by `file` until it is held by `copy`, so nobody resets the index.
    let joined = first_opener::join(&copy, locks, shm_bytes::DMS)?;
    Ok((joined == Joined::Yes).then_some(copy))
}

impl Index {
    /// Block 0, for a mark to be stored there, if it may be written and was mapped.
    #[inline]
    pub(crate) fn marks(&self) -> Option<&WritableBlock> {
        match self {
            Index::Shared(shm) => shm.marks(),
            Index::Private(private) => private.block(0),
        }
    }
}

impl Beyond for Index {
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool> {
        match self {
            Index::Shared(shm) => shm.try_lock(bytes, mode),
            Index::Private(private) => private.try_lock(bytes, mode),
        }
    }

    fn unlock(&self, bytes: Range<u64>, mode: LockMode) -> Result<()> {
        match self {
            Index::Shared(shm) => shm.unlock(bytes, mode),
            Index::Private(private) => private.unlock(bytes, mode),
        }
    }

    fn is_held_by_others(&self, bytes: Range<u64>) -> bool {
        match self {
            Index::Shared(shm) => shm.is_held_by_others(bytes),
            Index::Private(private) => private.is_held_by_others(bytes),
        }
    }
}

/// Locks are taken on `-shm`, so without it nothing would keep a writer that
/// comes later from changing the pages that are read.
const NO_INDEX: &str = "there is no -shm file beside it, without which a reader that may not \
    write is not safe from later writers; open the database once for writing and leave it open \
    or set `persistent_log`, or, if it is certain that nobody writes it, open it as immutable";

/// The transactions that go on with the private index, and those that have
/// moved to the shared one, would drop each other's locks.
const CLASSIC: &str = "nobody has it open for writing, and a reader that may not write needs \
    open-file-description locks to read it alone; open the database for writing in another \
    process first, or choose those locks";
