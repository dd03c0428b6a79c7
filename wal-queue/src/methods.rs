//! The methods of a database file: those of the VFS beneath, of which a few are replaced.
//!
//! # Protocol
//! `sqlite3_file` begins with a pointer to a table of methods. The replaced methods lie in a
//! copy of the table of the VFS beneath, so SQLite calls the other ones directly, mapped reads
//! included. A copy is made once for each such table, and stays. Before the VFS beneath closes
//! a file, the file has its own table again.
#![allow(unsafe_code)] // SQLite calls methods with raw pointers, and is called with them.

use std::ffi::{CStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use wal_core::once_table::OnceTable;

use crate::base_file::BaseFile;
use crate::ffi::{self, File, IoMethods};
use crate::log_file::{self, LogFile};
use crate::main_file::MainFile;
use crate::open_files;
use crate::vfs::{Shim, VFS_NAME};
use crate::waiting;

/// The tables of replaced methods of one shim.
pub(crate) struct Methods {
    /// Where the state of a file lies behind the file of the VFS beneath, in bytes.
    state_at: usize,
    /// A look at them takes no lock, which another thread might hold at a fork.
    tables: OnceTable<&'static Table>,
}

/// The kind of file that a table is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Database,
    Log,
}

/// A table with replaced methods.
#[repr(C)]
pub(crate) struct Table {
    /// First, so that a file's pointer to its methods is one to the table.
    replaced: IoMethods,
    /// A copy of the table of the VFS beneath, whole even if that is of version 2.
    original: IoMethods,
    pub(crate) base: *const IoMethods,
    kind: Kind,
    state_at: usize,
    shim: &'static Shim,
}

// SAFETY: a table is constant.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Methods {
    pub(crate) fn with_state_at(state_at: usize) -> Self {
        Methods {
            state_at,
            tables: OnceTable::new(),
        }
    }

    /// Replaces methods of the database file `file`, if it has the shared memory of a log.
    ///
    /// # Safety
    /// `file` was opened just now by the VFS beneath `shim`, whose tables these are, for a
    /// file of `shim`, with `name` and `flags`.
    pub(crate) unsafe fn replace(
        &self,
        shim: &'static Shim,
        file: *mut File,
        name: &CStr,
        flags: c_int,
    ) {
        // SAFETY: the caller's promise.
        let Some(table) = (unsafe { self.table_for(shim, file, Kind::Database) }) else {
            return;
        };
        // SAFETY: SQLite has passed the name. A VFS above this one that passes a copy of the name
        // of a database file has made it by `sqlite3_create_filename`: SQLite demands that, since
        // every VFS may read the parameters behind the name.
        let options = unsafe { shim.options.with_uri(&shim.api, name.as_ptr()) };
        let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        // SAFETY: the file stays open until `close`, which takes the base file back.
        let beneath = unsafe { BaseFile::new(file, &table.original) };
        let may_write = flags & ffi::OPEN_READONLY == 0;
        let state = MainFile::new(beneath, path, may_write, options);
        open_files::add(&state);
        // SAFETY: the file is open, and no other thread has it yet.
        unsafe { table.put_in(file, Arc::into_raw(state)) };
    }

    /// Replaces methods of the log `file`, if its connection shares its syncs.
    ///
    /// # Safety
    /// As for [`Methods::replace`].
    pub(crate) unsafe fn replace_of_log(&self, shim: &'static Shim, file: *mut File, name: &CStr) {
        // A VFS above this one may open a log by a copy of its name, of which the functions of
        // SQLite for names would read the memory before it. So the address alone is compared: a
        // copy is at another address, and that log is left alone.
        let Some(main) = open_files::newest(|main| main.has_log_in_group(name)) else {
            return;
        };
        // SAFETY: the caller's promise.
        let Some(table) = (unsafe { self.table_for(shim, file, Kind::Log) }) else {
            return;
        };
        // SAFETY: the file stays open until its methods' `close`.
        let beneath = unsafe { BaseFile::new(file, &table.original) };
        let state = Box::into_raw(LogFile::new(beneath, main));
        // SAFETY: the file is open, and no other thread has it yet.
        unsafe { table.put_in(file, state.cast_const()) };
    }

    /// The state of `file`, which SQLite has open, if its methods are replaced.
    pub(crate) fn main_of(&self, file: *mut File) -> Option<Arc<MainFile>> {
        // SAFETY: the file is open.
        let methods = unsafe { (*file).methods };
        let mut tables = (0..).map_while(|place| self.tables.get(place));
        let is_replaced = |table: &&&'static Table| {
            table.kind == Kind::Database && std::ptr::eq(&raw const table.replaced, methods)
        };
        tables.find(is_replaced)?;
        main_of(file).shared()
    }

    /// The table for `file`; `None` if it has no methods, or not those of its kind.
    ///
    /// # Safety
    /// `file` was opened just now.
    unsafe fn table_for(
        &self,
        shim: &'static Shim,
        file: *mut File,
        kind: Kind,
    ) -> Option<&'static Table> {
        // SAFETY: the file is open.
        let base = unsafe { (*file).methods };
        if base.is_null() {
            return None;
        }
        // SAFETY: the methods of an open file stay while the file is open.
        let original = unsafe { IoMethods::copy_of(base) };
        if kind == Kind::Database && !original.has_shared_memory() {
            return None;
        }
        let make = || {
            let replaced = match kind {
                Kind::Database => replaced(original),
                Kind::Log => log_file::replaced(original),
            };
            let table = Table {
                replaced,
                original,
                base,
                kind,
                state_at: self.state_at,
                shim,
            };
            &*Box::leak(Box::new(table))
        };
        // The first free place is taken by the first thread that comes to it.
        let mut tables = (0..).map(|place| *self.tables.get_or_make(place, make));
        tables.find(|table| table.kind == kind && std::ptr::eq(table.base, base))
    }
}

