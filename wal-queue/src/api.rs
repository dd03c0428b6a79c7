//! The functions of the SQLite that uses the extension.
//!
//! An extension that was loaded calls them through the table that SQLite passes to it. A
//! program that links SQLite itself calls them by name. Several copies of SQLite can be in one
//! process, and each has functions of its own.
#![allow(unsafe_code)] // The table of SQLite has functions without types.

use std::ffi::{c_char, c_int, c_void};

use crate::ffi::{
    ApiRoutines, Connection, Context, Destructor, EntryPoint, Module, ScalarFunction, Symbol,
    Value, Vfs,
};

/// The oldest SQLite that serves: 3.28 has each function that the extension calls.
const OLDEST: c_int = 3_028_000;
/// The place of `sqlite3_libversion_number` in the table.
const LIBVERSION_NUMBER: usize = 67;
/// The place of `sqlite3_is_interrupted`, and the SQLite since which it is there.
const IS_INTERRUPTED: (usize, c_int) = (266, 3_041_000);
/// The place of `sqlite3_filename_wal`, and a SQLite since which it is there.
const FILENAME_WAL: (usize, c_int) = (248, 3_032_000);
/// The place of `sqlite3_txn_state`, and the SQLite since which it is there.
const TXN_STATE: (usize, c_int) = (252, 3_034_000);

/// The place of `sqlite3_vtab_config`.
const VTAB_CONFIG: usize = 177;

/// `sqlite3_vtab_config`, which takes further arguments for some options.
pub(crate) type VtabConfig = unsafe extern "C" fn(*mut Connection, c_int, ...) -> c_int;
/// `sqlite3_txn_state`.
pub(crate) type TxnState = unsafe extern "C" fn(*mut Connection, *const c_char) -> c_int;

