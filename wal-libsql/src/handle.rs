//! An open log as the engine holds it, and when it is opened again.
//!
//! A log on which a sync has failed, or whose private index is superseded, gives
//! way to a new one between two transactions, so that the connection goes on as
//! it does on the engine's own log.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;

use libsql_ffi as ffi;
use wal_core::protocol::CheckpointReport;
use wal_core::{Error, Result};

use crate::code;
use crate::engine_file::EngineFile;
use crate::guard::guarded;
use crate::log::{Checkpoint, Log};

/// Opens the log of a connection, the first time and again.
pub(crate) type OpenLog = Box<dyn Fn(&Arc<EngineFile>) -> Result<Box<dyn Log>>>;

/// Its address marks what is ours.
static OURS: u8 = 0;

/// What the engine's `wal_impl` points to.
#[repr(C)]
pub(crate) struct Handle {
    /// The first field, where the engine's own log has the address of its VFS.
    mark: *const u8,
    pub(crate) log: Box<dyn Log>,
    open: OpenLog,
    database: Arc<EngineFile>,
    /// What the engine takes for the file of the log: one that is not open.
    file: ffi::sqlite3_file,
}

impl Handle {
    /// A log whose private index is superseded is opened again, and joins the
    /// index that others share.
    pub(crate) fn begin_read(&mut self) -> Result<bool> {
        self.log.end_read();
        self.heal()?;
        match self.log.begin_read() {
            Err(Error::Superseded { .. }) => {
                self.reopen()?;
                self.log.begin_read()
            }
            begun => begun,
        }
    }

    /// Opens the log again, between two transactions, if a sync has failed that
    /// keeps the open one from writing. The new one is like that of any other
    /// connection: it writes the log again before it relies on it.
    fn heal(&mut self) -> Result<()> {
        match self.log.can_heal() {
            true => self.reopen(),
            false => Ok(()),
        }
    }

    /// Runs a checkpoint for `db`; true if it was held back. A VFS that is busy
    /// holds it back as a reader does (`walCheckpoint`).
    ///
    /// # Safety
    /// `db` is open, and stays so.
    pub(crate) unsafe fn checkpoint(
        &mut self,
        db: *mut ffi::sqlite3,
        request: Checkpoint,
        sync_flags: c_int,
    ) -> Result<(CheckpointReport, bool)> {
        self.heal()?;
        let (log, database) = (&mut self.log, &self.database);
        log.set_sync_flags(sync_flags);
        // SAFETY: as the caller says.
        match unsafe { database.while_interruptible(db, || log.checkpoint(request)) } {
            Ok(report) => {
                let is_held_back = report.held_back_by.is_some();
                Ok((report, is_held_back))
            }
            Err(error) if code::is_busy_vfs(&error) => {
                self.heal()?;
                Ok((self.log.checkpointed()?, true))
            }
            Err(error) => Err(error),
        }
    }

    fn reopen(&mut self) -> Result<()> {
        let mut log = (self.open)(&self.database)?;
        log.succeed(&mut *self.log)?;
        self.log = log;
        Ok(())
    }
}

/// Gives a log to the engine.
///
/// # Errors
/// What opening it gives.
pub(crate) fn open(database: Arc<EngineFile>, open: OpenLog) -> Result<*mut ffi::wal_impl> {
    let handle = Handle {
        mark: &raw const OURS,
        log: open(&database)?,
        open,
        database,
        file: ffi::sqlite3_file {
            pMethods: std::ptr::null(),
        },
    };
    Ok(Box::into_raw(Box::new(handle)).cast())
}

/// Whether [`open`] gave this log; if not, the engine's own manager did.
///
/// # Safety
/// It is open.
pub(crate) unsafe fn is_ours(wal: *mut ffi::wal_impl) -> bool {
    // SAFETY: both kinds of logs begin with an address (`sqlite3_wal`), and no VFS
    // is where `OURS` is.
    let mark = unsafe { wal.cast::<*const u8>().read() };
    mark == &raw const OURS
}

/// Takes back what [`open`] gave, and closes it.
///
/// # Safety
/// It is what [`open`] gave, and nobody uses it any more.
pub(crate) unsafe fn close(
    wal: *mut ffi::wal_impl,
    sync_flags: c_int,
    clean_up: bool,
) -> Result<()> {
    // SAFETY: as the caller says.
    let mut handle = unsafe { Box::from_raw(wal.cast::<Handle>()) };
    handle.log.set_sync_flags(sync_flags);
    if clean_up {
        handle.log.end_read();
        handle.heal()?;
    }
    handle.log.close(clean_up)
}

/// What the engine takes for the file of the log. It stays until the log is closed.
///
/// # Safety
/// `wal` is what [`open`] gave.
pub(crate) unsafe fn file(wal: *mut ffi::wal_impl) -> *mut ffi::sqlite3_file {
    // SAFETY: as the caller says.
    unsafe { &raw mut (*wal.cast::<Handle>()).file }
}

/// Runs `entry`, which gives a result code, with the log behind `wal`.
///
/// # Safety
/// As for [`ask`].
pub(crate) unsafe fn with(
    wal: *mut ffi::wal_impl,
    entry: impl FnOnce(&mut dyn Log) -> c_int,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { ask(wal, ffi::SQLITE_INTERNAL, |handle| entry(&mut *handle.log)) }
}

/// Gives the answer of `entry`, or `otherwise` if it panics.
///
/// # Safety
/// `wal` is what [`open`] gave, and nobody else uses it meanwhile: the engine
/// holds the mutex of the connection, or of the cache that connections share.
pub(crate) unsafe fn ask<T>(
    wal: *mut ffi::wal_impl,
    otherwise: T,
    entry: impl FnOnce(&mut Handle) -> T,
) -> T {
    guarded(otherwise, || {
        // SAFETY: as the caller says.
        entry(unsafe { &mut *wal.cast::<Handle>() })
    })
}
