//! The main database file, reached through the engine's own handle.
//!
//! The engine holds its locks by that handle, and POSIX drops the locks of a
//! process when it closes any descriptor of the file. So the file is never
//! opened here.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use libsql_ffi as ffi;
use wal_core::io::{File, FileSyncType};
use wal_core::{Error, Result};

/// The engine's handle of the main file. It lives as long as the connection's
/// log does.
#[derive(Debug)]
pub(crate) struct EngineFile {
    file: NonNull<ffi::sqlite3_file>,
    path: PathBuf,
}

// SAFETY: the engine calls the methods of a log with the mutex of its
// connection held, and the file is used within such calls only.
unsafe impl Send for EngineFile {}
// SAFETY: as above; no two threads use it at the same time.
unsafe impl Sync for EngineFile {}

/// Calls a method of the file, which gives a result code.
macro_rules! call {
    ($self:ident, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the handle is open, so its methods are there, and stay.
        let methods = unsafe { (*$self.file.as_ptr()).pMethods.as_ref() };
        match methods.and_then(|methods| methods.$method) {
            // SAFETY: the arguments are those that the method asks for.
            Some(method) => unsafe { method($self.file.as_ptr() $(, $argument)*) },
            None => ffi::SQLITE_MISUSE,
        }
    }};
}

impl EngineFile {
    /// The file behind `file`, at `path`.
    ///
    /// # Safety
    /// `file` is open until the last clone of what this gives is dropped, and
    /// used by one thread at a time.
    pub(crate) unsafe fn new(file: NonNull<ffi::sqlite3_file>, path: PathBuf) -> Arc<Self> {
        Arc::new(EngineFile { file, path })
    }

    /// Turns SHARED into EXCLUSIVE; false if others have the file open. What
    /// it has taken by then stays.
    pub(crate) fn lock_exclusive(&self) -> Result<bool> {
        match call!(self, xLock, ffi::SQLITE_LOCK_EXCLUSIVE) {
            ffi::SQLITE_OK => Ok(true),
            code if code & 0xff == ffi::SQLITE_BUSY => Ok(false),
            code => Err(self.failed("lock", code)),
        }
    }

    /// Goes back to SHARED.
    #[cfg(feature = "inproc")]
    pub(crate) fn lock_shared_only(&self) -> Result<()> {
        let code = call!(self, xUnlock, ffi::SQLITE_LOCK_SHARED);
        self.done("unlock", code)
    }

    /// True if the log is to stay behind the last closer.
    pub(crate) fn wants_persistent_log(&self) -> bool {
        self.control(ffi::SQLITE_FCNTL_PERSIST_WAL, -1) == Some(1)
    }

    /// Refuses if the file was removed or replaced.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        match self.control(ffi::SQLITE_FCNTL_HAS_MOVED, 0) {
            None | Some(0) => Ok(()),
            Some(_) => Err(Error::Replaced {
                path: self.path.clone(),
            }),
        }
    }

    fn control(&self, operation: c_int, value: c_int) -> Option<c_int> {
        let mut value = value;
        let argument: *mut c_int = &raw mut value;
        let code = call!(self, xFileControl, operation, argument.cast::<c_void>());
        (code == ffi::SQLITE_OK).then_some(value)
    }

    fn done(&self, operation: &'static str, code: c_int) -> Result<()> {
        match code {
            ffi::SQLITE_OK => Ok(()),
            code => Err(self.failed(operation, code)),
        }
    }

    fn failed(&self, operation: &'static str, code: c_int) -> Error {
        let source = match code & 0xff {
            ffi::SQLITE_FULL => io::ErrorKind::StorageFull.into(),
            ffi::SQLITE_NOMEM => io::ErrorKind::OutOfMemory.into(),
            _ => io::Error::other(ffi::code_to_str(code)),
        };
        Error::io(&self.path, operation, source)
    }

    fn too_large(&self, operation: &'static str) -> Error {
        Error::io(&self.path, operation, io::ErrorKind::FileTooLarge.into())
    }
}

impl File for EngineFile {
    fn path(&self) -> &Path {
        &self.path
    }

    /// The engine fills with zeros what is beyond the end, and does not say
    /// how much that is.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let at = i64::try_from(offset).map_err(|_| self.too_large("read"))?;
        let len = c_int::try_from(buffer.len()).map_err(|_| self.too_large("read"))?;
        match call!(self, xRead, buffer.as_mut_ptr().cast(), len, at) {
            ffi::SQLITE_OK => Ok(buffer.len()),
            ffi::SQLITE_IOERR_SHORT_READ => {
                let there = self.len()?.saturating_sub(offset);
                Ok(usize::try_from(there).map_or(buffer.len(), |there| there.min(buffer.len())))
            }
            code => Err(self.failed("read", code)),
        }
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
        let mut at = i64::try_from(offset).map_err(|_| self.too_large("write"))?;
        for buffer in buffers.iter() {
            let len = c_int::try_from(buffer.len()).map_err(|_| self.too_large("write"))?;
            let code = call!(self, xWrite, buffer.as_ptr().cast(), len, at);
            self.done("write", code)?;
            at += i64::from(len);
        }
        Ok(())
    }

    fn sync(&self, kind: FileSyncType) -> Result<()> {
        let flags = match kind {
            FileSyncType::Data => ffi::SQLITE_SYNC_NORMAL,
            FileSyncType::Full => ffi::SQLITE_SYNC_FULL,
        };
        let code = call!(self, xSync, flags);
        self.done("sync", code)
    }

    fn len(&self) -> Result<u64> {
        let mut len = 0;
        let code = call!(self, xFileSize, &raw mut len);
        self.done("fstat", code)?;
        u64::try_from(len).map_err(|_| self.too_large("fstat"))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = i64::try_from(len).map_err(|_| self.too_large("truncate"))?;
        let code = call!(self, xTruncate, len);
        self.done("truncate", code)
    }
}

#[cfg(feature = "shm")]
mod owner {
    use super::{Arc, EngineFile, Result};

    /// The engine's locks, for who attaches beside them.
    #[derive(Debug)]
    pub(crate) struct Owner(pub(crate) Arc<EngineFile>);

    impl wal_shm::DatabaseOwner for Owner {
        fn try_lock_exclusive(&self) -> Result<bool> {
            self.0.lock_exclusive()
        }
    }
}
#[cfg(feature = "shm")]
pub(crate) use owner::Owner;
