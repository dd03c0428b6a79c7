//! A file of the operating system.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, fs};

use nix::sys::statvfs::fstatvfs;
use nix::sys::uio::pwritev;

use super::descriptor::Descriptor;
use super::file_id::FileId;
use super::held_path::HeldPath;
use super::mapped::MappedFile;
use super::{File, FileSyncType, writeback};
use crate::error::{Error, Result};
use crate::sync::Unpoison;

/// How many buffers one vectored write takes (`IOV_MAX` on Linux).
const MAX_BUFFERS: usize = 1024;
/// How many bytes, unless one buffer has more. Linux may keep what one write
/// brings in one piece of its cache, and goes through all of that for each page
/// that is written there later.
const MAX_BYTES: usize = 512 << 10;

/// A file of the operating system.
pub struct OsFile {
    place: HeldPath,
    mapped: Option<MappedFile>,
    /// Shared with the mapping. Whichever of the two is dropped last gives it up.
    descriptor: Arc<Descriptor>,
    /// The file may be new, so its name is made durable by its first sync.
    name_is_new: AtomicBool,
    /// Set by a sync that failed, and locked by each one. The system tells a
    /// descriptor of lost pages once, and those who share it have to know.
    sync_failed: Mutex<bool>,
}

impl fmt::Debug for OsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsFile")
            .field("path", &self.path())
            .field("is_mapped", &self.mapped.is_some())
            .finish_non_exhaustive()
    }
}

impl OsFile {
    pub(super) fn wrap(place: HeldPath, descriptor: Descriptor) -> Result<Self> {
        let metadata = descriptor.file()?.metadata();
        let metadata = metadata.map_err(|e| Error::io(place.path(), "fstat", e));
        if !metadata?.is_file() {
            // No SQLite has locks on it.
            descriptor.allow_close(true);
            return Err(not_regular(place.path()));
        }
        Ok(OsFile {
            place,
            mapped: None,
            descriptor: Arc::new(descriptor),
            name_is_new: AtomicBool::new(false),
            sync_failed: Mutex::new(false),
        })
    }

    /// Notes whether the file may have been made by its open, so that its name is to be synced.
    pub(super) fn set_name_is_new(&self, is_new: bool) {
        self.name_is_new.store(is_new, Ordering::Relaxed);
    }

    /// Where the file was opened.
    pub fn held_path(&self) -> &HeldPath {
        &self.place
    }

    /// Makes the file's bytes available as memory, if `mapped`.
    #[must_use]
    pub fn with_mapping(mut self, mapped: bool) -> Self {
        let map = || MappedFile::new(self.path().to_owned(), self.descriptor.clone());
        self.mapped = mapped.then(map);
        self
    }

    /// The file, for calls that the [`File`] trait does not have.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`] in a child, where its number may belong to another file. So
    /// ask for it again for each call.
    pub fn as_file(&self) -> Result<&fs::File> {
        self.descriptor.file()
    }

    /// Which file it is.
    ///
    /// # Errors
    /// [`Error::Io`] if the system does not tell.
    pub fn id(&self) -> Result<FileId> {
        self.descriptor.id(self.path())
    }

    /// Says whether the descriptor of a file that carries locks may be closed when this is
    /// dropped, which is off unless it is set. That is safe only while no other SQLite in
    /// this process uses the file: closing drops the locks that it has there, and another
    /// process then writes beside it. While this library has another descriptor of the file
    /// in use, it is parked anyway.
    pub fn set_close_on_drop(&self, close: bool) {
        self.descriptor.allow_close(close);
    }

    fn sync_failed(&self) -> MutexGuard<'_, bool> {
        self.sync_failed.lock().unpoison()
    }

    /// Refuses if the file is not where it was opened any more.
    ///
    /// # Errors
    /// [`Error::Replaced`], or [`Error::Io`] if the system does not tell.
    pub fn check_in_place(&self) -> Result<()> {
        if self.is_still_at_its_path()? {
            return Ok(());
        }
        Err(Error::Replaced {
            path: self.path().to_owned(),
        })
    }

    /// True if the directory in which the file was opened has it under the same name. Whether
    /// the path still leads there is no matter: the process may have another root directory
    /// or other rights by now, and a directory above another name.
    ///
    /// # Errors
    /// [`Error::Io`] if the system does not tell.
    pub fn is_still_at_its_path(&self) -> Result<bool> {
        let file = self.as_file()?;
        match self.place.find() {
            Ok(found) => Ok(found.map(|found| found.id) == Some(self.id()?)),
            // Without the right to look into the directory, the number of names is what is
            // known.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let metadata = file.metadata();
                let metadata = metadata.map_err(|e| Error::io(self.path(), "fstat", e))?;
                Ok(metadata.nlink() > 0)
            }
            Err(e) => Err(Error::io(self.path(), "stat", e)),
        }
    }
}

