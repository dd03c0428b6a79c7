//! The main database file, reached through the engine's own handle.
//!
//! The engine holds its locks by that handle, and POSIX drops the locks of a
//! process when it closes any descriptor of the file. So the file is never
//! opened here. What its VFS answers reaches the engine as it is: see
//! [`crate::code::answered`].
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use libsql_ffi as ffi;
use wal_core::storage::{File, FileId, FileSyncType, HeldPath};
use wal_core::{Error, Result};

use crate::code;

/// The engine's handle of the main file. It lives as long as the connection's
/// log does.
#[derive(Debug)]
pub(crate) struct EngineFile {
    file: NonNull<ffi::sqlite3_file>,
    path: PathBuf,
    /// Where the file is, and which it is; empty until it is looked for.
    place: OnceLock<(HeldPath, FileId)>,
    /// How the file is synced (`SQLITE_SYNC_NORMAL`, `SQLITE_SYNC_FULL`).
    sync_flags: AtomicI32,
    /// The connection that checkpoints; null between checkpoints.
    checkpoints: AtomicPtr<ffi::sqlite3>,
    /// Whether EXCLUSIVE was asked for here, and taken.
    is_owned: AtomicBool,
}

// SAFETY: the engine calls the methods of a log with the mutex of its
// connection held, and the file is used within such calls only.
unsafe impl Send for EngineFile {}
// SAFETY: as above; no two threads use it at the same time.
unsafe impl Sync for EngineFile {}

