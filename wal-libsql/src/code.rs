//! Our errors as the engine's result codes.

use std::ffi::{CString, c_int};
use std::io::ErrorKind;

use libsql_ffi as ffi;
use wal_core::{Error, Lock};

/// The result code for `error`.
pub(crate) fn of(error: &Error) -> c_int {
    match error {
        Error::Busy {
            lock: Lock::Recover | Lock::CheckpointAndRecover,
            ..
        } => ffi::SQLITE_BUSY_RECOVERY,
        Error::Busy { .. } | Error::Locked { .. } | Error::Superseded { .. } => ffi::SQLITE_BUSY,
        Error::BusySnapshot => ffi::SQLITE_BUSY_SNAPSHOT,
        Error::Protocol { .. } => ffi::SQLITE_PROTOCOL,
        Error::Cancelled => ffi::SQLITE_INTERRUPT,
        Error::Corrupt { .. } | Error::PageSizeMismatch { .. } | Error::InvalidPageNo => {
            ffi::SQLITE_CORRUPT
        }
        Error::CannotOpen { .. } => ffi::SQLITE_CANTOPEN,
        Error::ReadOnly { .. } => ffi::SQLITE_READONLY,
        Error::NeedsRecovery { .. } => ffi::SQLITE_READONLY_RECOVERY,
        Error::Replaced { .. } => ffi::SQLITE_READONLY_DBMOVED,
        Error::Poisoned { .. } => ffi::SQLITE_IOERR_FSYNC,
        Error::CommitOutcomeUnknown { source, .. } | Error::DurabilityUnknown { source, .. } => {
            of(source)
        }
        Error::UsedAfterFork => ffi::SQLITE_MISUSE,
        Error::Io {
            operation, source, ..
        } => of_call(operation, source.kind()),
        _ => ffi::SQLITE_ERROR,
    }
}

fn of_call(operation: &str, kind: ErrorKind) -> c_int {
    match (operation, kind) {
        (_, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => ffi::SQLITE_FULL,
        (_, ErrorKind::OutOfMemory) => ffi::SQLITE_NOMEM,
        ("read", _) => ffi::SQLITE_IOERR_READ,
        ("write", _) => ffi::SQLITE_IOERR_WRITE,
        ("sync", _) => ffi::SQLITE_IOERR_FSYNC,
        ("truncate", _) => ffi::SQLITE_IOERR_TRUNCATE,
        ("open", _) => ffi::SQLITE_CANTOPEN,
        ("stat" | "fstat", _) => ffi::SQLITE_IOERR_FSTAT,
        ("lock", _) => ffi::SQLITE_IOERR_LOCK,
        ("unlock", _) => ffi::SQLITE_IOERR_UNLOCK,
        ("remove", _) => ffi::SQLITE_IOERR_DELETE,
        ("mmap", _) => ffi::SQLITE_IOERR_MMAP,
        _ => ffi::SQLITE_IOERR,
    }
}

/// The result code for `error`, of which the engine's log is told, if it is
/// more than somebody being in the way.
pub(crate) fn told(error: &Error) -> c_int {
    let code = of(error);
    if !error.is_busy()
        && !matches!(error, Error::BusySnapshot | Error::Cancelled)
        && let Ok(message) = CString::new(error.to_string())
    {
        tell(code, &message);
    }
    code
}

#[allow(unsafe_code)]
fn tell(code: c_int, message: &CString) {
    // SAFETY: the format takes one string, which ends with a zero.
    unsafe { ffi::sqlite3_log(code, c"%s".as_ptr(), message.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn the_outcome_of_a_commit_has_the_code_of_what_failed() {
        let failed = Error::io(&PathBuf::from("db-wal"), "sync", ErrorKind::Other.into());
        let unknown = Error::CommitOutcomeUnknown {
            path: PathBuf::from("db-wal"),
            source: Box::new(failed),
        };
        assert_eq!(of(&unknown), ffi::SQLITE_IOERR_FSYNC);
    }

    #[test]
    fn a_call_that_failed_has_the_code_of_its_kind() {
        let code = |operation, kind: ErrorKind| {
            of(&Error::io(&PathBuf::from("db-wal"), operation, kind.into()))
        };
        assert_eq!(code("write", ErrorKind::Other), ffi::SQLITE_IOERR_WRITE);
        assert_eq!(code("write", ErrorKind::StorageFull), ffi::SQLITE_FULL);
        assert_eq!(code("mmap", ErrorKind::OutOfMemory), ffi::SQLITE_NOMEM);
        assert_eq!(code("grow", ErrorKind::Other), ffi::SQLITE_IOERR);
    }

    #[test]
    fn a_stale_snapshot_is_not_a_busy_lock() {
        assert_eq!(of(&Error::BusySnapshot), ffi::SQLITE_BUSY_SNAPSHOT);
    }
}