/// Defines [`Api`]: each function by its name here, its name in C, its place in the table of
/// SQLite, and its type.
macro_rules! functions {
    ($($name:ident $symbol:ident $slot:literal ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of one SQLite.
        #[derive(Clone, Copy)]
        pub(crate) struct Api {$(
            pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,
        )*
            /// `sqlite3_is_interrupted`. A program that is linked with an older SQLite could not
            /// be linked with it.
            pub(crate) is_interrupted: Option<unsafe extern "C" fn(*mut Connection) -> c_int>,
            /// `sqlite3_filename_wal`.
            pub(crate) filename_wal:
                Option<unsafe extern "C" fn(*const c_char) -> *const c_char>,
            /// `sqlite3_txn_state`.
            pub(crate) txn_state: Option<TxnState>,
            pub(crate) vtab_config: VtabConfig,
        }

        /// The place of each function in `sqlite3_api_routines`, by its name in C. For the test
        /// that compares them with SQLite's header.
        #[doc(hidden)]
        pub const SLOTS: &[(&str, usize)] = &[
            ("sqlite3_libversion_number", LIBVERSION_NUMBER),
            ("sqlite3_is_interrupted", IS_INTERRUPTED.0),
            ("sqlite3_filename_wal", FILENAME_WAL.0),
            ("sqlite3_txn_state", TXN_STATE.0),
            ("sqlite3_vtab_config", VTAB_CONFIG),
            $((stringify!($symbol), $slot),)*
        ];

        impl Api {
            /// The functions in `table`; `None` if that is of a SQLite before 3.28.
            ///
            /// # Safety
            /// `table` is the one that SQLite passes to an extension.
            pub(crate) unsafe fn of_table(table: *const ApiRoutines) -> Option<Self> {
                let slots = table.cast::<Option<Symbol>>();
                let at = |slot: usize| {
                    // SAFETY: each place is in the table since a version before `OLDEST`, and
                    // that of the version, which is read first, since 3.3.
                    let place = unsafe { slots.add(slot) };
                    // SAFETY: a slot is a pointer to a function, or null.
                    unsafe { place.read() }
                };
                let version = at(LIBVERSION_NUMBER)?;
                // SAFETY: the function in this slot has this type.
                let version = unsafe {
                    std::mem::transmute::<Symbol, unsafe extern "C" fn() -> c_int>(version)
                };
                // SAFETY: it has no conditions.
                let version = unsafe { version() };
                if version < OLDEST {
                    return None;
                }
                let (interrupted, since) = IS_INTERRUPTED;
                let is_interrupted = (version >= since).then(|| at(interrupted)).flatten();
                let (log_name, since) = FILENAME_WAL;
                let log_name = (version >= since).then(|| at(log_name)).flatten();
                let (state, since) = TXN_STATE;
                let state = (version >= since).then(|| at(state)).flatten();
                Some(Api {
                    // SAFETY: the function in this slot has this type.
                    vtab_config: unsafe {
                        std::mem::transmute::<Symbol, VtabConfig>(at(VTAB_CONFIG)?)
                    },
                    txn_state: state.map(|function| {
                        // SAFETY: the function in this slot has this type.
                        unsafe { std::mem::transmute::<Symbol, TxnState>(function) }
                    }),
                    filename_wal: log_name.map(|function| {
                        // SAFETY: the function in this slot has this type.
                        unsafe {
                            std::mem::transmute::<
                                Symbol,
                                unsafe extern "C" fn(*const c_char) -> *const c_char,
                            >(function)
                        }
                    }),
                    is_interrupted: is_interrupted.map(|function| {
                        // SAFETY: the function in this slot has this type.
                        unsafe {
                            std::mem::transmute::<
                                Symbol,
                                unsafe extern "C" fn(*mut Connection) -> c_int,
                            >(function)
                        }
                    }),
                    $(
                    // SAFETY: the function in this slot has this type.
                    $name: unsafe {
                        std::mem::transmute::<
                            Symbol,
                            unsafe extern "C" fn($($argument),*) $(-> $result)?,
                        >(at($slot)?)
                    },
                )*})
            }

            /// The functions that the program is linked with.
            // Inlined, so that only a program that calls it needs a linked SQLite.
            #[inline]
            pub(crate) fn linked() -> Self {
                unsafe extern "C" {
                    $(fn $symbol($(_: $argument),*) $(-> $result)?;)*
                    fn sqlite3_filename_wal(name: *const c_char) -> *const c_char;
                    fn sqlite3_vtab_config(_: *mut Connection, _: c_int, ...) -> c_int;
                    fn sqlite3_txn_state(_: *mut Connection, _: *const c_char) -> c_int;
                }
                Api {
                    is_interrupted: None,
                    filename_wal: Some(sqlite3_filename_wal),
                    txn_state: Some(sqlite3_txn_state),
                    vtab_config: sqlite3_vtab_config,
                    $($name: $symbol,)*
                }
            }
        }
    };
}

functions! {
    auto_extension sqlite3_auto_extension 192 (EntryPoint) -> c_int;
    context_db_handle sqlite3_context_db_handle 149 (*mut Context) -> *mut Connection;
    create_function sqlite3_create_function_v2 162 (
        *mut Connection, *const c_char, c_int, c_int, *mut c_void, Option<ScalarFunction>,
        Option<ScalarFunction>, Option<unsafe extern "C" fn(*mut Context)>, Option<Destructor>
    ) -> c_int;
    create_module sqlite3_create_module_v2 119 (
        *mut Connection, *const c_char, *const Module, *mut c_void, Option<Destructor>
    ) -> c_int;
    declare_vtab sqlite3_declare_vtab 50 (*mut Connection, *const c_char) -> c_int;
    exec sqlite3_exec 55 (
        *mut Connection, *const c_char, Option<Symbol>, *mut c_void, *mut *mut c_char
    ) -> c_int;
    file_control sqlite3_file_control 127 (
        *mut Connection, *const c_char, c_int, *mut c_void
    ) -> c_int;
    free sqlite3_free 58 (*mut c_void);
    get_autocommit sqlite3_get_autocommit 60 (*mut Connection) -> c_int;
    malloc sqlite3_malloc64 197 (u64) -> *mut c_void;
    result_error sqlite3_result_error 80 (*mut Context, *const c_char, c_int);
    result_int64 sqlite3_result_int64 83 (*mut Context, i64);
    result_null sqlite3_result_null 84 (*mut Context);
    result_text sqlite3_result_text 85 (*mut Context, *const c_char, c_int, isize);
    threadsafe sqlite3_threadsafe 144 () -> c_int;
    uri_boolean sqlite3_uri_boolean 187 (*const c_char, *const c_char, c_int) -> c_int;
    value_int64 sqlite3_value_int64 107 (*mut Value) -> i64;
    vfs_find sqlite3_vfs_find 141 (*const c_char) -> *mut Vfs;
    vfs_register sqlite3_vfs_register 142 (*mut Vfs, c_int) -> c_int;
}

impl Api {
    /// Which SQLite of the process it is.
    pub(crate) fn key(&self) -> usize {
        self.vfs_register as usize
    }
}
