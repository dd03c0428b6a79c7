//! The log of a connection with group commit: its writes are seen, and its syncs are those of
//! [`crate::group_commit`].
//!
//! # Protocol
//! As for a database file ([`crate::methods`]): the log is opened by the VFS beneath, and has a
//! copy of its methods in which three are replaced. SQLite opens the log of a connection after
//! its database file, and closes it before.
#![allow(unsafe_code)] // SQLite calls methods with raw pointers, and is called with them.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;

use crate::base_file::BaseFile;
use crate::ffi::{self, File, IoMethods};
use crate::main_file::MainFile;
use crate::methods::{caught, state_place, table_of};

/// An open log.
pub(crate) struct LogFile {
    base: BaseFile,
    main: Arc<MainFile>,
}

impl LogFile {
    /// The log of the connection that has `main`.
    pub(crate) fn new(base: BaseFile, main: Arc<MainFile>) -> Box<Self> {
        main.set_log(Some(base));
        Box::new(LogFile { base, main })
    }
}

/// The methods of a log whose VFS has `original`.
pub(crate) fn replaced(original: IoMethods) -> IoMethods {
    IoMethods {
        close,
        write,
        sync,
        ..original
    }
}

/// The log `file`. It stays until SQLite closes it, when no other call is in progress.
fn log_of<'f>(file: *mut File) -> &'f LogFile {
    // SAFETY: a log whose methods are replaced has the pointer to its state there.
    let state = unsafe { *state_place::<LogFile>(file) };
    // SAFETY: the pointer is that of a box until `close`.
    unsafe { &*state }
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    let table = table_of(file);
    // SAFETY: as in `log_of`.
    let state = unsafe { *state_place::<LogFile>(file) };
    // SAFETY: the pointer is that of a box, and this call takes it.
    let log = unsafe { Box::from_raw(state.cast_mut()) };
    let base = log.base;
    let closed = catch_unwind(AssertUnwindSafe(|| {
        log.main.set_log(None);
        drop(log);
    }));
    // What a panic leaves of the state is not used again.
    drop(closed);
    // SAFETY: the file is open, and SQLite has no other call of it in progress.
    unsafe { (*file).methods = table.base };
    base.close()
}

unsafe extern "C" fn write(
    file: *mut File,
    bytes: *const c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    let log = log_of(file);
    let see = || {
        let len = usize::try_from(len).unwrap_or(0);
        // SAFETY: SQLite passes so many bytes.
        let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), len) };
        log.main.write_log(bytes, offset)
    };
    // After a panic the header of a new generation may not be recorded, and the sync behind it
    // could be postponed: nothing is written then.
    let code = caught(see, || ffi::IOERR_WRITE);
    if code != ffi::OK {
        return code;
    }
    log.base.write(bytes, len, offset)
}

unsafe extern "C" fn sync(file: *mut File, flags: c_int) -> c_int {
    let log = log_of(file);
    caught(
        || log.main.sync_log(log.base, flags),
        || log.base.sync(flags),
    )
}
