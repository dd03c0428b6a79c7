//! How logs are opened.

use std::ffi::CStr;
use std::time::Duration;

use wal_core::storage::LockKind;

/// Which users can share a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// Any number of processes and connections, those of stock SQLite too.
    #[cfg(feature = "shm")]
    Shared,
    /// One connection alone, with the index of the log on the heap.
    #[cfg(feature = "inproc")]
    InProcess,
}

/// How logs are opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalOptions {
    pub(crate) backend: BackendKind,
    pub(crate) mapped: bool,
    pub(crate) network: bool,
    pub(crate) close_descriptors: bool,
    pub(crate) lock_kind: LockKind,
    /// `None` is the default of the backend.
    pub(crate) read_lock_delay: Option<Duration>,
    pub(crate) transparent_vfs: Option<&'static CStr>,
}

impl WalOptions {
    /// Logs of databases that are used as `backend` says.
    pub fn new(backend: BackendKind) -> Self {
        WalOptions {
            backend,
            mapped: true,
            network: false,
            close_descriptors: false,
            lock_kind: LockKind::default(),
            read_lock_delay: None,
            transparent_vfs: None,
        }
    }

    /// Whether pages of the log are read from a mapping, where its locks keep it still:
    /// for [`BackendKind::Shared`], and not on a network file system. On unless told
    /// otherwise. That assumes that no program, this one included, changes or cuts the
    /// log without SQLite's locks; off, nothing is assumed, and a log that was cut is an
    /// error and not a signal.
    #[must_use]
    pub fn mapped(mut self, mapped: bool) -> Self {
        self.mapped = mapped;
        self
    }

    /// Whether databases on network file systems are opened. Off unless told
    /// otherwise.
    #[must_use]
    pub fn allow_network_file_system(mut self, allow: bool) -> Self {
        self.network = allow;
        self
    }

    /// Says that no other copy of SQLite in this process uses the databases, nor a
    /// connection with libSQL's own log, so that the descriptor of a `-shm` file is closed
    /// with its last connection. Off unless told otherwise: it is kept, since closing it
    /// drops the locks of such a copy.
    #[must_use]
    pub fn close_descriptors(mut self, close: bool) -> Self {
        self.close_descriptors = close;
        self
    }

    /// Which locks of the system are used on `-shm`. A system without locks of open file
    /// descriptions (WSL 1, some sandboxes) needs [`LockKind::Classic`], as the engine's log of
    /// errors says there. They vanish when anything in this process closes the file, so no
    /// other copy of SQLite in it, and no connection with libSQL's own log, may use the
    /// database. [`BackendKind::Shared`] only; pages of the log are then copied.
    #[must_use]
    pub fn lock_kind(mut self, lock_kind: LockKind) -> Self {
        self.lock_kind = lock_kind;
        self
    }

    /// How long a process that reads often may keep a read lock after a reader has ended,
    /// so that the next one needs no system call; 1 ms by default. Zero turns that off.
    /// [`BackendKind::Shared`] only; the first connection of a process to a database decides
    /// for all.
    ///
    /// Other processes see the lock of a reader that has not ended yet. A checkpoint of
    /// this library reclaims it, one of stock SQLite may be incomplete or busy up to this
    /// long, and a process that is stopped while it reads at full speed keeps it.
    #[must_use]
    pub fn read_lock_delay(mut self, delay: Duration) -> Self {
        self.read_lock_delay = Some(delay);
        self
    }

    /// Says that the VFS called `name` passes every call on a database file on to the
    /// engine's VFS `unix`, under the name and with the bytes that it is given, as
    /// one that counts, traces or delays calls does. Databases on it have
    /// our log then, of which the VFS sees nothing. Unless this is said, only
    /// those that `unix` itself has opened have it, and any other database has
    /// libSQL's own log, which its VFS reads and writes.
    ///
    /// If the VFS does anything else with a file, the log of another database may
    /// be taken for that of this one.
    #[must_use]
    pub fn transparent_vfs(mut self, name: &'static CStr) -> Self {
        self.transparent_vfs = Some(name);
        self
    }
}
