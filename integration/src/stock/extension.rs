//! Loads an extension into the bundled SQLite of this process.

// Loading an extension runs foreign code, which rusqlite cannot vouch for.
#![allow(unsafe_code)]

use std::ffi::OsStr;

use anyhow::Result;
use rusqlite::{Connection, LoadExtensionGuard};

/// Loads `library` by way of a connection that is then closed: what it registers stays with the
/// process.
///
/// # Errors
///
/// When it cannot be loaded.
pub fn load(library: &OsStr) -> Result<()> {
    let connection = Connection::open_in_memory()?;
    // SAFETY: no SQL from elsewhere runs on this connection while it may load
    // extensions.
    let _guard = unsafe { LoadExtensionGuard::new(&connection) }?;
    // SAFETY: the caller names a library made for SQLite.
    unsafe { connection.load_extension(library, None::<&str>) }?;
    Ok(())
}
