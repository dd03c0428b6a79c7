//! A file in memory: for tests, and for databases that are never kept.

use std::fmt;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{File, FileSyncType};
use crate::error::{Error, Result};
use crate::sync::Unpoison;

/// A file whose bytes are on the heap. It cannot be mapped, so its pages are
/// read into buffers.
pub struct MemoryFile {
    path: PathBuf,
    bytes: RwLock<Vec<u8>>,
    /// How long it may become.
    room: Option<u64>,
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile")
            .field("path", &self.path)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl MemoryFile {
    /// A file that is called `path` in messages and holds `bytes`.
    pub fn new(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        MemoryFile {
            path: path.into(),
            bytes: RwLock::new(bytes),
            room: None,
        }
    }

    /// Lets the file become `len` bytes long and no longer, as on a disk that is full
    /// then.
    #[must_use]
    pub fn with_room(mut self, len: u64) -> Self {
        self.room = Some(len);
        self
    }

    /// A copy of what the file holds.
    pub fn contents(&self) -> Vec<u8> {
        self.read().clone()
    }

    fn resize(&self, bytes: &mut Vec<u8>, len: usize) -> Result<()> {
        let more = len.saturating_sub(bytes.len());
        bytes
            .try_reserve(more)
            .map_err(|_| Error::io(&self.path, "write", ErrorKind::StorageFull.into()))?;
        bytes.resize(len, 0);
        Ok(())
    }

    /// No code panics while it holds the lock, so a poisoned lock still
    /// guards sound bytes.
    fn read(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unpoison()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unpoison()
    }
}

/// A length or offset as an index. Memory files exist only within the address
/// space, so what does not fit is beyond their end.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl File for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let bytes = self.read();
        let rest = bytes.get(index(offset)..).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
        let mut bytes = self.write();
        let mut at = index(offset);
        let room = self.room.map_or(usize::MAX, index);
        for buffer in buffers {
            let fits = room.max(bytes.len()).saturating_sub(at).min(buffer.len());
            let end = at.saturating_add(fits);
            if fits > 0 {
                let len = bytes.len().max(end);
                self.resize(&mut bytes, len)?;
                bytes[at..end].copy_from_slice(&buffer[..fits]);
            }
            if fits < buffer.len() {
                let full = ErrorKind::StorageFull.into();
                return Err(Error::io(&self.path, "write", full));
            }
            at = end;
        }
        Ok(())
    }

    fn sync(&self, _: FileSyncType) -> Result<()> {
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.read().len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.resize(&mut self.write(), index(len))
    }

    fn free_space(&self) -> Option<u64> {
        let len = self.read().len() as u64;
        self.room.map(|room| room.saturating_sub(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_beyond_the_address_space_is_an_error() {
        let file = MemoryFile::new("memory", vec![1]);
        for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
            let written = file.write_all_at(&mut [IoSlice::new(b"abc")], offset);
            assert!(matches!(written, Err(Error::Io { .. })), "{written:?}");
            let cut = file.set_len(offset);
            assert!(matches!(cut, Err(Error::Io { .. })), "{cut:?}");
            assert_eq!(file.read_at(&mut [0; 3], offset).unwrap(), 0);
        }
        assert_eq!(file.contents(), [1]);
    }

    #[test]
    fn a_memory_file_reads_back_what_was_written() {
        let file = MemoryFile::new("memory", Vec::new());
        file.write_all_at(&mut [IoSlice::new(b"abc"), IoSlice::new(b"de")], 2)
            .unwrap();
        assert_eq!(file.contents(), b"\0\0abcde");
        let mut buffer = [9; 4];
        assert_eq!(file.read_at(&mut buffer, 5).unwrap(), 2);
        assert_eq!(buffer, *b"de\x09\x09");
        file.set_len(3).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        assert_eq!(file.read_at(&mut buffer, 100).unwrap(), 0);
    }

    #[test]
    fn a_memory_file_takes_what_it_has_room_for() {
        let file = MemoryFile::new("memory", vec![1; 4]).with_room(6);
        assert_eq!(file.free_space(), Some(2));
        let full = file.write_all_at(&mut [IoSlice::new(b"ab"), IoSlice::new(b"cd")], 3);
        assert!(full.unwrap_err().is_storage_full());
        assert_eq!(file.contents(), b"\x01\x01\x01abc");
        assert_eq!(file.free_space(), Some(0));
        file.write_all_at(&mut [IoSlice::new(b"xy")], 0).unwrap();
        file.set_len(1).unwrap();
        assert_eq!(file.free_space(), Some(5));
        let beyond = file.write_all_at(&mut [IoSlice::new(b"z")], 9);
        assert!(beyond.unwrap_err().is_storage_full());
        assert_eq!(file.contents(), b"x");
    }
}
