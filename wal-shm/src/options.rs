//! How a database is attached to.

use std::time::Duration;

use wal_core::storage::LockKind;

/// How long the release of a read lock is delayed by default, at most.
const READ_LOCK_DELAY: Duration = Duration::from_millis(1);

/// What is done with a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Access {
    /// It is read and written.
    #[default]
    ReadWrite,
    /// It is only read, while others may write it. None of its files has to
    /// be writable, and none is written.
    ReadOnly,
    /// The database file alone is read, without a lock: no program may write it.
    /// If one does, what is read is of no single state. Pages are copied, so that
    /// one that was handed out stays as it is all the same.
    Immutable,
}

/// How a database is attached to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShmOptions {
    /// Which locks of the system are used; open-file-description locks unless
    /// told otherwise.
    pub lock_kind: LockKind,
    /// Whether to use the side file, for wake-ups between processes. On
    /// unless told otherwise; without it, whoever waits looks again every
    /// other millisecond.
    pub side_file: bool,
    /// Whether to open a database on a network file system. Off unless told
    /// otherwise.
    pub allow_network_file_system: bool,
    /// Whether to open a database file that may have another name, beside which processes
    /// find another log. Off by default.
    pub allow_other_names: bool,
    /// Whether pages are read from mappings of the files, where that is sound
    /// ([`crate::ShmWalCoordination::maps`]). On unless told otherwise.
    pub mapped: bool,
    /// How long a process that reads often may keep the lock of a read slot after its last
    /// reader, so that the next reader needs no system call; 1 ms by default. Zero turns
    /// that off, and needs no thread.
    ///
    /// "Often" is 17 reads in a row, each within a twentieth of this time after the one
    /// before, and from then on 10 in each half of it. The lock is released at once when
    /// the process acquires another slot, when the state that the slot serves is not the
    /// newest, and when a checkpoint of this library reclaims it through the side file.
    /// The first handle of a process on a database decides for all.
    pub read_lock_delay: Duration,
    /// What is done with the database; [`Access::ReadWrite`] unless told
    /// otherwise.
    pub access: Access,
    /// Whether the descriptors of the database and `-shm` are closed after the last use.
    /// Off unless told otherwise: they are kept without locks, and used again when this
    /// process opens the database again, because closing them drops the locks of every other
    /// SQLite in this process, beside which another process then writes. It is safe only if
    /// no other SQLite in this process uses the database. Where uses share an attachment,
    /// all of them have to say so.
    pub close_descriptors: bool,
}

impl Default for ShmOptions {
    fn default() -> Self {
        ShmOptions {
            lock_kind: LockKind::default(),
            side_file: true,
            allow_network_file_system: false,
            allow_other_names: false,
            mapped: true,
            read_lock_delay: READ_LOCK_DELAY,
            access: Access::default(),
            close_descriptors: false,
        }
    }
}
