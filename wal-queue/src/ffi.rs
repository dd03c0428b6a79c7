//! The part of SQLite's C interface that the extension uses, as `sqlite3.h` declares it.
//!
//! It is written by hand, because the bindings of a crate would link a SQLite, and the
//! extension is loaded by whichever SQLite the application has. `integration` compares the
//! sizes and offsets with those of SQLite's own headers.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;

/// `SQLITE_OK`.
pub(crate) const OK: c_int = 0;
/// `SQLITE_ERROR`.
pub(crate) const ERROR: c_int = 1;
/// `SQLITE_BUSY`.
pub(crate) const BUSY: c_int = 5;
/// `SQLITE_BUSY_TIMEOUT`: a lock call has waited for as long as it may.
pub(crate) const BUSY_TIMEOUT: c_int = BUSY | 3 << 8;
/// `SQLITE_IOERR_WRITE`: a write has failed.
pub(crate) const IOERR_WRITE: c_int = 778;
/// `SQLITE_IOERR_FSYNC`: a sync has failed.
pub(crate) const IOERR_FSYNC: c_int = 1034;
/// `SQLITE_OK_LOAD_PERMANENTLY`: the library stays loaded when the connection is closed.
pub(crate) const OK_LOAD_PERMANENTLY: c_int = 256;

/// `SQLITE_UTF8`: the encoding of strings of a function.
pub(crate) const UTF8: c_int = 1;
/// `SQLITE_DIRECTONLY`: a function that views and triggers may not call.
pub(crate) const DIRECTONLY: c_int = 0x8_0000;
/// `SQLITE_VTAB_DIRECTONLY`: a table that views and triggers may not read, which SQLite knows since
/// 3.31.
pub(crate) const VTAB_DIRECTONLY: c_int = 3;
/// `SQLITE_TRANSIENT`: SQLite makes a copy of a string.
pub(crate) const TRANSIENT: isize = -1;

/// `SQLITE_TXN_READ`: a read transaction is open.
pub(crate) const TXN_READ: c_int = 1;

/// `SQLITE_OPEN_READONLY`.
pub(crate) const OPEN_READONLY: c_int = 0x1;
/// `SQLITE_OPEN_MAIN_DB`.
pub(crate) const OPEN_MAIN_DB: c_int = 0x100;
/// `SQLITE_OPEN_SUPER_JOURNAL`.
pub(crate) const OPEN_SUPER_JOURNAL: c_int = 0x4000;
/// `SQLITE_OPEN_WAL`.
pub(crate) const OPEN_WAL: c_int = 0x8_0000;

/// `SQLITE_SYNC_NORMAL`: a sync that is no full one of macOS.
pub(crate) const SYNC_NORMAL: c_int = 2;

/// `SQLITE_SHM_UNLOCK`.
pub(crate) const SHM_UNLOCK: c_int = 1;
/// `SQLITE_SHM_LOCK`.
pub(crate) const SHM_LOCK: c_int = 2;
/// `SQLITE_SHM_SHARED`.
pub(crate) const SHM_SHARED: c_int = 4;
/// `SQLITE_SHM_EXCLUSIVE`.
pub(crate) const SHM_EXCLUSIVE: c_int = 8;

/// `SQLITE_LOCK_SHARED`.
pub(crate) const LOCK_SHARED: c_int = 1;
/// `SQLITE_LOCK_RESERVED`.
pub(crate) const LOCK_RESERVED: c_int = 2;
/// `SQLITE_LOCK_EXCLUSIVE`.
pub(crate) const LOCK_EXCLUSIVE: c_int = 4;

/// `SQLITE_FCNTL_FILE_POINTER`: the open file of a database is asked for.
pub(crate) const FCNTL_FILE_POINTER: c_int = 7;
/// `SQLITE_FCNTL_VFSNAME`: the names of the VFS stack are asked for.
pub(crate) const FCNTL_VFSNAME: c_int = 12;
/// `SQLITE_FCNTL_COMMIT_PHASETWO`: a commit is done.
pub(crate) const FCNTL_COMMIT_PHASETWO: c_int = 22;
/// `SQLITE_FCNTL_PDB`: whose file it is.
pub(crate) const FCNTL_PDB: c_int = 30;
/// `SQLITE_FCNTL_LOCK_TIMEOUT`: for how many milliseconds locks are waited for.
pub(crate) const FCNTL_LOCK_TIMEOUT: c_int = 34;

