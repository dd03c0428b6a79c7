//! What can go wrong, as few kinds that a caller treats differently.

use std::io;
use std::path::{Path, PathBuf};

use crate::types::Lock;

/// The result of every operation of the log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation did not happen.
///
/// Each message names the file and the operation where there is one, the
/// reason, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else holds a lock that the operation needs. Trying again
    /// later can succeed.
    #[error("{}: busy: {} the {lock} lock; try again", path.display(), named(holders))]
    Busy {
        /// The database.
        path: PathBuf,
        /// The lock that was not to be had.
        lock: Lock,
        /// The processes that hold it, as far as the system tells; this
        /// process may be among them. One of another container is not: its number means
        /// nothing here.
        holders: Vec<u32>,
    },

    /// The operation waited for the write transaction that its own thread began and has not
    /// ended, so neither could proceed. End that one; to try again helps only if it was
    /// moved to another thread.
    ///
    /// Within the closure of [`Wal::write`](crate::protocol::Wal::write) that is known at
    /// once. A transaction that was begun otherwise may have been moved to another thread,
    /// so it has to stay untouched there for a quarter of a second; a wait with
    /// [`BusyHandler::ask`](crate::protocol::BusyHandler::ask) goes by its function.
    #[error("{}: this thread waits for its own write transaction, which has the write lock; commit it, drop it, or pass it on instead of beginning another one", path.display())]
    OwnWrite {
        /// The database.
        path: PathBuf,
    },

    /// The operation waited, and was cancelled from another thread
    /// ([`crate::protocol::Cancel`], `SQLITE_INTERRUPT`).
    #[error("cancelled while waiting for another connection; nothing was changed")]
    Cancelled,

    /// The snapshot of the read transaction is not the newest one any more,
    /// so it cannot be upgraded to write (`SQLITE_BUSY_SNAPSHOT`). Waiting
    /// does not help: end the read transaction and begin again.
    #[error(
        "the snapshot is stale: another connection wrote since it was taken; end the transaction and begin again"
    )]
    BusySnapshot,

    /// The database is owned by one other connection: `locking_mode=EXCLUSIVE`,
    /// an in-process backend, a rollback, or the last closer at work.
    #[error("{}: locked: another connection owns the whole database; close it, or try again", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },

    /// The protocol made no progress within its bound, because others kept
    /// changing the state (`SQLITE_PROTOCOL`).
    #[error("{}: no snapshot after {attempts} attempts, others kept changing the log; try again", path.display())]
    Protocol {
        /// The database.
        path: PathBuf,
        /// How often it was tried.
        attempts: u32,
    },

    /// A file holds what no correct program would have written.
    #[error("{}: corrupt: {reason}; restore it from a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },

    /// The file is of a kind or in a state that this library does not open.
    #[error("{}: cannot be opened: {reason}", path.display())]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },

    /// The database is in rollback-journal mode, not in WAL mode.
    #[error("{}: in rollback-journal mode; run `PRAGMA journal_mode=WAL` on it once, then open it again", path.display())]
    NotWalMode {
        /// The database.
        path: PathBuf,
    },

    /// A rollback journal with unfinished work lies beside the database.
    #[error(
        "{}: a rollback journal with unfinished work lies here; if it belongs to the SQLite database of this name, open that once with stock SQLite, which rolls it back; otherwise move the journal away first, as SQLite rolls it into whatever has the name",
        path.display()
    )]
    HotJournal {
        /// The journal.
        path: PathBuf,
    },

    /// Page sizes that must agree do not.
    #[error(
        "{}: page size {found} where the database has {expected}; the log beside it is another database's: restore both from one backup",
        path.display()
    )]
    PageSizeMismatch {
        /// The file whose page size is wrong.
        path: PathBuf,
        /// The page size of the database.
        expected: u32,
        /// The page size that was found.
        found: u32,
    },

    /// The log cannot follow from the database file beside which it lies: one of them was
    /// restored or replaced.
    #[error(
        "{}: the log does not seem to follow from the database beside it: {reason}; restore both from one backup; if the database alone was restored, move the log away; to use both as they are, open without `Options::refuse_foreign_log`",
        path.display()
    )]
    ForeignLog {
        /// The log.
        path: PathBuf,
        /// What is different.
        reason: &'static str,
    },

    /// A number is no page size.
    #[error("{bytes} is no page size: a power of two from 512 to 65536 is needed")]
    InvalidPageSize {
        /// The number.
        bytes: u32,
    },

    /// Page numbers begin at 1.
    #[error("0 is no page number: the first page is 1")]
    InvalidPageNo,

    /// The page is beyond the end of this snapshot's database, or is the page
    /// of the lock bytes, which holds no data.
    #[error("page {page} is not a page of this snapshot, which has {page_count} pages")]
    NoSuchPage {
        /// The page that was asked for.
        page: u32,
        /// The size of the database in pages, in this snapshot.
        page_count: u32,
    },

    /// The savepoint is of another transaction, or was released, or rolled
    /// back over.
    #[error("no such savepoint: it was released, rolled back over, or is another transaction's")]
    NoSuchSavepoint,

    /// The handle was made before a `fork` and is used in the child.
    #[error(
        "the handle was opened before fork() and is used in the child; open the database again in the child"
    )]
    UsedAfterFork,

    /// An earlier sync of this handle failed, so what reached the disk is
    /// unknown. The handle refuses to write.
    #[error("{}: an earlier sync failed, so this handle does not write any more; close it and open the database again", path.display())]
    Poisoned {
        /// The file whose sync failed.
        path: PathBuf,
    },

    /// A file was removed or renamed, or another one was put in its place, while it was
    /// open. What is written to it from now on would be lost.
    #[error("{}: removed, renamed or replaced while it was open; nothing more is written to it: close the database and open it again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },

    /// The database was opened to be read only.
    #[error("{}: opened read-only; open it without that option to change it", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },

    /// The wal-index was left half-written by a writer that died, and this
    /// handle may not mend it (`SQLITE_READONLY_RECOVERY`). Trying again can
    /// succeed once any writer has come.
    #[error("{}: the wal-index is damaged and must be recovered by a process that may write; open the database once for writing", path.display())]
    NeedsRecovery {
        /// The database.
        path: PathBuf,
    },

    /// A private index can no longer be used, because another process has
    /// attached to the shared one. Opening the database again joins it there.
    #[error("{}: another process has begun to use the database for writing; open it again to read along", path.display())]
    Superseded {
        /// The database.
        path: PathBuf,
    },

    /// A saved snapshot cannot be opened any more: the log began anew, or a
    /// checkpoint went beyond it (`SQLITE_ERROR_SNAPSHOT`).
    #[error("{}: the log does not have this snapshot any more; begin to read at the newest state", path.display())]
    SnapshotGone {
        /// The database.
        path: PathBuf,
    },

    /// A read transaction lasts longer than it may. As long as it is there, it
    /// keeps the log from beginning anew.
    #[error("{}: the read transaction is older than the age limit; end it and begin again", path.display())]
    SnapshotTooOld {
        /// The database.
        path: PathBuf,
    },

    /// The log has reached the limit for writers, and somebody keeps it from
    /// beginning anew. Trying again later can succeed.
    #[error("{}: the log has {frames} frames, and {} the {lock} lock, so it cannot begin anew; end old read transactions, or try again", path.display(), named(holders))]
    LogFull {
        /// The database.
        path: PathBuf,
        /// The frames in the log.
        frames: u32,
        /// The lock that was not to be had.
        lock: Lock,
        /// The processes that hold it, as far as the system tells; this
        /// process may be among them.
        holders: Vec<u32>,
    },

    /// A frame was given to be applied before those that come before it.
    #[error("{}: frame {given} was given where {next} is the next one; give the frames from there on", path.display())]
    FrameGap {
        /// The database.
        path: PathBuf,
        /// The frame that is the next one.
        next: u32,
        /// The frame that was given.
        given: u32,
    },

    /// A frame was given to be applied to a log that is not the beginning of
    /// the frame's own. No frame mends that.
    #[error("{}: no replica of the log that frame {frame} is from: {reason}; copy the database anew", path.display())]
    Diverged {
        /// The database.
        path: PathBuf,
        /// The frame that was given; 0 for the header of a log.
        frame: u32,
        /// What is different.
        reason: &'static str,
    },

    /// A [`crate::protocol::BackfillProof`] does not hold any more. Checkpoint
    /// again, and prove that.
    #[error(
        "the proof that {max_frame} frames are in the database file does not hold: {why}; checkpoint again"
    )]
    ProofRefused {
        /// The frames that the proof spoke of.
        max_frame: u32,
        /// What is different.
        why: &'static str,
    },

    /// What was asked for would damage the database, or makes no sense.
    #[error("{}: {operation} refused: {reason}", path.display())]
    Refused {
        /// The database.
        path: PathBuf,
        /// What was asked for.
        operation: &'static str,
        /// Why it is refused, and what to do.
        reason: String,
    },

    /// The commit frame may or may not have reached the log. Open the
    /// database again to see which.
    #[error("{}: the outcome of the commit is unknown ({source}); open the database again to see whether it is there", path.display())]
    CommitOutcomeUnknown {
        /// The log.
        path: PathBuf,
        /// What failed past the commit frame.
        source: Box<Error>,
    },

    /// The commit is there for everybody to see, but a sync has failed, so a
    /// power failure may undo it. See
    /// [`WalConfig::group_commit`](crate::protocol::WalConfig::group_commit).
    #[error("{}: the commit is visible, but it may not survive a power failure ({source}); close the database and open it again to go on", path.display())]
    DurabilityUnknown {
        /// The log.
        path: PathBuf,
        /// The sync that failed.
        source: Box<Error>,
    },

    /// The system refused a call, or would for want of room
    /// ([`Error::is_storage_full`]).
    #[error("{}: {operation} failed: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Wraps what the system said about `operation` on `path`.
    pub fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        Error::Io {
            path: path.to_owned(),
            operation,
            source,
        }
    }

    /// Says that `path` holds what it must not.
    pub fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Error::Corrupt {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// Says that `path` cannot be opened.
    pub fn cannot_open(path: &Path, reason: impl Into<String>) -> Self {
        Error::CannotOpen {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// Says that `operation` on `path` is not done.
    pub(crate) fn refused(path: &Path, operation: &'static str, reason: impl Into<String>) -> Self {
        Error::Refused {
            path: path.to_owned(),
            operation,
            reason: reason.into(),
        }
    }

    /// True if the file system has no room, or the quota is used up: the same call can
    /// succeed once some space is free.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_for_want_of_room(source))
    }

    /// True if the state that the caller began on is gone: the same call never succeeds
    /// again, but the whole work can, begun again on the newest state. For a read
    /// transaction that is a new one; for a saved snapshot the newest one; for a tail that
    /// is resumed, a new copy of the database.
    ///
    /// An error has this property, or [`Error::is_busy`], or neither.
    pub fn must_begin_again(&self) -> bool {
        matches!(
            self,
            Error::BusySnapshot | Error::SnapshotTooOld { .. } | Error::SnapshotGone { .. }
        )
    }

    /// True if the same call can succeed once another connection has moved on.
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Error::Busy { .. }
                | Error::OwnWrite { .. }
                | Error::LogFull { .. }
                | Error::Locked { .. }
                | Error::Protocol { .. }
                | Error::NeedsRecovery { .. }
        )
    }
}

fn is_for_want_of_room(source: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(source.kind(), StorageFull | QuotaExceeded)
}

/// What to do about a call that failed, for a message.
fn remedy(source: &io::Error) -> &'static str {
    match is_for_want_of_room(source) {
        true => "; free some space, then try again",
        false => "",
    }
}

/// Who holds a lock, for a message.
fn named(holders: &[u32]) -> String {
    match holders {
        [] => "another connection, perhaps a process in another container, holds".to_owned(),
        [pid] => format!("process {pid} holds"),
        pids => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("processes {} hold", pids.join(", "))
        }
    }
}
