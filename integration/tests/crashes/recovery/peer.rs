//! A live peer that is attached to a wal-index and does nothing: as long as it
//! is there, an opener joins and does not reset the file.

use std::fs::{File, OpenOptions};
use std::path::Path;

use wal_core::LockMode;
use wal_core::storage::{ByteLocks, LockKind, shm_bytes};

/// Holds the lock of those who are attached (DMS) until it is dropped.
pub(crate) struct Peer {
    _file: File,
}

impl Peer {
    /// Attaches to the wal-index at `path`, which is there. The lock belongs to
    /// the description, so openers in this process see it like another's.
    pub(crate) fn attach(path: &Path) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let attached = locks.try_lock(&file, shm_bytes::DMS, LockMode::Shared);
        assert!(attached.unwrap(), "somebody resets {}", path.display());
        Peer { _file: file }
    }
}