/// `sqlite3_file`: an open file. What follows belongs to the VFS.
#[repr(C)]
pub(crate) struct File {
    pub(crate) methods: *const IoMethods,
}

/// `sqlite3_io_methods`, version 3.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct IoMethods {
    pub(crate) version: c_int,
    pub(crate) close: unsafe extern "C" fn(*mut File) -> c_int,
    pub(crate) read: unsafe extern "C" fn(*mut File, *mut c_void, c_int, i64) -> c_int,
    pub(crate) write: unsafe extern "C" fn(*mut File, *const c_void, c_int, i64) -> c_int,
    pub(crate) truncate: unsafe extern "C" fn(*mut File, i64) -> c_int,
    pub(crate) sync: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub(crate) file_size: unsafe extern "C" fn(*mut File, *mut i64) -> c_int,
    pub(crate) lock: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub(crate) unlock: unsafe extern "C" fn(*mut File, c_int) -> c_int,
    pub(crate) check_reserved_lock: unsafe extern "C" fn(*mut File, *mut c_int) -> c_int,
    pub(crate) file_control: unsafe extern "C" fn(*mut File, c_int, *mut c_void) -> c_int,
    pub(crate) sector_size: unsafe extern "C" fn(*mut File) -> c_int,
    pub(crate) device_characteristics: unsafe extern "C" fn(*mut File) -> c_int,
    // Version 2.
    pub(crate) shm_map: Option<ShmMap>,
    pub(crate) shm_lock: Option<ShmLock>,
    pub(crate) shm_barrier: Option<unsafe extern "C" fn(*mut File)>,
    pub(crate) shm_unmap: Option<ShmUnmap>,
    // Version 3.
    pub(crate) fetch:
        Option<unsafe extern "C" fn(*mut File, i64, c_int, *mut *mut c_void) -> c_int>,
    pub(crate) unfetch: Option<unsafe extern "C" fn(*mut File, i64, *mut c_void) -> c_int>,
}

pub(crate) type ShmMap =
    unsafe extern "C" fn(*mut File, c_int, c_int, c_int, *mut *mut c_void) -> c_int;
pub(crate) type ShmLock = unsafe extern "C" fn(*mut File, c_int, c_int, c_int) -> c_int;
pub(crate) type ShmUnmap = unsafe extern "C" fn(*mut File, c_int) -> c_int;

/// `sqlite3_vfs`, version 3.
#[repr(C)]
pub(crate) struct Vfs {
    pub(crate) version: c_int,
    pub(crate) file_size: c_int,
    pub(crate) max_path: c_int,
    pub(crate) next: *mut Vfs,
    pub(crate) name: *const c_char,
    pub(crate) app_data: *mut c_void,
    pub(crate) open: Option<
        unsafe extern "C" fn(*mut Vfs, *const c_char, *mut File, c_int, *mut c_int) -> c_int,
    >,
    pub(crate) delete: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int>,
    pub(crate) access:
        Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_int) -> c_int>,
    pub(crate) full_pathname:
        Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_char) -> c_int>,
    pub(crate) dl_open: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *mut c_void>,
    pub(crate) dl_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char)>,
    pub(crate) dl_sym:
        Option<unsafe extern "C" fn(*mut Vfs, *mut c_void, *const c_char) -> Option<Symbol>>,
    pub(crate) dl_close: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void)>,
    pub(crate) randomness: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    pub(crate) sleep: Option<unsafe extern "C" fn(*mut Vfs, c_int) -> c_int>,
    pub(crate) current_time: Option<unsafe extern "C" fn(*mut Vfs, *mut f64) -> c_int>,
    pub(crate) last_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    // Version 2.
    pub(crate) current_time_int64: Option<unsafe extern "C" fn(*mut Vfs, *mut i64) -> c_int>,
    // Version 3.
    pub(crate) set_system_call:
        Option<unsafe extern "C" fn(*mut Vfs, *const c_char, Option<Symbol>) -> c_int>,
    pub(crate) get_system_call:
        Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> Option<Symbol>>,
    pub(crate) next_system_call:
        Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *const c_char>,
}

/// A function of unknown type.
pub(crate) type Symbol = unsafe extern "C" fn();

