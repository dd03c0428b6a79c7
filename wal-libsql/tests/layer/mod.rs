//! File systems above the system's own, which a test registers: they see each call,
//! and may answer it themselves.
#![allow(dead_code)] // Each test binary uses a part of it.
#![allow(clippy::multiple_unsafe_ops_per_block)] // C calls this, and this calls C.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use wal_libsql::ffi;

/// A call on a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    /// The offset, length, lock, flags or operation that is asked for.
    pub(crate) of: i64,
    /// The bytes of a read or write.
    pub(crate) len: c_int,
}

/// What a file system above the system's does otherwise.
pub(crate) trait Layer: Sync + 'static {
    /// The file that is used in the place of the one called `name`.
    fn instead_of(&self, name: &CStr) -> Option<CString> {
        let _ = name;
        None
    }

    /// Sees `call` on a database file; `Some` is the answer.
    fn answer(&self, call: Call) -> Option<c_int> {
        let _ = call;
        None
    }

    /// Sees `call` when it was done.
    fn done(&self, call: Call) {
        let _ = call;
    }

    /// Turns bytes of a database file or a log into what the system's file has of
    /// them, and back.
    fn encode(&self, bytes: &mut [u8]) {
        let _ = bytes;
    }
}

/// What the VFS `unix` is, and what is done otherwise.
struct Above {
    layer: &'static dyn Layer,
    unix: *mut ffi::sqlite3_vfs,
}

/// A file; the system's is behind it.
#[repr(C)]
struct Opened {
    methods: *const ffi::sqlite3_io_methods,
    layer: &'static dyn Layer,
    is_database: bool,
    is_log: bool,
}

/// Registers `layer` as the VFS called `name`.
pub(crate) fn register(name: &'static CStr, layer: &'static dyn Layer) {
    // SAFETY: it can be called at any time.
    assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK);
    // SAFETY: the name ends with a zero.
    let unix = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    // SAFETY: the VFS is registered, and stays so.
    let mut vfs = unsafe { *unix };
    vfs.szOsFile += c_int::try_from(size_of::<Opened>()).unwrap();
    vfs.zName = name.as_ptr();
    vfs.pAppData = ptr::from_mut(Box::leak(Box::new(Above { layer, unix }))).cast();
    vfs.pNext = ptr::null_mut();
    vfs.xOpen = Some(open);
    vfs.xDelete = Some(delete);
    vfs.xAccess = Some(access);
    vfs.xFullPathname = Some(full_pathname);
    // SAFETY: it lasts as long as the process.
    let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) };
    assert_eq!(code, ffi::SQLITE_OK);
}

/// # Safety
/// `vfs` was made by [`register`].
unsafe fn above(vfs: *mut ffi::sqlite3_vfs) -> &'static Above {
    // SAFETY: as the caller says; it was leaked there.
    unsafe { &*(*vfs).pAppData.cast::<Above>() }
}

