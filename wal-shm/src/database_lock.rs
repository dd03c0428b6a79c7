//! The locks on the database file (`unixLock`, "Posix Advisory Locking").
//!
//! Everyone who uses the database holds SHARED on its file from before the
//! first look at `-wal` or `-shm` until after the last. Whoever can turn it
//! into EXCLUSIVE is alone, and may remove those two files.

use std::path::Path;

use wal_core::storage::{ByteLocks, File, LockKind, OpenMode, OsFile, database_bytes};
use wal_core::{Error, LockMode, Result};

/// SHARED on a database file, for a program that reads the file alone.
///
/// While it is held, no process changes the journal mode, writes in rollback mode, or removes
/// `-wal` or `-shm` as the last closer. It does not keep a process from attaching to the
/// wal-index and writing a log: then `-shm` exists, and still exists when this is released. So
/// a program that finds neither `-shm` nor a log, both before and after it has read the
/// database file, has read one state.
#[derive(Debug)]
pub struct HeldShared {
    database: OsFile,
}

impl HeldShared {
    /// Acquires SHARED on the database at `path`, which is opened for reading. It waits for
    /// no other process.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process holds EXCLUSIVE or PENDING, [`Error::Io`].
    pub fn acquire(path: &Path) -> Result<Self> {
        // Parked when it is dropped, because closing it would drop the locks of a stock
        // SQLite in this process.
        let database = OsFile::open_for_locks(path, OpenMode::ReadOnly)?;
        lock_shared(&database, LOCKS)?;
        Ok(HeldShared { database })
    }

    /// The database file.
    #[must_use]
    pub fn file(&self) -> &OsFile {
        &self.database
    }
}

impl Drop for HeldShared {
    fn drop(&mut self) {
        if let Ok(file) = self.database.as_file() {
            // A lock that cannot be released is released when the process ends.
            let _ = LOCKS.unlock(file, database_bytes::ALL);
        }
    }
}

const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// Takes SHARED.
///
/// The byte PENDING is read-locked for the moment, so that someone who waits
/// for all readers to leave can keep new ones out.
pub(crate) fn lock_shared(database: &OsFile, locks: ByteLocks) -> Result<()> {
    let file = database.as_file()?;
    let shared = |bytes| locks.try_lock(file, bytes, LockMode::Shared);
    let io = |e| Error::io(database.path(), "lock", e);
    if !shared(database_bytes::PENDING).map_err(io)? {
        return Err(locked(database));
    }
    let got = shared(database_bytes::SHARED);
    locks.unlock(file, database_bytes::PENDING).map_err(io)?;
    if got.map_err(io)? {
        Ok(())
    } else {
        Err(locked(database))
    }
}

/// Turns SHARED into EXCLUSIVE, if nobody else holds SHARED.
pub(crate) fn try_lock_exclusive(database: &OsFile, locks: ByteLocks) -> Result<bool> {
    locks
        .try_lock(
            database.as_file()?,
            database_bytes::SHARED,
            LockMode::Exclusive,
        )
        .map_err(|e| Error::io(database.path(), "lock", e))
}

/// Runs `make` under EXCLUSIVE, with SHARED held before and after. Stock SQLite that has seen
/// the file empty under SHARED may write to it once it gets RESERVED, so that is not enough to
/// make the file something else.
pub(crate) fn while_exclusive<T>(
    database: &OsFile,
    locks: ByteLocks,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let io = |e| Error::io(database.path(), "lock", e);
    let file = database.as_file()?;
    let pending = database_bytes::PENDING;
    let lock = |bytes, mode| locks.try_lock(file, bytes, mode).map_err(io);
    if !lock(pending.clone(), LockMode::Exclusive)? {
        return Err(locked(database));
    }
    let made = match lock(database_bytes::SHARED, LockMode::Exclusive) {
        Ok(true) => {
            let made = make();
            // PENDING keeps others out until this is SHARED again.
            lock(database_bytes::SHARED, LockMode::Shared)?;
            made
        }
        Ok(false) => Err(locked(database)),
        Err(e) => Err(e),
    };
    locks.unlock(file, pending).map_err(io)?;
    made
}

fn locked(database: &OsFile) -> Error {
    Error::Locked {
        path: database.path().to_owned(),
    }
}
