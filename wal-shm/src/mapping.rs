//! A piece of a file as memory that processes share.
#![allow(unsafe_code)] // Giving mapped memory a type is unsafe in Rust.

use std::{fs, io};

use memmap2::{MmapOptions, MmapRaw};
use wal_core::fork::ParentOnly;
use wal_core::index::IndexBlock;
use wal_core::io::{File, OsFile};
use wal_core::{Error, Result};

use crate::side_file::SideMemory;

/// A type that any bytes are a value of, that is only changed through
/// atomics, and that has no address in it: so memory that others write to can
/// be seen as one.
///
/// # Safety
/// All three hold for the type, and it is `repr(C)`.
pub(crate) unsafe trait SharedMemory: Sync {}

// SAFETY: the block is `repr(C)` and consists of atomic integers.
unsafe impl SharedMemory for IndexBlock {}
// SAFETY: it is `repr(C)` and consists of atomic integers, the waiting room in
// it too.
unsafe impl SharedMemory for SideMemory {}

/// A mapped `T` in a file.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    map: ParentOnly<MmapRaw>,
    what: std::marker::PhantomData<T>,
}

impl<T: SharedMemory> Shared<T> {
    /// Maps the `T` at `offset` of `file`, which is at least that long. The
    /// offset is a multiple of `T`'s alignment.
    pub(crate) fn map(file: &OsFile, offset: u64) -> Result<Self> {
        Self::map_with(file, offset, |options, file| options.map_raw(file))
    }

    /// As [`Shared::map`], for a `T` to which nothing is stored: a store would
    /// be a signal.
    pub(crate) fn map_read_only(file: &OsFile, offset: u64) -> Result<Self> {
        Self::map_with(file, offset, |options, file| {
            options.map_raw_read_only(file)
        })
    }

    fn map_with(
        file: &OsFile,
        offset: u64,
        map: fn(&MmapOptions, &fs::File) -> io::Result<MmapRaw>,
    ) -> Result<Self> {
        let io = |e| Error::io(file.path(), "mmap", e);
        let mut options = MmapOptions::new();
        options.offset(offset).len(size_of::<T>());
        let map = map(&options, file.as_file()).map_err(io)?;
        // A child could not use the locks that go with this memory.
        #[cfg(target_os = "linux")]
        map.advise(memmap2::Advice::DontFork).map_err(io)?;
        Ok(Shared {
            map: ParentOnly::new(map),
            what: std::marker::PhantomData,
        })
    }

    /// The memory; `None` in a forked child.
    pub(crate) fn get(&self) -> Option<&T> {
        let map = self.map.get()?;
        let start: *const T = map.as_ptr().cast();
        debug_assert!(start.is_aligned());
        // SAFETY: the mapping is as long as a `T` and, because mappings begin
        // at a page boundary and `offset` is a multiple of the alignment,
        // aligned for it. `SharedMemory` says that any bytes are a `T` and
        // that others may change them. The mapping lives as long as `self`.
        // The file is allocated for real over the whole range, and is not cut
        // by anyone who keeps the protocol while we are attached.
        Some(unsafe { &*start })
    }
}
