//! The functions of the SQLite that uses the extension.
//!
//! An extension that was loaded calls them through the table that SQLite passes to it. A
//! program that links SQLite itself calls them by name. Several copies of SQLite can be in one
//! process, and each has functions of its own.
#![allow(unsafe_code)] // The table of SQLite has functions without types.

use std::ffi::{c_char, c_int, c_void};

use crate::ffi::{ApiRoutines, Symbol, Vfs};

/// The oldest SQLite that serves: 3.28 has each function that the extension calls.
const OLDEST: c_int = 3_028_000;

/// The functions of one SQLite.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    /// `sqlite3_vfs_find`.
    pub(crate) vfs_find: unsafe extern "C" fn(*const c_char) -> *mut Vfs,
    /// `sqlite3_vfs_register`.
    pub(crate) vfs_register: unsafe extern "C" fn(*mut Vfs, c_int) -> c_int,
    /// `sqlite3_malloc64`: memory that SQLite frees.
    pub(crate) malloc: unsafe extern "C" fn(u64) -> *mut c_void,
    /// `sqlite3_free`.
    pub(crate) free: unsafe extern "C" fn(*mut c_void),
}

/// Where the functions are in the table of SQLite.
mod slot {
    pub(super) const FREE: usize = 58;
    pub(super) const LIBVERSION_NUMBER: usize = 67;
    pub(super) const VFS_FIND: usize = 141;
    pub(super) const VFS_REGISTER: usize = 142;
    pub(super) const MALLOC64: usize = 197;
}

/// The place of each function in `sqlite3_api_routines`, by its name there. For the test that
/// compares them with SQLite's header.
#[doc(hidden)]
pub const SLOTS: &[(&str, usize)] = &[
    ("free", slot::FREE),
    ("libversion_number", slot::LIBVERSION_NUMBER),
    ("vfs_find", slot::VFS_FIND),
    ("vfs_register", slot::VFS_REGISTER),
    ("malloc64", slot::MALLOC64),
];

impl Api {
    /// The functions in `table`; `None` if that is of a SQLite before 3.28.
    ///
    /// # Safety
    /// `table` is the one that SQLite passes to an extension.
    pub(crate) unsafe fn of_table(table: *const ApiRoutines) -> Option<Self> {
        let slots = table.cast::<Option<Symbol>>();
        let at = |slot: usize| {
            // SAFETY: each slot is at its place since a version before `OLDEST`, and that of
            // the version, which is read first, since 3.3.
            let place = unsafe { slots.add(slot) };
            // SAFETY: a slot is a pointer to a function, or null.
            unsafe { place.read() }
        };
        let version = at(slot::LIBVERSION_NUMBER)?;
        // SAFETY: the function in this slot has this type.
        let version: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(version) };
        // SAFETY: it has no conditions.
        if unsafe { version() } < OLDEST {
            return None;
        }
        Some(Api {
            // SAFETY: the function in this slot has this type.
            vfs_find: unsafe {
                std::mem::transmute::<Symbol, unsafe extern "C" fn(*const c_char) -> *mut Vfs>(at(
                    slot::VFS_FIND,
                )?)
            },
            // SAFETY: the function in this slot has this type.
            vfs_register: unsafe {
                std::mem::transmute::<Symbol, unsafe extern "C" fn(*mut Vfs, c_int) -> c_int>(at(
                    slot::VFS_REGISTER,
                )?)
            },
            // SAFETY: the function in this slot has this type.
            malloc: unsafe {
                std::mem::transmute::<Symbol, unsafe extern "C" fn(u64) -> *mut c_void>(at(
                    slot::MALLOC64,
                )?)
            },
            // SAFETY: the function in this slot has this type.
            free: unsafe {
                std::mem::transmute::<Symbol, unsafe extern "C" fn(*mut c_void)>(at(slot::FREE)?)
            },
        })
    }

    /// Which SQLite of the process it is.
    pub(crate) fn key(&self) -> usize {
        self.vfs_register as usize
    }
}
