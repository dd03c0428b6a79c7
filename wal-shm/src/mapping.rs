//! A piece of a file as memory that processes share.
#![allow(unsafe_code)] // Giving mapped memory a type is unsafe in Rust.

use std::{fs, io};

use memmap2::{MmapOptions, MmapRaw};
use wal_core::fork::ParentOnly;
use wal_core::shared_memory::{LoadOnlyMemory, SharedMemory};
use wal_core::storage::{File, OsFile};
use wal_core::{Error, Result};

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

    /// Makes sure that the first `len` bytes, which were mapped to be written, have blocks on
    /// the disk, as far as the system can do that: else a store to them would be a signal
    /// where the disk is full. They are not changed, so other processes may store to them at
    /// the same time.
    ///
    /// # Errors
    /// [`Error::Io`], of the kind `StorageFull`, if the disk is full.
    #[cfg(target_os = "linux")]
    pub(crate) fn make_room(&self, file: &OsFile, len: usize) -> Result<()> {
        use nix::errno::Errno;
        let map = self.map.get().ok_or(Error::UsedAfterFork)?;
        // The pages are faulted in as by a store.
        match map.advise_range(memmap2::Advice::PopulateWrite, 0, len) {
            // A store would have been a signal. The file is long enough, so it has a hole.
            Err(e) if e.raw_os_error() == Some(Errno::EFAULT as i32) => {
                Err(Error::io(file.path(), "allocate", Errno::ENOSPC.into()))
            }
            // Before Linux 5.14, where a hole that a peer has left cannot be filled.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Elsewhere the system has no such call.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn make_room(&self, _file: &OsFile, _len: usize) -> Result<()> {
        Ok(())
    }

    /// As [`Shared::map`], for a `T` to which nothing is stored: a store would
    /// be a signal.
    pub(crate) fn map_read_only(file: &OsFile, offset: u64) -> Result<Self>
    where
        T: LoadOnlyMemory,
    {
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
        // Loom's atomics are not what is in the file.
        if cfg!(loom) || !offset.is_multiple_of(align_of::<T>() as u64) {
            return Err(io(io::ErrorKind::InvalidInput.into()));
        }
        let mut options = MmapOptions::new();
        options.offset(offset).len(size_of::<T>());
        let map = map(&options, file.as_file()?).map_err(io)?;
        // A child could not use the locks that go with this memory.
        #[cfg(target_os = "linux")]
        map.advise(memmap2::Advice::DontFork).map_err(io)?;
        Ok(Shared {
            map: ParentOnly::new(map),
            what: std::marker::PhantomData,
        })
    }

    /// The memory; `None` in a forked child.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        let map = self.map.get()?;
        let start: *const T = map.as_ptr().cast();
        // SAFETY: the mapping is as long as a `T`. It is aligned for one, because a page
        // boundary is, from which `offset` is a multiple of the alignment away
        // (`map_with`). `SharedMemory` says that any bytes are a `T` and that others may
        // change them; `LoadOnlyMemory`, that a `T` is never stored to if it is mapped
        // for reading alone. The mapping lives as long as `self`. Should another program
        // cut the file, an access is a signal, and no value.
        Some(unsafe { &*start })
    }
}
