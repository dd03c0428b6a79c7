//! The two files of a database: the engine's, and the log, which is ours.

use std::ffi::CString;
use std::sync::Arc;

use libsql_ffi as ffi;
use wal_core::format::DatabaseHeader;
#[cfg(feature = "shm")]
use wal_core::storage::ReadOnlyLog;
use wal_core::storage::{File, LOOK_IN_PLACE_EVERY, NowAndThen, OpenMode, OsFile, Storage};
use wal_core::{PageSize, Result};

use crate::code;
use crate::engine_file::EngineFile;

/// What an engine takes for the page size as long as nothing tells.
const UNTOLD: u32 = 4096;
/// Where the header of the log has it.
const PAGE_SIZE_IN_LOG: u64 = 8;

/// The files of one connection.
#[derive(Debug)]
pub(crate) struct EngineStorage {
    database: Arc<EngineFile>,
    log: Log,
    in_place: NowAndThen,
}

#[derive(Debug)]
enum Log {
    Own(OsFile),
    #[cfg(feature = "shm")]
    ReadOnly(ReadOnlyLog),
}

impl EngineStorage {
    /// The log of `database`, made if it is not there. SHARED is held.
    pub(crate) fn open(database: Arc<EngineFile>, mapped: bool) -> Result<Self> {
        let place = database.held_path()?;
        let log = OsFile::open_at(place.beside("-wal"), OpenMode::CreateLikeAt(place))?;
        let log = Log::Own(log.with_mapping(mapped));
        Ok(Self::with(database, log))
    }

    /// The log of `database`, which may not be written.
    #[cfg(feature = "shm")]
    pub(crate) fn read_only(database: Arc<EngineFile>, mapped: bool) -> Result<Self> {
        let log = ReadOnlyLog::beside(database.held_path()?, mapped);
        Ok(Self::with(database, Log::ReadOnly(log)))
    }

    fn with(database: Arc<EngineFile>, log: Log) -> Self {
        EngineStorage {
            database,
            log,
            in_place: NowAndThen::new(LOOK_IN_PLACE_EVERY),
        }
    }

    /// The page size, as the database file has it, or else the log: nobody
    /// changes it while SHARED is held.
    pub(crate) fn page_size(&self) -> Result<PageSize> {
        let mut page_one = [0; DatabaseHeader::LEN];
        self.database.read_at(&mut page_one, 0)?;
        if let Some(size) = DatabaseHeader::decode(&page_one).and_then(|h| h.page_size().ok()) {
            return Ok(size);
        }
        // Nothing is trusted here: recovery looks at the whole header.
        let mut size = [0; 4];
        self.log().read_at(&mut size, PAGE_SIZE_IN_LOG)?;
        PageSize::new(u32::from_be_bytes(size)).or_else(|_| PageSize::new(UNTOLD))
    }
}

impl Storage for EngineStorage {
    fn database(&self) -> &dyn File {
        &*self.database
    }

    fn log(&self) -> &dyn File {
        match &self.log {
            Log::Own(log) => log,
            #[cfg(feature = "shm")]
            Log::ReadOnly(log) => log,
        }
    }

    fn check_in_place(&self) -> Result<()> {
        if !self.in_place.is_due() {
            return Ok(());
        }
        let log = match &self.log {
            Log::Own(log) => log.check_in_place(),
            #[cfg(feature = "shm")]
            Log::ReadOnly(_) => Ok(()),
        };
        self.database
            .check_in_place()
            .and(log)
            .inspect_err(|_| self.in_place.make_due())
    }

    /// As the engine's own log does, in the same words. One that is only read has
    /// an index of its own, which is rebuilt each time.
    fn log_recovered(&self, frames: u32) {
        if frames == 0 || !matches!(self.log, Log::Own(_)) {
            return;
        }
        let path = self.log().path().display();
        let message = format!("recovered {frames} frames from WAL file {path}");
        if let Ok(message) = CString::new(message) {
            code::tell(ffi::SQLITE_NOTICE_RECOVER_WAL, &message);
        }
    }

    fn remove_log(&self) -> Result<()> {
        self.database.held_path()?.beside("-wal").remove()
    }

    fn sync_directory(&self) -> Result<()> {
        self.database.held_path()?.sync_directory()
    }
}
