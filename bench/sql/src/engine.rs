//! The engine on either log.
#![allow(unsafe_code)] // libSQL's own log is had by the raw call alone.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wal_libsql::{BackendKind, Connection, OpenOptions, ffi};

/// How long a connection waits for other connections.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Which log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Log {
    /// libSQL's own.
    #[serde(rename = "libsql")]
    Theirs,
    /// Ours.
    #[serde(rename = "wal")]
    Ours,
}

impl Log {
    /// The name on a command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Log::Theirs => "theirs",
            Log::Ours => "ours",
        }
    }

    /// Opens the database at `path`.
    pub(crate) fn open(self, path: &Path) -> Result<Connection> {
        let connection = match self {
            Log::Ours => OpenOptions::new(BackendKind::Shared)
                .busy_timeout(BUSY_TIMEOUT)
                .open(path)?,
            Log::Theirs => open_with_its_own(path)?,
        };
        connection.execute("PRAGMA journal_mode=WAL")?;
        Ok(connection)
    }
}

fn open_with_its_own(path: &Path) -> Result<Connection> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
    let mut db = ptr::null_mut();
    // SAFETY: the name ends with a zero, and there is room for the answer.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, ptr::null()) };
    ensure!(code == ffi::SQLITE_OK, "opening gave {code}");
    let db = NonNull::new(db).context("no connection")?;
    let timeout = i32::try_from(BUSY_TIMEOUT.as_millis())?;
    // The busy handler is the engine's own, too.
    // SAFETY: the connection is open.
    unsafe { ffi::sqlite3_busy_timeout(db.as_ptr(), timeout) };
    // SAFETY: it was just opened, and no other code has it.
    Ok(unsafe { Connection::from_raw(db) })
}
