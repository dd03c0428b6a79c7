//! The SQLite of the system, loaded into this process beside the one that is linked in.
#![allow(unsafe_code)] // It is C, found by name.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use nix::libc;

const SQLITE_OK: c_int = 0;

/// `struct sqlite3`, of which only C knows the fields.
#[repr(C)]
struct Sqlite3 {
    _opaque: [u8; 0],
}

type Open = unsafe extern "C" fn(*const c_char, *mut *mut Sqlite3) -> c_int;
type Close = unsafe extern "C" fn(*mut Sqlite3) -> c_int;
type BusyTimeout = unsafe extern "C" fn(*mut Sqlite3, c_int) -> c_int;
type Message = unsafe extern "C" fn(*mut Sqlite3) -> *const c_char;
type Exec = unsafe extern "C" fn(
    *mut Sqlite3,
    *const c_char,
    *const c_void,
    *mut c_void,
    *mut *mut c_char,
) -> c_int;

/// The functions of the library that are used here.
pub(crate) struct Api {
    open: Open,
    close: Close,
    busy_timeout: BusyTimeout,
    message: Message,
    exec: Exec,
}

/// The library, if this machine has it.
pub(crate) fn api() -> Option<&'static Api> {
    static API: OnceLock<Option<Api>> = OnceLock::new();
    API.get_or_init(load).as_ref()
}

fn load() -> Option<Api> {
    // Bound to its own functions, not to those of the SQLite that is linked in.
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_DEEPBIND;
    // SAFETY: the name ends with a zero, and the library's initializers do nothing.
    let library = unsafe { libc::dlopen(c"libsqlite3.so.0".as_ptr(), flags) };
    let find = |name: &CStr| {
        // SAFETY: the library was loaded and is never unloaded.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?} is missing");
        found
    };
    if library.is_null() {
        return None;
    }
    // SAFETY: this is the type of sqlite3_open.
    let open = unsafe { std::mem::transmute::<*mut c_void, Open>(find(c"sqlite3_open")) };
    // SAFETY: this is the type of sqlite3_close.
    let close = unsafe { std::mem::transmute::<*mut c_void, Close>(find(c"sqlite3_close")) };
    let busy_timeout = find(c"sqlite3_busy_timeout");
    // SAFETY: this is the type of sqlite3_busy_timeout.
    let busy_timeout = unsafe { std::mem::transmute::<*mut c_void, BusyTimeout>(busy_timeout) };
    // SAFETY: this is the type of sqlite3_errmsg.
    let message = unsafe { std::mem::transmute::<*mut c_void, Message>(find(c"sqlite3_errmsg")) };
    // SAFETY: this is the type of sqlite3_exec, with a callback that is never given.
    let exec = unsafe { std::mem::transmute::<*mut c_void, Exec>(find(c"sqlite3_exec")) };
    Some(Api {
        open,
        close,
        busy_timeout,
        message,
        exec,
    })
}

/// A connection of the system's SQLite; dropped, it is closed.
pub(crate) struct Connection {
    api: &'static Api,
    database: *mut Sqlite3,
}

impl Connection {
    pub(crate) fn open(api: &'static Api, path: &Path, timeout: c_int) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut database = ptr::null_mut();
        // SAFETY: the path ends with a zero, and there is room for the connection.
        let opened = unsafe { (api.open)(path.as_ptr(), &raw mut database) };
        assert_eq!(opened, SQLITE_OK, "sqlite3_open");
        // SAFETY: the connection is open.
        unsafe { (api.busy_timeout)(database, timeout) };
        Connection { api, database }
    }

    pub(crate) fn execute(&self, sql: &str) -> Result<(), String> {
        let sql = CString::new(sql).unwrap();
        let nothing = ptr::null_mut();
        // SAFETY: the connection is open, and there is no callback.
        let code = unsafe {
            (self.api.exec)(
                self.database,
                sql.as_ptr(),
                ptr::null(),
                nothing,
                ptr::null_mut(),
            )
        };
        if code == SQLITE_OK {
            return Ok(());
        }
        // SAFETY: the connection is open.
        let message = unsafe { (self.api.message)(self.database) };
        // SAFETY: the message ends with a zero and stays until the next call.
        let message = unsafe { CStr::from_ptr(message) };
        Err(message.to_string_lossy().into_owned())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the connection is open, and is not used afterwards.
        unsafe { (self.api.close)(self.database) };
    }
}