/// The name of the system's file, as a name of the engine.
///
/// # Safety
/// `name` is a name of the engine, or null.
unsafe fn renamed(layer: &dyn Layer, name: *const c_char) -> *const c_char {
    if name.is_null() {
        return name;
    }
    // SAFETY: names end with a zero.
    match layer.instead_of(unsafe { CStr::from_ptr(name) }) {
        // SAFETY: both end with a zero. It is never freed, as long as files last.
        Some(other) => unsafe {
            let (log, journal) = (c"".as_ptr(), c"".as_ptr());
            ffi::sqlite3_create_filename(other.as_ptr(), journal, log, 0, ptr::null_mut())
        },
        None => name,
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: for this and the rest of it: the engine's arguments, and room for a
    // file of both.
    unsafe {
        let above = above(vfs);
        let name = renamed(above.layer, name);
        let system = file.byte_add(size_of::<Opened>());
        let code = (*above.unix).xOpen.unwrap()(above.unix, name, system, flags, out_flags);
        let methods: *const _ = match (*system).pMethods.is_null() {
            true => ptr::null(),
            false => &raw const METHODS,
        };
        file.cast::<Opened>().write(Opened {
            methods,
            layer: above.layer,
            is_database: flags & ffi::SQLITE_OPEN_MAIN_DB != 0,
            is_log: flags & ffi::SQLITE_OPEN_WAL != 0,
        });
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the engine's arguments.
    unsafe {
        let above = above(vfs);
        (*above.unix).xDelete.unwrap()(above.unix, renamed(above.layer, name), sync)
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the engine's arguments.
    unsafe {
        let above = above(vfs);
        (*above.unix).xAccess.unwrap()(above.unix, renamed(above.layer, name), flags, out)
    }
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the engine's arguments.
    unsafe {
        let above = above(vfs);
        (*above.unix).xFullPathname.unwrap()(above.unix, name, len, out)
    }
}

/// Asks the layer, and then the method of the system's file.
macro_rules! forward {
    ($file:ident, $method:ident, $call:expr $(, $argument:expr)*) => {{
        // SAFETY: the file was opened by `open`, and has this method.
        unsafe {
            let opened = &*$file.cast::<Opened>();
            let system = $file.byte_add(size_of::<Opened>());
            let call = $call;
            let answer = opened.is_database.then(|| opened.layer.answer(call));
            match answer.flatten() {
                Some(code) => code,
                None => {
                    let code = (*(*system).pMethods).$method.unwrap()(system $(, $argument)*);
                    if opened.is_database {
                        opened.layer.done(call);
                    }
                    code
                }
            }
        }
    }};
}

fn call(method: &'static str, of: impl Into<i64>, len: c_int) -> Call {
    Call {
        method,
        of: of.into(),
        len,
    }
}

/// # Safety
/// The file was opened by `open`, and `bytes` has `len` bytes.
unsafe fn encode(file: *mut ffi::sqlite3_file, bytes: *mut c_void, len: c_int) {
    // SAFETY: as the caller says.
    let opened = unsafe { &*file.cast::<Opened>() };
    if opened.is_database || opened.is_log {
        let len = usize::try_from(len).unwrap();
        // SAFETY: as the caller says.
        opened
            .layer
            .encode(unsafe { std::slice::from_raw_parts_mut(bytes.cast(), len) });
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xClose, call("xClose", 0, 0))
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    len: c_int,
    at: i64,
) -> c_int {
    let code = forward!(file, xRead, call("xRead", at, len), to, len, at);
    // What is beyond the end is zeros for the engine.
    if code == ffi::SQLITE_OK {
        // SAFETY: the engine's arguments.
        unsafe { encode(file, to, len) };
    }
    code
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    let room = usize::try_from(len).unwrap();
    // SAFETY: the engine's arguments.
    let mut bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), room) }.to_vec();
    let from: *mut c_void = bytes.as_mut_ptr().cast();
    // SAFETY: as above.
    unsafe { encode(file, from, len) };
    forward!(file, xWrite, call("xWrite", at, len), from, len, at)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    forward!(file, xTruncate, call("xTruncate", len, 0), len)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    forward!(file, xSync, call("xSync", flags, 0), flags)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    forward!(file, xFileSize, call("xFileSize", 0, 0), out)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xLock, call("xLock", level, 0), level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xUnlock, call("xUnlock", level, 0), level)
}

unsafe extern "C" fn check_reserved(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    let asked = call("xCheckReservedLock", 0, 0);
    forward!(file, xCheckReservedLock, asked, out)
}

unsafe extern "C" fn control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    let asked = call("xFileControl", operation, 0);
    forward!(file, xFileControl, asked, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xSectorSize, call("xSectorSize", 0, 0))
}

unsafe extern "C" fn characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    let asked = call("xDeviceCharacteristics", 0, 0);
    forward!(file, xDeviceCharacteristics, asked)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    len: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let asked = call("xShmMap", page, 0);
    forward!(file, xShmMap, asked, page, len, extend, out)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let asked = call("xShmLock", offset, count);
    forward!(file, xShmLock, asked, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: the file was opened by `open`, and has this method.
    unsafe {
        let system = file.byte_add(size_of::<Opened>());
        (*(*system).pMethods).xShmBarrier.unwrap()(system);
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    forward!(file, xShmUnmap, call("xShmUnmap", delete, 0), delete)
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
