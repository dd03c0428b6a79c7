//! What the facade needs of a coordination beside the seam: a way to open it.

use std::path::Path;
use std::sync::Arc;

use wal_core::io::{File, OpenMode, OsFile};
use wal_core::protocol::{WalConfig, create_page_store, inspect};
use wal_core::{Result, WalCoordination};

use crate::options::{Options, ReadStrategy};

/// A coordination that the facade can open. The features `shm` and `inproc`
/// bring one each.
pub trait Backend: WalCoordination + Sized {
    /// Opens the coordination of the database at `path`, and tells what the
    /// file is.
    ///
    /// # Errors
    /// As [`Options::open`].
    fn attach(path: &Path, options: &Options) -> Result<(Self, Arc<OsFile>, WalConfig)>;
}

impl Options {
    fn open_mode(&self) -> OpenMode<'static> {
        if self.create {
            OpenMode::Create
        } else {
            OpenMode::Existing
        }
    }

    fn is_mapped(&self) -> bool {
        self.read_strategy == ReadStrategy::Mapped
    }

    /// Finds out what the file is, and makes an empty one a page store. The
    /// caller holds the lock for that.
    fn look(&self, database: &OsFile) -> Result<WalConfig> {
        let mut config = inspect(database, self.page_size)?;
        config.synchronous = self.synchronous;
        config.log_size_limit = self.log_size_limit;
        config.persistent_log = self.persistent_log;
        if database.is_empty()? {
            create_page_store(database, config.page_size)?;
        }
        Ok(config)
    }
}

#[cfg(feature = "shm")]
impl Backend for wal_shm::ShmWalCoordination {
    fn attach(path: &Path, options: &Options) -> Result<(Self, Arc<OsFile>, WalConfig)> {
        let mut shm = wal_shm::ShmOptions::default();
        shm.lock_kind = options.lock_kind;
        shm.side_file = options.side_file;
        shm.allow_network_file_system = options.allow_network_file_system;
        shm.mapped = options.is_mapped();
        let (coordination, config) = Self::open(path, options.open_mode(), shm, |database| {
            options.look(database)
        })?;
        let database = coordination.database().clone();
        Ok((coordination, database, config))
    }
}

#[cfg(feature = "inproc")]
impl Backend for wal_inproc::InProcessWalCoordination {
    fn attach(path: &Path, options: &Options) -> Result<(Self, Arc<OsFile>, WalConfig)> {
        let (coordination, database) = Self::open(path, options.open_mode(), options.is_mapped())?;
        let config = options.look(&database)?;
        Ok((coordination, database, config))
    }
}