impl File for OsFile {
    fn path(&self) -> &Path {
        self.place.path()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let file = self.as_file()?;
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(self.path(), "read", e)),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], mut offset: u64) -> Result<()> {
        let file = self.as_file()?;
        let mut rest = buffers;
        while !rest.is_empty() {
            let batch = at_once(rest);
            let at = i64::try_from(offset).map_err(|_| {
                Error::io(
                    self.path(),
                    "write",
                    io::Error::from(io::ErrorKind::FileTooLarge),
                )
            })?;
            match pwritev(file, &rest[..batch], at) {
                Ok(0) => {
                    let e = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(Error::io(self.path(), "write", e));
                }
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(Error::io(self.path(), "write", e.into())),
            }
        }
        Ok(())
    }

    fn start_writeback(&self, range: Range<u64>) -> Result<()> {
        writeback::start(self.as_file()?, range).map_err(|e| {
            // What is lost is told once, here instead of by a sync.
            *self.sync_failed() = true;
            Error::io(self.path(), "write to the disk", e)
        })
    }

    fn forget_failures(&self) {
        let Ok(file) = self.as_file() else { return };
        // Locked, so that nobody's own sync is the one that is told.
        let _failed = self.sync_failed();
        let _ = file.sync_data();
    }

    fn sync(&self, kind: FileSyncType) -> Result<()> {
        // Asked first: in a child the lock may be that of a thread which is not there.
        let file = self.as_file()?;
        let mut failed = self.sync_failed();
        let synced = match kind {
            _ if *failed => Err(io::Error::other("an earlier sync of it failed")),
            FileSyncType::Data => file.sync_data(),
            FileSyncType::Full => file.sync_all(),
        };
        *failed = synced.is_err();
        synced.map_err(|e| Error::io(self.path(), "sync", e))?;
        drop(failed);
        if self.name_is_new.load(Ordering::Relaxed) {
            self.place.sync_directory()?;
            self.name_is_new.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let metadata = self.as_file()?.metadata();
        Ok(metadata
            .map_err(|e| Error::io(self.path(), "fstat", e))?
            .len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let file = self.as_file()?;
        file.set_len(len)
            .map_err(|e| Error::io(self.path(), "truncate", e))?;
        if let Some(mapped) = &self.mapped {
            mapped.forget_len();
        }
        Ok(())
    }

    fn free_space(&self) -> Option<u64> {
        let told = fstatvfs(self.as_file().ok()?).ok()?;
        let free = told.blocks_available().saturating_mul(told.fragment_size());
        // Some file systems of user space tell nothing but zeros.
        (told.blocks() > 0).then_some(free)
    }

    fn mapped(&self) -> Option<&MappedFile> {
        self.mapped.as_ref()
    }
}

/// Makes the names in the directory of `path` durable: after a file was made
/// or removed there.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_directory(path: &Path) -> Result<()> {
    HeldPath::of(path)?.sync_directory()
}

/// How many of `buffers`, of which there are some, go into one write.
fn at_once(buffers: &[IoSlice<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |buffer: &&IoSlice<'_>| {
        bytes += buffer.len();
        bytes <= MAX_BYTES
    };
    let first = buffers.iter().take(MAX_BUFFERS);
    first.take_while(fits).count().max(1)
}

pub(super) fn not_regular(path: &Path) -> Error {
    Error::cannot_open(path, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_takes_so_many_bytes_or_buffers_or_one_that_is_larger() {
        let page = vec![0; 4096];
        let (page, byte) = (IoSlice::new(&page), IoSlice::new(&[0]));
        assert_eq!(at_once(&[page; 3]), 3);
        assert_eq!(at_once(&[page; 200]), MAX_BYTES / 4096);
        assert_eq!(at_once(&[byte; 2000]), MAX_BUFFERS);
        let large = vec![0; MAX_BYTES + 1];
        assert_eq!(at_once(&[IoSlice::new(&large), byte]), 1);
    }
}
