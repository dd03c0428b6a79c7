//! How a program gets the extension: SQLite loads it, or the program registers it.
#![allow(unsafe_code)] // SQLite calls an extension with raw pointers.

use std::ffi::{c_char, c_int};
use std::fmt;
use std::panic::catch_unwind;

use crate::api::Api;
use crate::ffi::{self, ApiRoutines, Connection};
use crate::sql;
use crate::vfs;

/// Called by SQLite when it loads the library. Connections that are opened from then on are in
/// the queue; the one that loads it is not. The library stays loaded.
///
/// # Safety
/// SQLite calls it, with its table of functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_walqueue_init(
    connection: *mut Connection,
    _message: *mut *mut c_char,
    table: *const ApiRoutines,
) -> c_int {
    let register = || {
        // SAFETY: the caller's promise.
        let api = unsafe { Api::of_table(table) };
        api.map_or(ffi::ERROR, |api| {
            // SAFETY: SQLite does not load an extension into a copy that is unloaded later.
            let code = unsafe { vfs::register(api, false) };
            if let Some(shim) = vfs::shims().find(|shim| shim.api.key() == api.key()) {
                sql::define_in(shim, connection);
            }
            code
        })
    };
    let registered = catch_unwind(register).unwrap_or(ffi::ERROR);
    // SQLite unloads a library that fails, so one whose functions SQLite may call never does.
    match registered == ffi::OK || vfs::shims().next().is_some() {
        true => ffi::OK_LOAD_PERMANENTLY,
        false => registered,
    }
}

/// SQLite has refused to register the VFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegisterError {
    /// The result code of SQLite.
    pub code: c_int,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the VFS walqueue was not registered: SQLite answered with code {}; open a \
             connection first, to see whether SQLite works at all",
            self.code
        )
    }
}

impl std::error::Error for RegisterError {}

/// Puts the connections that this program opens from now on into the queue. For a program that
/// links SQLite itself, with any crate. A second call does nothing.
///
/// Call it before the first connection:
///
/// ```no_run
/// wal_queue::register()?;
/// // rusqlite: Connection::open("app.db")?
/// // sqlx:     SqlitePool::connect("sqlite:app.db").await?
/// // diesel:   SqliteConnection::establish("app.db")?
/// # Ok::<(), wal_queue::RegisterError>(())
/// ```
///
/// # Errors
/// [`RegisterError`] if SQLite does not start, or has no VFS.
// Inlined, so that only a program that calls it needs a linked SQLite.
#[inline]
pub fn register() -> Result<(), RegisterError> {
    register_linked(Api::linked())
}

pub(crate) fn register_linked(api: Api) -> Result<(), RegisterError> {
    // SAFETY: `register` passes the functions of the SQLite that the program is linked with.
    match catch_unwind(|| unsafe { vfs::register(api, true) }).unwrap_or(ffi::ERROR) {
        ffi::OK => Ok(()),
        code => Err(RegisterError { code }),
    }
}