/// `sqlite3`: a connection.
#[repr(C)]
pub struct Connection {
    _opaque: [u8; 0],
}

/// `sqlite3_context`: a call of an SQL function.
#[repr(C)]
pub(crate) struct Context {
    _opaque: [u8; 0],
}

/// `sqlite3_value`: an argument of an SQL function.
#[repr(C)]
pub(crate) struct Value {
    _opaque: [u8; 0],
}

/// An SQL function.
pub(crate) type ScalarFunction = unsafe extern "C" fn(*mut Context, c_int, *mut *mut Value);
/// What frees the data of a function or a module.
pub(crate) type Destructor = unsafe extern "C" fn(*mut c_void);
/// The entry point of an extension, as `sqlite3_auto_extension` takes it.
pub(crate) type EntryPoint =
    unsafe extern "C" fn(*mut Connection, *mut *mut c_char, *const ApiRoutines) -> c_int;

/// `sqlite3_vtab`: a virtual table of a connection.
#[repr(C)]
pub(crate) struct VirtualTable {
    pub(crate) module: *const Module,
    pub(crate) references: c_int,
    pub(crate) message: *mut c_char,
}

/// `sqlite3_vtab_cursor`: a scan of a virtual table.
#[repr(C)]
pub(crate) struct Cursor {
    pub(crate) table: *mut VirtualTable,
}

/// `sqlite3_index_info`: how a table is to be scanned. It is not looked into.
#[repr(C)]
pub(crate) struct IndexInfo {
    _opaque: [u8; 0],
}

/// `sqlite3_module`, version 0: the methods of a virtual table.
#[repr(C)]
pub(crate) struct Module {
    pub(crate) version: c_int,
    pub(crate) create: Option<Symbol>,
    pub(crate) connect: unsafe extern "C" fn(
        *mut Connection,
        *mut c_void,
        c_int,
        *const *const c_char,
        *mut *mut VirtualTable,
        *mut *mut c_char,
    ) -> c_int,
    pub(crate) best_index: unsafe extern "C" fn(*mut VirtualTable, *mut IndexInfo) -> c_int,
    pub(crate) disconnect: unsafe extern "C" fn(*mut VirtualTable) -> c_int,
    pub(crate) destroy: Option<Symbol>,
    pub(crate) open: unsafe extern "C" fn(*mut VirtualTable, *mut *mut Cursor) -> c_int,
    pub(crate) close: unsafe extern "C" fn(*mut Cursor) -> c_int,
    pub(crate) filter:
        unsafe extern "C" fn(*mut Cursor, c_int, *const c_char, c_int, *mut *mut Value) -> c_int,
    pub(crate) next: unsafe extern "C" fn(*mut Cursor) -> c_int,
    pub(crate) eof: unsafe extern "C" fn(*mut Cursor) -> c_int,
    pub(crate) column: unsafe extern "C" fn(*mut Cursor, *mut Context, c_int) -> c_int,
    pub(crate) row_id: unsafe extern "C" fn(*mut Cursor, *mut i64) -> c_int,
    /// The methods of tables that can be changed.
    pub(crate) of_writable_tables: [Option<Symbol>; 7],
}

/// `sqlite3_api_routines`: the functions of the SQLite that loads the extension. All members
/// are pointers to functions, in an order that only grows at its end.
#[repr(C)]
pub struct ApiRoutines {
    slots: [Option<Symbol>; 0],
}

/// Each member of a structure: the structure and the member by their names in C, and the offset.
macro_rules! members {
    ($($of:ident $structure:ident { $($member:ident $field:ident),* })*) => {
        &[$($((stringify!($structure), stringify!($member), offset_of!($of, $field)),)*)*]
    };
}