/// Calls a method of the file, which gives a result code.
macro_rules! call {
    ($self:ident, $method:ident $(, $argument:expr)*) => {{
        match $self.methods().and_then(|methods| methods.$method) {
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
        Arc::new(EngineFile {
            file,
            path,
            place: OnceLock::new(),
            sync_flags: AtomicI32::new(ffi::SQLITE_SYNC_NORMAL),
            checkpoints: AtomicPtr::new(ptr::null_mut()),
            is_owned: AtomicBool::new(false),
        })
    }

    fn methods(&self) -> Option<&ffi::sqlite3_io_methods> {
        // SAFETY: the handle is open.
        let file = unsafe { self.file.as_ref() };
        // SAFETY: so its methods are there, and stay.
        unsafe { file.pMethods.as_ref() }
    }

    /// Turns SHARED into EXCLUSIVE. What was taken by then stays after a
    /// failure.
    pub(crate) fn lock_exclusive(&self) -> Result<()> {
        let code = call!(self, xLock, ffi::SQLITE_LOCK_EXCLUSIVE);
        self.done("lock", code)?;
        self.is_owned.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// True if [`EngineFile::lock_exclusive`] has succeeded.
    pub(crate) fn is_owned(&self) -> bool {
        self.is_owned.load(Ordering::Relaxed)
    }

    /// Goes back to SHARED.
    #[cfg(feature = "inproc")]
    pub(crate) fn lock_shared_only(&self) {
        self.is_owned.store(false, Ordering::Relaxed);
        // Nothing depends on it: the pager unlocks the file in the end.
        call!(self, xUnlock, ffi::SQLITE_LOCK_SHARED);
    }

    /// True if the log is to stay behind the last closer.
    pub(crate) fn wants_persistent_log(&self) -> bool {
        let answer = self.control(ffi::SQLITE_FCNTL_PERSIST_WAL, -1);
        matches!(answer, Ok(Some(1)))
    }

    /// Whether the file is where it was opened, as its VFS knows; `None` if
    /// the VFS does not say.
    pub(crate) fn is_in_place(&self) -> Result<Option<bool>> {
        let has_moved = self.control(ffi::SQLITE_FCNTL_HAS_MOVED, 0)?;
        Ok(has_moved.map(|has_moved| has_moved == 0))
    }

    /// Looks for the file at its path, and holds its directory open. What is found there
    /// counts only if the VFS says afterwards that the file is in place.
    pub(crate) fn find_place(&self) -> Result<()> {
        let place = HeldPath::of(&self.path)?;
        let found = place.find().map_err(|e| Error::io(&self.path, "stat", e))?;
        if let Some(found) = found {
            let _ = self.place.set((place, found.id));
        }
        Ok(())
    }

    /// Which file it is.
    pub(crate) fn id(&self) -> Result<FileId> {
        let found = self.place.get().map(|(_, id)| *id);
        found.ok_or_else(|| Error::cannot_open(&self.path, "it is not at its path"))
    }

    /// Where the file is: its name in a directory that is held open.
    pub(crate) fn held_path(&self) -> Result<&HeldPath> {
        let found = self.place.get().map(|(place, _)| place);
        found.ok_or_else(|| Error::cannot_open(&self.path, "it is not at its path"))
    }

    /// Refuses if the file was removed or replaced. The VFS looks at the path, which leads
    /// elsewhere once the process has another root directory or other rights.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        match self.is_in_place()? {
            None | Some(true) => Ok(()),
            Some(false) if self.is_in_its_directory()? => Ok(()),
            Some(false) => Err(Error::Replaced {
                path: self.path.clone(),
            }),
        }
    }

    /// True if the directory that is held open has the file under its name.
    fn is_in_its_directory(&self) -> Result<bool> {
        let Some((place, id)) = self.place.get() else {
            return Ok(false);
        };
        match place.find() {
            Ok(found) => Ok(found.is_some_and(|found| found.id == *id)),
            // Nothing says that it is not.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(true),
            Err(e) => Err(Error::io(&self.path, "stat", e)),
        }
    }

    /// True if the VFS of the file has shared memory for the engine's own log.
    pub(crate) fn has_shared_memory(&self) -> bool {
        let methods = self.methods();
        methods.is_some_and(|methods| methods.iVersion >= 2 && methods.xShmMap.is_some())
    }

    /// True if a power failure damages no bytes but those that are being written.
    pub(crate) fn is_powersafe(&self) -> bool {
        call!(self, xDeviceCharacteristics) & ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE != 0
    }

    /// Sets how the file is synced.
    pub(crate) fn set_sync_flags(&self, flags: c_int) {
        self.sync_flags.store(flags, Ordering::Relaxed);
    }

    /// Runs `checkpoint`, whose writes of the file heed that `db` is
    /// interrupted.
    ///
    /// # Safety
    /// `db` is open, and stays so.
    pub(crate) unsafe fn while_interruptible<T>(
        &self,
        db: *mut ffi::sqlite3,
        checkpoint: impl FnOnce() -> T,
    ) -> T {
        /// Also if `checkpoint` panics.
        struct Reset<'f>(&'f AtomicPtr<ffi::sqlite3>);
        impl Drop for Reset<'_> {
            fn drop(&mut self) {
                self.0.store(ptr::null_mut(), Ordering::Relaxed);
            }
        }
        self.checkpoints.store(db, Ordering::Relaxed);
        let _reset = Reset(&self.checkpoints);
        checkpoint()
    }

    fn check_interrupted(&self) -> Result<()> {
        let db = self.checkpoints.load(Ordering::Relaxed);
        // SAFETY: the connection is open for as long as it is stored.
        match !db.is_null() && unsafe { ffi::sqlite3_is_interrupted(db) } != 0 {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// The answer to `operation`; `None` if the VFS does not know it.
    fn control(&self, operation: c_int, value: c_int) -> Result<Option<c_int>> {
        let mut value = value;
        let argument: *mut c_int = &raw mut value;
        match call!(self, xFileControl, operation, argument.cast::<c_void>()) {
            ffi::SQLITE_OK => Ok(Some(value)),
            ffi::SQLITE_NOTFOUND => Ok(None),
            code => Err(self.failed("file control", code)),
        }
    }

    fn done(&self, operation: &'static str, code: c_int) -> Result<()> {
        match code {
            ffi::SQLITE_OK => Ok(()),
            code => Err(self.failed(operation, code)),
        }
    }

    /// The error for an `operation` that the VFS has answered with `code`.
    pub(crate) fn failed(&self, operation: &'static str, code: c_int) -> Error {
        Error::io(&self.path, operation, code::answered(code))
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
            // A checkpoint writes a page in each.
            self.check_interrupted()?;
            let len = c_int::try_from(buffer.len()).map_err(|_| self.too_large("write"))?;
            let code = call!(self, xWrite, buffer.as_ptr().cast(), len, at);
            self.done("write", code)?;
            at += i64::from(len);
        }
        Ok(())
    }

    fn sync(&self, kind: FileSyncType) -> Result<()> {
        let flags = match kind {
            FileSyncType::Data => self.sync_flags.load(Ordering::Relaxed),
            FileSyncType::Full => ffi::SQLITE_SYNC_FULL,
        };
        let code = call!(self, xSync, flags);
        self.done("sync", code)
    }

    fn hint_len(&self, len: u64) {
        let Ok(mut len) = i64::try_from(len) else {
            return;
        };
        let argument: *mut i64 = &raw mut len;
        // What cannot be had now is missed by the write that needs it.
        call!(
            self,
            xFileControl,
            ffi::SQLITE_FCNTL_SIZE_HINT,
            argument.cast::<c_void>()
        );
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
    use super::{Arc, EngineFile, HeldPath, Result};
    use crate::code;

    /// The engine's locks, for who attaches beside them.
    #[derive(Debug)]
    pub(crate) struct Owner(pub(crate) Arc<EngineFile>);

    impl wal_shm::DatabaseOwner for Owner {
        fn try_lock_exclusive(&self) -> Result<bool> {
            match self.0.lock_exclusive() {
                Ok(()) => Ok(true),
                Err(error) if code::is_busy(&error) => Ok(false),
                Err(error) => Err(error),
            }
        }

        fn held_path(&self) -> Option<HeldPath> {
            self.0.held_path().ok().cloned()
        }
    }
}
#[cfg(feature = "shm")]
pub(crate) use owner::Owner;
