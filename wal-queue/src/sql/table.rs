//! A table whose rows are computed when it is read: an eponymous virtual table that is only
//! read, and is scanned whole.
#![allow(unsafe_code)] // SQLite calls the methods of a table with raw pointers.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use super::{main_file, string};
use crate::ffi::{self, Connection, Context, Cursor, IndexInfo, Module, Value, VirtualTable};
use crate::main_file::MainFile;
use crate::vfs::Shim;

/// A value of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Text(String),
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Cell::Integer(i64::from(value))
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Cell::Text(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Cell::Text(value.to_owned())
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// A row, with a cell for each column.
pub(super) type Row = Vec<Cell>;

/// What a table is.
pub(super) struct Definition {
    pub(super) name: &'static CStr,
    /// `CREATE TABLE`, with its columns.
    pub(super) columns: &'static CStr,
    /// The rows now, or why there are none.
    pub(super) rows: fn(&MainFile) -> Result<Vec<Row>, String>,
}

/// A definition in one SQLite.
struct Defined {
    shim: &'static Shim,
    definition: &'static Definition,
}

/// The table of a connection.
#[repr(C)]
struct Table {
    /// First, so that a pointer to it is one to the table.
    base: VirtualTable,
    connection: *mut Connection,
    defined: &'static Defined,
}

/// A scan.
#[repr(C)]
struct Scan {
    /// First, so that a pointer to it is one to the scan.
    base: Cursor,
    rows: Vec<Row>,
    at: usize,
}

static MODULE: Module = Module {
    version: 0,
    // Without it the table is there by its name, and none is created.
    create: None,
    connect,
    best_index,
    disconnect,
    destroy: None,
    open,
    close,
    filter,
    next,
    eof,
    column,
    row_id,
    of_writable_tables: [None; 7],
};

/// Defines the table in `connection`.
pub(super) fn define(
    shim: &'static Shim,
    connection: *mut Connection,
    definition: &'static Definition,
) {
    let defined = Box::into_raw(Box::new(Defined { shim, definition }));
    // SAFETY: the module stays, and SQLite frees the data when it closes the connection.
    let _without_the_table = unsafe {
        (shim.api.create_module)(
            connection,
            definition.name.as_ptr(),
            &raw const MODULE,
            defined.cast(),
            Some(free_definition),
        )
    };
}

unsafe extern "C" fn free_definition(defined: *mut c_void) {
    // SAFETY: `define` has made it, and SQLite frees it once, after the last table.
    drop(unsafe { Box::from_raw(defined.cast::<Defined>()) });
}

unsafe extern "C" fn connect(
    connection: *mut Connection,
    data: *mut c_void,
    _count: c_int,
    _arguments: *const *const c_char,
    table: *mut *mut VirtualTable,
    _message: *mut *mut c_char,
) -> c_int {
    // SAFETY: the data is that of `define`, which SQLite keeps while a table uses it.
    let defined: &'static Defined = unsafe { &*data.cast::<Defined>() };
    let columns = defined.definition.columns.as_ptr();
    // SAFETY: the connection is the caller's.
    let code = unsafe { (defined.shim.api.declare_vtab)(connection, columns) };
    if code == ffi::OK {
        // The tables show processes, which is none of the business of the schema of a database.
        // SAFETY: the caller declares a table; this option has no further arguments.
        let _before_3_31 =
            unsafe { (defined.shim.api.vtab_config)(connection, ffi::VTAB_DIRECTONLY) };
        let made = Box::into_raw(Box::new(Table {
            base: VirtualTable {
                module: &raw const MODULE,
                references: 0,
                message: null_mut(),
            },
            connection,
            defined,
        }));
        // SAFETY: the caller passes a place for the table.
        unsafe { *table = made.cast() };
    }
    code
}

unsafe extern "C" fn best_index(_table: *mut VirtualTable, _how: *mut IndexInfo) -> c_int {
    // There is one way.
    ffi::OK
}

unsafe extern "C" fn disconnect(table: *mut VirtualTable) -> c_int {
    // SAFETY: `connect` has made it, and SQLite disconnects it once.
    drop(unsafe { Box::from_raw(table.cast::<Table>()) });
    ffi::OK
}

unsafe extern "C" fn open(table: *mut VirtualTable, cursor: *mut *mut Cursor) -> c_int {
    let scan = Box::into_raw(Box::new(Scan {
        base: Cursor { table },
        rows: Vec::new(),
        at: 0,
    }));
    // SAFETY: the caller passes a place for the cursor.
    unsafe { *cursor = scan.cast() };
    ffi::OK
}

unsafe extern "C" fn close(cursor: *mut Cursor) -> c_int {
    // SAFETY: `open` has made it, and SQLite closes it once.
    drop(unsafe { Box::from_raw(cursor.cast::<Scan>()) });
    ffi::OK
}

/// The scan of `cursor`, which its methods have to themselves.
fn scan_of<'c>(cursor: *mut Cursor) -> &'c mut Scan {
    // SAFETY: `open` has made it; SQLite calls one method of it at a time.
    unsafe { &mut *cursor.cast::<Scan>() }
}

/// The table of `cursor`. Its first member is changed by SQLite, so it is not borrowed.
fn table_of(cursor: *mut Cursor) -> *mut Table {
    scan_of(cursor).base.table.cast()
}

/// The connection and the definition of the table of `cursor`.
fn defined_of(cursor: *mut Cursor) -> (*mut Connection, &'static Defined) {
    let table = table_of(cursor);
    // SAFETY: `connect` has made it, and it is disconnected after its cursors are closed.
    let connection = unsafe { (*table).connection };
    // SAFETY: as above.
    (connection, unsafe { (*table).defined })
}

unsafe extern "C" fn filter(
    cursor: *mut Cursor,
    _index: c_int,
    _name: *const c_char,
    _count: c_int,
    _arguments: *mut *mut Value,
) -> c_int {
    let (connection, Defined { shim, definition }) = defined_of(cursor);
    let rows = catch_unwind(AssertUnwindSafe(|| {
        let main = main_file(shim, connection)?;
        (definition.rows)(&main)
    }));
    let scan = scan_of(cursor);
    scan.at = 0;
    match rows.unwrap_or_else(|_| Err("the extension has failed".to_owned())) {
        Ok(rows) => {
            scan.rows = rows;
            ffi::OK
        }
        Err(reason) => {
            scan.rows.clear();
            let name = definition.name.to_string_lossy();
            let message = string(shim, &format!("{name}: {reason}"));
            // SAFETY: as in `defined_of`; SQLite frees the message.
            unsafe { (*table_of(cursor)).base.message = message };
            ffi::ERROR
        }
    }
}

unsafe extern "C" fn next(cursor: *mut Cursor) -> c_int {
    scan_of(cursor).at += 1;
    ffi::OK
}

unsafe extern "C" fn eof(cursor: *mut Cursor) -> c_int {
    let scan = scan_of(cursor);
    c_int::from(scan.at >= scan.rows.len())
}

unsafe extern "C" fn column(cursor: *mut Cursor, context: *mut Context, column: c_int) -> c_int {
    let api = &defined_of(cursor).1.shim.api;
    let scan = scan_of(cursor);
    let row = scan.rows.get(scan.at);
    let cell = row.and_then(|row| row.get(usize::try_from(column).ok()?));
    match cell.unwrap_or(&Cell::Null) {
        // SAFETY: the context is that of the call, here and below.
        Cell::Null => unsafe { (api.result_null)(context) },
        // SAFETY: as above.
        Cell::Integer(value) => unsafe { (api.result_int64)(context, *value) },
        Cell::Text(text) => {
            let len = c_int::try_from(text.len()).unwrap_or(0);
            // SAFETY: as above; the text is as long as that, and is copied.
            unsafe { (api.result_text)(context, text.as_ptr().cast(), len, ffi::TRANSIENT) };
        }
    }
    ffi::OK
}

unsafe extern "C" fn row_id(cursor: *mut Cursor, id: *mut i64) -> c_int {
    let at = i64::try_from(scan_of(cursor).at).unwrap_or(i64::MAX);
    // SAFETY: the caller passes a place for it.
    unsafe { *id = at };
    ffi::OK
}