impl Table {
    /// Gives `file` these methods, and `state`.
    ///
    /// # Safety
    /// The caller has opened `file`, which is a file of the shim, and no other thread has it.
    unsafe fn put_in<S>(&self, file: *mut File, state: *const S) {
        let place = file.cast::<u8>().wrapping_add(self.state_at);
        // SAFETY: behind the file of the VFS beneath the shim has room for the pointer.
        unsafe { place.cast::<*const S>().write(state) };
        // SAFETY: the file is open.
        unsafe { (*file).methods = &raw const self.replaced };
    }
}

/// The methods of a database file whose VFS has `original`.
fn replaced(original: IoMethods) -> IoMethods {
    IoMethods {
        close,
        lock,
        unlock,
        file_control,
        shm_map: Some(shm_map),
        shm_lock: Some(shm_lock),
        shm_unmap: Some(shm_unmap),
        ..original
    }
}

/// The place of the pointer to the state of `file`, whose methods are replaced.
pub(crate) fn state_place<S>(file: *mut File) -> *mut *const S {
    let state_at = table_of(file).state_at;
    file.cast::<u8>().wrapping_add(state_at).cast()
}

/// The table of `file`, whose methods are replaced.
pub(crate) fn table_of(file: *mut File) -> &'static Table {
    // SAFETY: the methods below are called for files whose methods are replaced, and the
    // caller has the file open.
    let methods = unsafe { (*file).methods };
    // SAFETY: such methods are the first member of a table, and tables stay.
    unsafe { &*methods.cast::<Table>() }
}

/// The state of `file`, whose methods are replaced. It stays until the file is closed, which
/// SQLite does when no other call is in progress.
fn main_of<'f>(file: *mut File) -> &'f MainFile {
    // SAFETY: `replace` has stored a pointer there.
    let state = unsafe { *state_place::<MainFile>(file) };
    // SAFETY: the pointer holds a reference until `close`.
    unsafe { &*state }
}

