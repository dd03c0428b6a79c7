//! The engine's own log, for databases beside which ours may not lie.
//!
//! The engine calls the methods that a log was opened with, but closes every log
//! by the manager of its connection: see [`crate::handle::is_ours`].
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_longlong, c_uchar};

use libsql_ffi as ffi;
use wal_core::storage::File;

use crate::code;
use crate::engine_file::EngineFile;

/// What opening a log takes, as C gives it.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) vfs: *mut ffi::sqlite3_vfs,
    pub(crate) file: *mut ffi::sqlite3_file,
    pub(crate) no_shm: bool,
    pub(crate) limit: c_longlong,
    pub(crate) name: *const c_char,
    pub(crate) out: *mut ffi::libsql_wal,
}

fn manager() -> &'static ffi::libsql_wal_manager {
    // SAFETY: a constant of the engine.
    unsafe { &ffi::sqlite3_wal_manager }
}

/// Opens the engine's own log.
///
/// # Safety
/// The arguments are those with which the engine opens a log.
pub(crate) unsafe fn open(request: Request) -> c_int {
    let Some(open) = manager().xOpen else {
        return ffi::SQLITE_MISUSE;
    };
    // SAFETY: as the caller says.
    unsafe {
        open(
            manager().pData,
            request.vfs,
            request.file,
            c_int::from(request.no_shm),
            request.limit,
            request.name,
            request.out,
        )
    }
}

/// The same for one connection that owns the database, as `locking_mode=EXCLUSIVE`.
///
/// # Safety
/// As for [`open`]; `file` is what the request has.
#[cfg(feature = "inproc")]
pub(crate) unsafe fn open_alone(request: Request, file: &EngineFile) -> c_int {
    let no_shm = Request {
        no_shm: true,
        ..request
    };
    let opened = file.lock_exclusive().and_then(|()| {
        // SAFETY: as the caller says; EXCLUSIVE is held.
        match unsafe { open(no_shm) } {
            ffi::SQLITE_OK => Ok(()),
            code => Err(file.failed("open", code)),
        }
    });
    let opened = opened.inspect_err(|_| file.lock_shared_only());
    opened.map_or_else(|error| code::told(&error), |()| ffi::SQLITE_OK)
}

/// Notes in the engine's log of errors that `file` has the engine's own log.
pub(crate) fn note(file: &EngineFile) {
    let message = format!(
        "{}: not a file of the VFS \"unix\" or of one that passes all on to it; libSQL's own \
         log is used",
        file.path().display()
    );
    if let Ok(message) = CString::new(message) {
        code::tell(ffi::SQLITE_NOTICE, &message);
    }
}

/// Closes a log that [`open`] has opened.
///
/// # Safety
/// The arguments are those with which the engine closes it.
pub(crate) unsafe fn close(
    wal: *mut ffi::wal_impl,
    db: *mut ffi::sqlite3,
    sync_flags: c_int,
    len: c_int,
    buffer: *mut c_uchar,
) -> c_int {
    match manager().xClose {
        // SAFETY: as the caller says.
        Some(close) => unsafe { close(manager().pData, wal, db, sync_flags, len, buffer) },
        None => ffi::SQLITE_MISUSE,
    }
}
