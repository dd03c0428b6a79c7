//! Our errors as the engine's result codes.

use std::ffi::{CString, c_int};
use std::io::{self, ErrorKind};
use std::{error, fmt};

use libsql_ffi as ffi;
use wal_core::{Error, Lock};

/// What a VFS of the engine has answered. The protocol above it passes it on
/// within its own errors.
#[derive(Debug)]
struct Answer(c_int);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", ffi::code_to_str(self.0), self.0)
    }
}

impl error::Error for Answer {}

/// The error for what a VFS has answered, which [`of`] gives back.
pub(crate) fn answered(code: c_int) -> io::Error {
    let kind = match code & 0xff {
        ffi::SQLITE_FULL => ErrorKind::StorageFull,
        ffi::SQLITE_NOMEM => ErrorKind::OutOfMemory,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, Answer(code))
}

/// The answer of a VFS that is the reason of `source`.
fn answer_in(source: &io::Error) -> Option<c_int> {
    let answer = source.get_ref()?.downcast_ref::<Answer>()?;
    Some(answer.0)
}

/// The result code for `error`.
pub(crate) fn of(error: &Error) -> c_int {
    match error {
        Error::Busy {
            lock: Lock::Recover | Lock::CheckpointAndRecover,
            ..
        } => ffi::SQLITE_BUSY_RECOVERY,
        Error::Busy { .. }
        | Error::OwnWrite { .. }
        | Error::Locked { .. }
        | Error::Superseded { .. } => ffi::SQLITE_BUSY,
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
        } => answer_in(source).unwrap_or_else(|| of_call(operation, source.kind())),
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

/// True if a VFS has answered that it is busy, and this is why `error` is.
pub(crate) fn is_busy_vfs(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if answer_in(source) == Some(ffi::SQLITE_BUSY))
}

/// True if `error` says that another connection blocks the operation.
pub(crate) fn is_busy(error: &Error) -> bool {
    of(error) & 0xff == ffi::SQLITE_BUSY
}

/// The result code for `error`, which is noted in the engine's log unless another
/// connection or the caller is the reason.
pub(crate) fn told(error: &Error) -> c_int {
    let code = of(error);
    if !error.is_busy()
        && !is_busy(error)
        && !matches!(error, Error::Cancelled)
        && let Ok(message) = CString::new(error.to_string())
    {
        tell(code, &message);
    }
    code
}

/// Notes `message` in the engine's log.
#[allow(unsafe_code)]
pub(crate) fn tell(code: c_int, message: &CString) {
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
    fn answer_of_a_vfs_is_the_code_as_it_is() {
        for code in [
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_FULL,
            ffi::SQLITE_ERROR,
            ffi::SQLITE_IOERR_CORRUPTFS,
            ffi::SQLITE_READONLY_DBMOVED,
        ] {
            let failed = Error::io(&PathBuf::from("db"), "write", answered(code));
            assert_eq!(of(&failed), code);
            let unknown = Error::DurabilityUnknown {
                path: PathBuf::from("db-wal"),
                source: Box::new(failed),
            };
            assert_eq!(of(&unknown), code);
        }
    }

    #[test]
    fn a_stale_snapshot_is_not_a_busy_lock() {
        assert_eq!(of(&Error::BusySnapshot), ffi::SQLITE_BUSY_SNAPSHOT);
    }
}
