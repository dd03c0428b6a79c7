//! What the facade needs of a coordination beside the seam: a way to open it.
#![allow(unsafe_code)] // Where pages are read from mappings is promised by the backend.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use wal_core::protocol::{
    Expected, Wal, WalConfig, create_pages, inspect, inspect_immutable, is_unmade,
};
use wal_core::storage::{File, OpenMode, OsFile, OsStorage, ReadOnlyLog, ReadOnlyStorage, Storage};
use wal_core::{Error, Result, WalCoordination};

use crate::options::{Options, ReadStrategy};

/// A coordination that the facade can open. The features `shm` and `inproc`
/// bring one each; docs/backends.md tells how to write another.
pub trait Backend: WalCoordination + Sized {
    /// Opens the coordination of the database at `path`, and tells what the
    /// file is.
    ///
    /// # Errors
    /// As [`Options::open`].
    fn attach(path: &Path, options: &Options) -> Result<Attachment<Self>>;
}

/// A coordination that was opened, the database file, and what that is.
pub struct Attachment<C> {
    coordination: C,
    database: Arc<OsFile>,
    config: WalConfig,
    /// Whether pages are read from mappings.
    mapped: bool,
}

impl<C> fmt::Debug for Attachment<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("database", &self.database)
            .field("mapped", &self.mapped)
            .finish_non_exhaustive()
    }
}

impl<C: WalCoordination> Attachment<C> {
    /// An attachment whose pages are copied, whatever [`Options::read_strategy`] says.
    pub fn new(coordination: C, database: Arc<OsFile>, config: WalConfig) -> Self {
        Attachment {
            coordination,
            database,
            config,
            mapped: false,
        }
    }

    /// An attachment whose pages are read from mappings of `database`, if that is mapped
    /// ([`OsFile::with_mapping`]), and of the log beside it.
    ///
    /// # Safety
    /// What [`Wal::new_mapped`] asks for, of `database` and the log beside it.
    pub unsafe fn mapped(coordination: C, database: Arc<OsFile>, config: WalConfig) -> Self {
        Attachment {
            mapped: database.mapped().is_some(),
            ..Self::new(coordination, database, config)
        }
    }

    /// Opens the log beside the database.
    ///
    /// # Errors
    /// What opening the log gives.
    pub(crate) fn open_log(self, options: &Options) -> Result<(Arc<Wal<C>>, Arc<OsFile>)> {
        let storage = options.storage(self.database.clone(), self.mapped)?;
        let wal = match self.mapped {
            // SAFETY: the maker of the attachment has promised it, and the storage is of
            // these two files.
            true => unsafe { Wal::new_mapped(self.coordination, storage, self.config) },
            false => Wal::new(self.coordination, storage, self.config),
        };
        Ok((wal, self.database))
    }
}

impl Options {
    fn open_mode(&self) -> OpenMode<'_> {
        if let Some(replaced) = &self.replaces {
            OpenMode::ReadOnlyAgain(&replaced.file)
        } else if self.makes().is_some() {
            OpenMode::Create
        } else {
            OpenMode::Existing
        }
    }

    /// True if nothing is to be written.
    pub(crate) fn only_reads(&self) -> bool {
        self.config.read_only || self.immutable
    }

    /// The files of `database`, once the backend has attached to it.
    ///
    /// # Errors
    /// What opening the log gives.
    fn storage(&self, database: Arc<OsFile>, mapped: bool) -> Result<Box<dyn Storage>> {
        if !self.only_reads() {
            let storage = OsStorage::open(database, mapped);
            return Ok(Box::new(storage.map_err(advise_read_only)?));
        }
        let mut log = ReadOnlyLog::beside(database.held_path(), mapped);
        if self.immutable {
            log = log.ignored();
        }
        Ok(Box::new(ReadOnlyStorage::new(database, log)))
    }

    fn is_mapped(&self) -> bool {
        self.read_strategy == ReadStrategy::Mapped
    }

    /// Finds out what the file is, makes an empty one a file of pages if that was asked for,
    /// and puts the rest of the options beside that. It is for the author of a [`Backend`],
    /// and is called under EXCLUSIVE if the file may be empty and made something, and under
    /// SHARED otherwise.
    ///
    /// # Errors
    /// Those of [`Options::open`] that are about the file itself.
    pub fn inspect(&self, database: &OsFile) -> Result<WalConfig> {
        if let Some(replaced) = &self.replaces {
            return Ok(replaced.config);
        }
        let expected = Expected {
            kind: self.kind,
            page_size: self.page_size,
            read_only: self.only_reads(),
        };
        let found = if self.immutable {
            inspect_immutable(database, expected)?
        } else {
            inspect(database, expected)?
        };
        let config = WalConfig {
            kind: found.kind,
            page_size: found.page_size,
            read_only: self.only_reads(),
            ..self.config
        };
        if is_unmade(database, &config)? {
            if self.makes().is_none() {
                let reason = "it is empty; to make it a file of pages, open it for writing, with \
                    `Options::create`";
                return Err(Error::cannot_open(database.path(), reason));
            }
            create_pages(database, &config)?;
        }
        Ok(config)
    }
}