/// Calls `method`; `instead`, which is the VFS beneath alone, if that panics.
pub(crate) fn caught<T>(method: impl FnOnce() -> T, instead: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(method)).unwrap_or_else(|_| instead())
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    let table = table_of(file);
    // SAFETY: `replace` has stored the pointer.
    let state = unsafe { *state_place::<MainFile>(file) };
    // SAFETY: the pointer is that of an `Arc`, and this call takes it.
    let state = unsafe { Arc::from_raw(state) };
    let base = state.base();
    let closed = catch_unwind(AssertUnwindSafe(|| {
        state.close();
        drop(state);
    }));
    // What a panic leaves of the state is not used again.
    drop(closed);
    // SAFETY: the file is open, and SQLite has no other call of it in progress.
    unsafe { (*file).methods = table.base };
    base.close()
}

unsafe extern "C" fn shm_map(
    file: *mut File,
    region: c_int,
    len: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let main = main_of(file);
    let code = main.base().shm_map(region, len, extend, out);
    caught(|| main.mapped(region, len, code, out), || ());
    code
}

unsafe extern "C" fn shm_lock(file: *mut File, first: c_int, count: c_int, flags: c_int) -> c_int {
    let main = main_of(file);
    let base = || main.base().shm_lock(first, count, flags);
    caught(|| main.shm_lock(first, count, flags), base)
}

unsafe extern "C" fn shm_unmap(file: *mut File, delete: c_int) -> c_int {
    let main = main_of(file);
    caught(|| main.unmapping(delete != 0), || ());
    main.base().shm_unmap(delete)
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    let main = main_of(file);
    let lock = || {
        waiting::forget_wish();
        main.guard().lock(main.base(), level)
    };
    let code = caught(lock, || main.base().lock(level));
    if code == ffi::OK && level >= ffi::LOCK_RESERVED {
        main.owner().begin_write();
    }
    code
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    let main = main_of(file);
    main.owner().end_write();
    let unlock = || main.guard().unlock(main.base(), level);
    caught(unlock, || main.base().unlock(level))
}

unsafe extern "C" fn file_control(
    file: *mut File,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    let main = main_of(file);
    let is_timeout = operation == ffi::FCNTL_LOCK_TIMEOUT && !argument.is_null();
    // The VFS beneath stores the timeout before in its place.
    // SAFETY: the argument of this operation is a pointer to an integer.
    let lock_timeout = is_timeout.then(|| unsafe { *argument.cast::<c_int>() });
    if operation == ffi::FCNTL_PDB {
        main.owner().set_place(argument.cast());
    }
    if operation == ffi::FCNTL_COMMIT_PHASETWO {
        let code = caught(|| main.commit_phase_two(), || ffi::IOERR_FSYNC);
        if code != ffi::OK {
            return code;
        }
    }
    let code = main.base().file_control(operation, argument);
    // A SQLite that does not wait in its locks refuses the operation.
    if let Some(millis) = lock_timeout.filter(|_| code == ffi::OK) {
        main.set_lock_timeout(millis);
    }
    if code == ffi::OK && operation == ffi::FCNTL_VFSNAME {
        // SAFETY: the argument of this operation is a pointer to a string of SQLite.
        unsafe { prefix_name(table_of(file).shim, argument.cast()) };
    }
    code
}

/// Puts the name of the shim before that of the VFS beneath.
///
/// # Safety
/// `name` points to a string in memory of SQLite, or to null.
unsafe fn prefix_name(shim: &Shim, name: *mut *mut std::ffi::c_char) {
    // SAFETY: the caller's promise.
    let beneath = unsafe { *name };
    if beneath.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let rest = unsafe { CStr::from_ptr(beneath) };
    let both = [VFS_NAME.to_bytes(), b"/", rest.to_bytes_with_nul()].concat();
    // SAFETY: it has no conditions.
    let copy = unsafe { (shim.api.malloc)(both.len() as u64) }.cast::<u8>();
    if copy.is_null() {
        return;
    }
    // SAFETY: the memory was allocated just now, with this length.
    unsafe { copy.copy_from_nonoverlapping(both.as_ptr(), both.len()) };
    // SAFETY: the string was allocated by SQLite, and is not used again.
    unsafe { (shim.api.free)(beneath.cast()) };
    // SAFETY: the caller's promise.
    unsafe { *name = copy.cast() };
}
