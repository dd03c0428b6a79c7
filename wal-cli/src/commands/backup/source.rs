//! How the database is opened.
//!
//! Where `-shm` exists, the copy is a read transaction: a process that has the database open
//! goes on, and the files that a process left when it was killed are read as they are.
//!
//! Where neither `-shm` nor a log exists, no process has the database open, and there is no
//! lock that would keep a later one from a checkpoint. To make `-shm` for that would change
//! the folder, and is impossible on read-only media. So the database file is copied with
//! SHARED held on it, and both files are looked for again at the end: a process that came in
//! between has made them, and cannot have removed them. Then the copy is made anew.

use std::path::Path;

use wal::{Database, Error, Options, ReadStrategy};
use wal_core::protocol::{Expected, inspect};
use wal_shm::HeldShared;
use wal_shm::inspect::DatabaseFile;

use super::has_bytes;

/// How often a database is opened that is just made or left by another process.
const MAX_ATTEMPTS: u32 = 100;

/// The database to copy.
pub(super) struct Source {
    database: Database,
    /// SHARED on the file of a database that no process has open, until the copy is done;
    /// `None` if it is copied by a read transaction.
    idle: Option<HeldShared>,
}

impl Source {
    /// Opens the database at `path`, which has no symbolic links.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub(super) fn open(path: &Path) -> wal::Result<Self> {
        let mut attempts = 0;
        loop {
            let had_index = has_index(path);
            let opened = match had_index {
                true => Self::attach(path),
                false => Self::hold_idle(path),
            };
            // The first user has made the index, or the last one has removed it, in between.
            let is_outdated = opened.is_err() && has_index(path) != had_index;
            attempts += 1;
            if !is_outdated || attempts == MAX_ATTEMPTS {
                return opened;
            }
        }
    }

    fn attach(path: &Path) -> wal::Result<Self> {
        let options = reading().read_only(true);
        Ok(Source {
            database: options.open(path)?,
            idle: None,
        })
    }

    fn hold_idle(path: &Path) -> wal::Result<Self> {
        let shared = HeldShared::acquire(path)?;
        let expected = Expected {
            read_only: true,
            ..Expected::default()
        };
        inspect(shared.file(), expected)?;
        let log = DatabaseFile::Log.path(path);
        if has_index(path) || has_bytes(&log) {
            let reason = "it has no -shm file beside it, and no process has the database open; \
                open the database once by the program that uses it, or copy both by \
                `walctl recover`";
            return Err(Error::cannot_open(&log, reason));
        }
        Ok(Source {
            database: reading().immutable(true).open(path)?,
            idle: Some(shared),
        })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Whether all that was read is one state.
    pub(super) fn is_unchanged(&self) -> bool {
        let path = self.database.path();
        let is_idle = !has_index(path) && !has_bytes(&DatabaseFile::Log.path(path));
        self.idle.is_none() || is_idle
    }
}

/// A file that a program cuts regardless of the locks ends a process that has it mapped, so
/// pages are read by calls.
fn reading() -> Options {
    Options::new().read_strategy(ReadStrategy::Pread)
}

fn has_index(path: &Path) -> bool {
    DatabaseFile::Index.path(path).exists()
}
