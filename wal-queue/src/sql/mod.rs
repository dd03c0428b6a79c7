//! SQL functions and tables of the extension.
//!
//! | file | what it owns |
//! |---|---|
//! | `wait` | the function `wal_wait` |
//! | `table` | a table whose rows are computed when it is read |
//! | `tables` | the tables `wal_queue`, `wal_info` and `wal_locks` |
//!
//! They belong to the database `main` of the connection that calls them, and look at the
//! wal-index through the connection's own file: closing another descriptor of it would drop the
//! locks of the connection.
#![allow(unsafe_code)] // SQLite is called with raw pointers.

mod table;
mod tables;
mod wait;

use std::ffi::{c_char, c_int, c_void};
use std::panic::catch_unwind;
use std::ptr::null_mut;
use std::sync::Arc;

use crate::api::Api;
use crate::ffi::{self, ApiRoutines, Connection, File};
use crate::main_file::MainFile;
use crate::vfs::{Shim, shims};

/// Defines the functions and tables in each connection that is opened from now on.
pub(crate) fn define_in_new_connections(api: &Api) -> c_int {
    // SAFETY: the entry point has the type that SQLite calls, and stays loaded.
    unsafe { (api.auto_extension)(define) }
}

/// Defines the functions and tables in `connection`, which SQLite opens just now.
unsafe extern "C" fn define(
    connection: *mut Connection,
    _message: *mut *mut c_char,
    table: *const ApiRoutines,
) -> c_int {
    let defining = catch_unwind(|| {
        // SAFETY: SQLite passes its table, or null if it is built without extensions.
        let api = (!table.is_null())
            .then(|| unsafe { Api::of_table(table) })
            .flatten();
        let key = api.map(|api| api.key());
        // Without a table it is the SQLite that the program is linked with.
        let is_it = |shim: &&'static Shim| key.map_or(shim.is_linked, |key| shim.api.key() == key);
        if let Some(shim) = shims().find(is_it) {
            define_in(shim, connection);
        }
    });
    // A connection without them is opened, too.
    drop(defining);
    ffi::OK
}

/// Defines the functions and tables in `connection`, as far as SQLite lets them be defined: it
/// refuses what a running statement uses.
pub(crate) fn define_in(shim: &'static Shim, connection: *mut Connection) {
    wait::define(shim, connection);
    tables::define(shim, connection);
}

/// The file of the database `main` of `connection`, with its wal-index mapped; else why not.
fn main_file(shim: &Shim, connection: *mut Connection) -> Result<Arc<MainFile>, String> {
    let mut file: *mut File = null_mut();
    // SAFETY: SQLite passes the connection to the function or table that is called; the
    // argument of this operation is a pointer to a pointer.
    let code = unsafe {
        (shim.api.file_control)(
            connection,
            c"main".as_ptr(),
            ffi::FCNTL_FILE_POINTER,
            (&raw mut file).cast::<c_void>(),
        )
    };
    if code != ffi::OK || file.is_null() {
        return Err("the database has no file".to_owned());
    }
    // SAFETY: the file is that of the connection.
    if unsafe { (*file).methods }.is_null() {
        return Err("the database has no file".to_owned());
    }
    let main = shim.methods.main_of(file).ok_or(
        "the connection was opened before the extension was loaded, or by another VFS; open it \
         again"
            .to_owned(),
    )?;
    if !main.has_index() {
        // Reads the database, which maps the wal-index if there is a log.
        // SAFETY: the connection is the caller's; a statement may run within a function.
        let _code = unsafe {
            (shim.api.exec)(
                connection,
                c"PRAGMA schema_version".as_ptr(),
                None,
                null_mut(),
                null_mut(),
            )
        };
    }
    match main.has_index() {
        true => Ok(main),
        false => Err("the database is not in WAL mode; set PRAGMA journal_mode=WAL".to_owned()),
    }
}

/// A string for SQLite, which frees it; null without memory.
fn string(shim: &Shim, text: &str) -> *mut c_char {
    // SAFETY: it has no conditions.
    let copy = unsafe { (shim.api.malloc)(text.len() as u64 + 1) }.cast::<u8>();
    if copy.is_null() {
        return null_mut();
    }
    // SAFETY: the memory was allocated just now, one byte longer than the text.
    unsafe { copy.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    // SAFETY: as above.
    let end = unsafe { copy.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    copy.cast()
}
