//! A database file as the VFS beneath has it.
#![allow(unsafe_code)] // Its methods take the raw pointer that SQLite passes.

use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use crate::ffi::{self, File, IoMethods};

/// An open file and the methods of the VFS beneath.
#[derive(Clone, Copy)]
pub(crate) struct BaseFile {
    file: *mut File,
    methods: &'static IoMethods,
}

// SAFETY: SQLite passes a file from thread to thread; the VFS beneath allows that. That no
// method is called after `close` is the promise of `new`.
unsafe impl Send for BaseFile {}
// SAFETY: as above. SQLite calls the methods of a file one at a time, and this crate calls besides
// only `shm_lock`, from other threads, and `sync`, `file_control` within a call of SQLite. The VFS
// of SQLite for Unix locks a mutex of the shared memory within `shm_lock`. What this crate calls by
// itself excludes other lock calls of the file by the mutex of `MainFile`, unless a method has
// panicked, after which the VFS beneath alone is called.
unsafe impl Sync for BaseFile {}

impl BaseFile {
    /// # Safety
    /// `file` is open by `methods`. It stays open until the last call of the result.
    pub(crate) unsafe fn new(file: *mut File, methods: &'static IoMethods) -> Self {
        BaseFile { file, methods }
    }

    pub(crate) fn close(&self) -> c_int {
        // SAFETY: the promise of `new`.
        unsafe { (self.methods.close)(self.file) }
    }

    pub(crate) fn write(&self, bytes: *const c_void, len: c_int, offset: i64) -> c_int {
        // SAFETY: the promise of `new`; SQLite has passed the arguments.
        unsafe { (self.methods.write)(self.file, bytes, len, offset) }
    }

    pub(crate) fn sync(&self, flags: c_int) -> c_int {
        // SAFETY: the promise of `new`.
        unsafe { (self.methods.sync)(self.file, flags) }
    }

    pub(crate) fn lock(&self, level: c_int) -> c_int {
        // SAFETY: the promise of `new`.
        unsafe { (self.methods.lock)(self.file, level) }
    }

    pub(crate) fn unlock(&self, level: c_int) -> c_int {
        // SAFETY: the promise of `new`.
        unsafe { (self.methods.unlock)(self.file, level) }
    }

    pub(crate) fn file_control(&self, operation: c_int, argument: *mut c_void) -> c_int {
        // SAFETY: the promise of `new`; SQLite has passed the argument for this operation.
        unsafe { (self.methods.file_control)(self.file, operation, argument) }
    }

    pub(crate) fn shm_map(
        &self,
        region: c_int,
        len: c_int,
        extend: c_int,
        out: *mut *mut c_void,
    ) -> c_int {
        match self.methods.shm_map {
            // SAFETY: the promise of `new`; SQLite has passed the arguments.
            Some(map) => unsafe { map(self.file, region, len, extend, out) },
            None => ffi::ERROR,
        }
    }

    pub(crate) fn shm_lock(&self, first: c_int, count: c_int, flags: c_int) -> c_int {
        match self.methods.shm_lock {
            // SAFETY: the promise of `new`.
            Some(lock) => unsafe { lock(self.file, first, count, flags) },
            None => ffi::ERROR,
        }
    }

    pub(crate) fn shm_unmap(&self, delete: c_int) -> c_int {
        match self.methods.shm_unmap {
            // SAFETY: the promise of `new`.
            Some(unmap) => unsafe { unmap(self.file, delete) },
            None => ffi::ERROR,
        }
    }
}

impl IoMethods {
    /// A copy of the methods at `table`. What a table of an earlier version has not is `None` in
    /// it.
    ///
    /// # Safety
    /// There are methods of the version that the table says.
    pub(crate) unsafe fn copy_of(table: *const IoMethods) -> Self {
        // SAFETY: each table begins with its version.
        let version = unsafe { (*table).version };
        let len = match version {
            ..=1 => offset_of!(IoMethods, shm_map),
            2 => offset_of!(IoMethods, fetch),
            _ => size_of::<IoMethods>(),
        };
        let mut copy = MaybeUninit::<IoMethods>::zeroed();
        // SAFETY: a table of this version is as long as that.
        unsafe { ptr::copy_nonoverlapping(table.cast::<u8>(), copy.as_mut_ptr().cast(), len) };
        // SAFETY: a table of version 1 and later has all methods that are not optional here, and
        // zeros are the `None` of the others.
        let mut copy = unsafe { copy.assume_init() };
        copy.version = version.min(3);
        copy
    }

    /// True if these are methods for the shared memory of a log.
    pub(crate) fn has_shared_memory(&self) -> bool {
        self.shm_map.is_some() && self.shm_lock.is_some() && self.shm_unmap.is_some()
    }
}
