//! Whether our log may lie beside a database file.
//!
//! The log and the wal-index are files of the system, found by the name of the
//! database. So the database has to be the system's file of that name, and to
//! hold what the engine writes to it. A VFS may do anything else with a name: keep
//! the bytes on the heap, use another file, several files, or encode what it
//! writes. Only the VFS knows, and it cannot be asked: every method may be passed
//! on from one VFS to the next, and answers for the last of them.
//!
//! So a file is known by the method that opened it. That of the engine's own VFS
//! for Unix opens the file of the very name that the pager has. Any other VFS is
//! one that the program vouches for ([`WalOptions::transparent_vfs`]), or
//! its databases get the engine's own log, which is written through the VFS.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::unix::fs::MetadataExt;
use std::ptr::{NonNull, fn_addr_eq};

use libsql_ffi as ffi;
use wal_core::storage::File;
use wal_core::{Error, Result};

use crate::engine_file::EngineFile;
use crate::options::WalOptions;

/// Refuses a file that is not at its path any more, beside which another
/// database's log may lie, and tells otherwise whether ours may lie there.
///
/// # Safety
/// `vfs` is registered, and has opened `file`.
pub(crate) unsafe fn is_beside(
    vfs: NonNull<ffi::sqlite3_vfs>,
    file: &EngineFile,
    options: &WalOptions,
) -> Result<bool> {
    // SAFETY: as the caller says; the engine's file systems stay registered.
    let vfs = unsafe { vfs.as_ref() };
    let opened_by_system = is_system(vfs);
    // A VFS without shared memory has no locks that other processes look at. Our log
    // is not padded to sectors, which `psow=0` asks for.
    if !file.has_shared_memory()
        || !file.is_powersafe()
        || !file.path().is_absolute()
        || !(opened_by_system || is_transparent(vfs, options))
    {
        return Ok(false);
    }
    // Before the VFS is asked, which answers for a file without a directory too.
    let _ = file.find_place();
    match file.is_in_place()? {
        // What does not say where its file is has none.
        None => Ok(false),
        Some(false) => Err(Error::Replaced {
            path: file.path().to_owned(),
        }),
        Some(true) => Ok(opened_by_system || is_as_long_as_its_path(file)?),
    }
}

/// Whether the files of `vfs` are those of the engine's own VFS for Unix: it has
/// its method to open. A VFS that is called so need not be the engine's, so the
/// method is compared with that of another one of the same family, whose name
/// is of no use to a VFS that wants to come before the default.
fn is_system(vfs: &ffi::sqlite3_vfs) -> bool {
    // SAFETY: the engine is initialised, and the name ends with a zero.
    let family = unsafe { ffi::sqlite3_vfs_find(c"unix-none".as_ptr()) };
    // SAFETY: the engine's file systems stay registered.
    let family = unsafe { family.as_ref() };
    let methods = (vfs.xOpen, family.and_then(|family| family.xOpen));
    matches!(methods, (Some(open), Some(system)) if fn_addr_eq(open, system))
}

fn is_transparent(vfs: &ffi::sqlite3_vfs, options: &WalOptions) -> bool {
    // SAFETY: the name of a registered VFS ends with a zero.
    let name = (!vfs.zName.is_null()).then(|| unsafe { CStr::from_ptr(vfs.zName) });
    options.transparent_vfs.is_some() && options.transparent_vfs == name
}

/// Catches a VFS that is not what the program has taken it for, as far as lengths
/// tell. A checkpoint of another process may be making the file longer.
fn is_as_long_as_its_path(file: &EngineFile) -> Result<bool> {
    let before = file.len()?;
    let Ok(there) = std::fs::metadata(file.path()) else {
        return Ok(false);
    };
    let lens = [before, file.len()?];
    Ok(there.is_file() && lens.contains(&there.size()))
}