/// Where each member of the structures above is. For the test that compares them with SQLite's
/// header.
#[doc(hidden)]
pub const LAYOUT: &[(&str, &str, usize)] = members! {
    File sqlite3_file { pMethods methods }
    IoMethods sqlite3_io_methods {
        iVersion version, xClose close, xRead read, xWrite write, xTruncate truncate, xSync sync,
        xFileSize file_size, xLock lock, xUnlock unlock, xCheckReservedLock check_reserved_lock,
        xFileControl file_control, xSectorSize sector_size,
        xDeviceCharacteristics device_characteristics, xShmMap shm_map, xShmLock shm_lock,
        xShmBarrier shm_barrier, xShmUnmap shm_unmap, xFetch fetch, xUnfetch unfetch
    }
    Vfs sqlite3_vfs {
        iVersion version, szOsFile file_size, mxPathname max_path, pNext next, zName name,
        pAppData app_data, xOpen open, xDelete delete, xAccess access,
        xFullPathname full_pathname, xDlOpen dl_open, xDlError dl_error, xDlSym dl_sym,
        xDlClose dl_close, xRandomness randomness, xSleep sleep, xCurrentTime current_time,
        xGetLastError last_error, xCurrentTimeInt64 current_time_int64,
        xSetSystemCall set_system_call, xGetSystemCall get_system_call,
        xNextSystemCall next_system_call
    }
    VirtualTable sqlite3_vtab { pModule module, nRef references, zErrMsg message }
    Cursor sqlite3_vtab_cursor { pVtab table }
    Module sqlite3_module {
        iVersion version, xCreate create, xConnect connect, xBestIndex best_index,
        xDisconnect disconnect, xDestroy destroy, xOpen open, xClose close, xFilter filter,
        xNext next, xEof eof, xColumn column, xRowid row_id, xUpdate of_writable_tables
    }
};

/// How long the structures are that this library makes, by their names in C. For that test.
#[doc(hidden)]
pub const SIZES: &[(&str, usize)] = &[
    ("sqlite3_file", size_of::<File>()),
    ("sqlite3_io_methods", size_of::<IoMethods>()),
    ("sqlite3_vfs", size_of::<Vfs>()),
    ("sqlite3_vtab", size_of::<VirtualTable>()),
    ("sqlite3_vtab_cursor", size_of::<Cursor>()),
];

/// The constants above, by their names in C. For that test.
#[doc(hidden)]
pub const CONSTANTS: &[(&str, i64)] = &[
    ("SQLITE_OK", OK as i64),
    ("SQLITE_ERROR", ERROR as i64),
    ("SQLITE_BUSY", BUSY as i64),
    ("SQLITE_BUSY_TIMEOUT", BUSY_TIMEOUT as i64),
    ("SQLITE_IOERR_WRITE", IOERR_WRITE as i64),
    ("SQLITE_IOERR_FSYNC", IOERR_FSYNC as i64),
    ("SQLITE_OK_LOAD_PERMANENTLY", OK_LOAD_PERMANENTLY as i64),
    ("SQLITE_UTF8", UTF8 as i64),
    ("SQLITE_VTAB_DIRECTONLY", VTAB_DIRECTONLY as i64),
    ("SQLITE_DIRECTONLY", DIRECTONLY as i64),
    ("SQLITE_TXN_READ", TXN_READ as i64),
    ("SQLITE_OPEN_READONLY", OPEN_READONLY as i64),
    ("SQLITE_OPEN_MAIN_DB", OPEN_MAIN_DB as i64),
    ("SQLITE_OPEN_SUPER_JOURNAL", OPEN_SUPER_JOURNAL as i64),
    ("SQLITE_OPEN_WAL", OPEN_WAL as i64),
    ("SQLITE_SYNC_NORMAL", SYNC_NORMAL as i64),
    ("SQLITE_SHM_UNLOCK", SHM_UNLOCK as i64),
    ("SQLITE_SHM_LOCK", SHM_LOCK as i64),
    ("SQLITE_SHM_SHARED", SHM_SHARED as i64),
    ("SQLITE_SHM_EXCLUSIVE", SHM_EXCLUSIVE as i64),
    ("SQLITE_LOCK_SHARED", LOCK_SHARED as i64),
    ("SQLITE_LOCK_RESERVED", LOCK_RESERVED as i64),
    ("SQLITE_LOCK_EXCLUSIVE", LOCK_EXCLUSIVE as i64),
    ("SQLITE_FCNTL_FILE_POINTER", FCNTL_FILE_POINTER as i64),
    ("SQLITE_FCNTL_VFSNAME", FCNTL_VFSNAME as i64),
    ("SQLITE_FCNTL_COMMIT_PHASETWO", FCNTL_COMMIT_PHASETWO as i64),
    ("SQLITE_FCNTL_PDB", FCNTL_PDB as i64),
    ("SQLITE_FCNTL_LOCK_TIMEOUT", FCNTL_LOCK_TIMEOUT as i64),
];
