//! What the files of a database contain at one moment.
//!
//! No lock is acquired, no byte stored, no file made. Files are opened as an observer opens
//! them: reading does not change the time of the last access where the system allows that.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wal_core::PageSize;
use wal_core::format::{LogScan, scan};
use wal_core::inspect::{DatabaseInfo, IndexInfo, LogInfo, read_database, read_index, read_log};
use wal_core::storage::{OpenMode, OsFile};
use wal_shm::inspect::DatabaseFile;

/// The files of a database, and what was read of them. A file that is not there is `None`.
#[derive(Debug)]
pub(crate) struct Look {
    /// The path of the database, without symbolic links: the other files lie beside that.
    pub(crate) path: PathBuf,
    pub(crate) database_info: DatabaseInfo,
    pub(crate) log: Option<(OsFile, LogInfo)>,
    /// `None` also if the file is shorter than a header: the next user rebuilds the index.
    pub(crate) index: Option<IndexInfo>,
    /// What a recovery of the log would give, where the index does not tell: it is missing, or
    /// its header is not sound.
    pub(crate) recovered: Option<LogScan>,
}

impl Look {
    /// Looks at the database at `path`.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let mut look = Self::without_recovery(path)?;
        let is_told = look.index.as_ref().and_then(IndexInfo::valid_header);
        look.recovered = match &look.log {
            Some((log, _)) if is_told.is_none() => scan(log)?,
            _ => None,
        };
        Ok(look)
    }

    /// The same without `recovered`: however long the log is, a few hundred bytes are read.
    pub(crate) fn without_recovery(path: &Path) -> anyhow::Result<Self> {
        let path = resolve(path)?;
        let database = observe(&path)?
            .with_context(|| format!("{}: there is no such file", path.display()))?;
        let database_info = read_database(&database)?;
        let log = match observe(&DatabaseFile::Log.path(&path))? {
            Some(log) => {
                let info = read_log(&log)?;
                Some((log, info))
            }
            None => None,
        };
        let index = match observe(&DatabaseFile::Index.path(&path))? {
            Some(index) => read_index(&index)?,
            None => None,
        };
        Ok(Look {
            path,
            database_info,
            log,
            index,
            recovered: None,
        })
    }

    /// The page size: as the index has it, the log, or the database file.
    pub(crate) fn page_size(&self) -> Option<PageSize> {
        let by_index = self.index.as_ref().and_then(IndexInfo::valid_header);
        let by_index = by_index.and_then(|header| header.page_size());
        let by_log = self.log.as_ref().and_then(|(_, info)| info.valid_header());
        let by_log = by_log.map(|header| header.page_size);
        by_index.or(self.database_info.page_size()).or(by_log)
    }
}

/// The path without symbolic links, as SQLite resolves it.
pub(crate) fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let resolved = path.canonicalize();
    resolved.with_context(|| format!("{}: cannot find the database", path.display()))
}

/// Opens the file at `path` for a look; `None` if it is not there.
pub(crate) fn observe(path: &Path) -> anyhow::Result<Option<OsFile>> {
    match OsFile::open(path, OpenMode::Observed) {
        Ok(file) => Ok(Some(file)),
        Err(wal::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