/// Adds to what the system said of a file that may not be written how the
/// database can be read all the same.
fn advise_read_only(error: Error) -> Error {
    match error {
        Error::Io {
            path,
            operation: operation @ "open",
            source,
        } if matches!(
            source.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        ) =>
        {
            let advice = format!("{source}; to read without writing, set `Options::read_only`");
            Error::Io {
                path,
                operation,
                source: std::io::Error::new(source.kind(), advice),
            }
        }
        other => other,
    }
}

#[cfg(feature = "shm")]
impl Backend for wal_shm::ShmWalCoordination {
    fn attach(path: &Path, options: &Options) -> Result<Attachment<Self>> {
        let mut shm = wal_shm::ShmOptions::default();
        shm.lock_kind = options.lock_kind;
        shm.side_file = options.side_file;
        shm.read_lock_delay = options.read_lock_delay;
        shm.allow_network_file_system = options.allow_network_file_system;
        shm.allow_other_names = options.allow_other_names;
        shm.mapped = options.is_mapped();
        shm.close_descriptors = options.close_descriptors;
        shm.access = match (options.immutable, options.config.read_only) {
            (true, _) => wal_shm::Access::Immutable,
            (false, true) => wal_shm::Access::ReadOnly,
            (false, false) => wal_shm::Access::ReadWrite,
        };
        let look = |database: &OsFile| options.inspect(database);
        let attached = Self::open(path, options.open_mode(), shm, look);
        let (coordination, config) = match options.only_reads() {
            true => attached?,
            false => attached.map_err(advise_read_only)?,
        };
        let Some(database) = coordination.database().cloned() else {
            return Err(Error::cannot_open(path, "an engine has opened it"));
        };
        // SAFETY: the coordination has locked this very database, and passes the
        // conformance suite; the log is opened beside it with SHARED held. The database
        // file is mapped only where the locks cannot get lost and the file system keeps
        // them (`ShmWalCoordination::maps`). That no program writes the files without
        // these locks is what `Database::open` assumes.
        Ok(unsafe { Attachment::mapped(coordination, database, config) })
    }
}

#[cfg(feature = "inproc")]
impl Backend for wal_inproc::InProcessWalCoordination {
    fn attach(path: &Path, options: &Options) -> Result<Attachment<Self>> {
        if options.only_reads() {
            let reason = "an in-process backend owns its database, which a reader cannot; open it \
                with the shared one";
            return Err(Error::cannot_open(path, reason));
        }
        let mut inproc = wal_inproc::InProcessOptions::default();
        inproc.lock_kind = options.lock_kind;
        inproc.allow_other_names = options.allow_other_names;
        inproc.mapped = options.is_mapped();
        inproc.close_descriptors = options.close_descriptors;
        let (coordination, database) = Self::open(path, options.open_mode(), inproc)?;
        let config = options.inspect(&database)?;
        // SAFETY: the process owns the database by EXCLUSIVE, which belongs to the open
        // file if that is mapped; its threads go by this coordination, which passes the
        // conformance suite and is dropped last. The database file is the one that it
        // locked, and the log is opened beside it. That no program writes the files
        // regardless is what `Database::open` assumes.
        Ok(unsafe { Attachment::mapped(coordination, database, config) })
    }
}
