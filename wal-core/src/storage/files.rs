//! The database file and its log, as files of the operating system.

use std::fmt;
use std::sync::Arc;

use super::{File, LOOK_IN_PLACE_EVERY, NowAndThen, OpenMode, OsFile, Storage};
use crate::error::Result;

/// The database file, opened by a backend, and the log beside it.
pub struct OsStorage {
    database: Arc<OsFile>,
    log: OsFile,
    in_place: NowAndThen,
}

impl fmt::Debug for OsStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsStorage")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl OsStorage {
    /// Opens the log of `database`, and makes it if it is not there. The
    /// caller holds SHARED or more on the database file, so that nobody can
    /// remove the log meanwhile. `mapped` says whether its pages are read from
    /// a mapping.
    ///
    /// # Errors
    /// What opening the log gives.
    pub fn open(database: Arc<OsFile>, mapped: bool) -> Result<Self> {
        let place = database.held_path().beside("-wal");
        let log = OsFile::open_at(place, OpenMode::CreateLike(&database))?.with_mapping(mapped);
        Ok(OsStorage {
            database,
            log,
            in_place: NowAndThen::new(LOOK_IN_PLACE_EVERY),
        })
    }
}

impl Storage for OsStorage {
    fn database(&self) -> &dyn File {
        &*self.database
    }

    fn log(&self) -> &dyn File {
        &self.log
    }

    fn check_in_place(&self) -> Result<()> {
        if !self.in_place.is_due() {
            return Ok(());
        }
        let both = self.database.check_in_place();
        both.and_then(|()| self.log.check_in_place())
            .inspect_err(|_| self.in_place.make_due())
    }

    fn remove_log(&self) -> Result<()> {
        self.log.held_path().remove()
    }

    fn sync_directory(&self) -> Result<()> {
        self.log.held_path().sync_directory()
    }
}
