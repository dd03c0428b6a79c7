//! The files of a database, opened by a command that only looks.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use wal_core::inspect::{IndexCopy, LogCheck, Watch, check_log};
use wal_core::storage::{ByteLocks, File, LockKind, OsFile, database_bytes, shm_bytes};
use wal_shm::inspect::{Census, DatabaseFile, OpenFiles, Unseen};

use crate::look::{observe, resolve};
use crate::output::Output;

/// The files of a database. A file that is not there is `None`.
pub(crate) struct Files {
    /// The path of the database, without symbolic links where it leads to a file.
    pub(crate) path: PathBuf,
    pub(crate) database: OsFile,
    pub(crate) log: Option<OsFile>,
    pub(crate) index: Option<OsFile>,
}

impl Files {
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let path = resolve(path)?;
        let database = observe(&path)?
            .with_context(|| format!("{}: there is no such file", path.display()))?;
        let log = observe(&DatabaseFile::Log.path(&path))?;
        let index = observe(&DatabaseFile::Index.path(&path))?;
        Ok(Files {
            path,
            database,
            log,
            index,
        })
    }

    /// Whether a process uses the index. The next opener of the database rebuilds an index that
    /// no process uses (`unixLockSharedMemory`).
    pub(crate) fn index_is_in_use(&self) -> anyhow::Result<bool> {
        match &self.index {
            Some(index) => is_held(index, shm_bytes::DMS),
            None => Ok(false),
        }
    }

    /// Whether a process uses the database.
    pub(crate) fn are_in_use(&self) -> anyhow::Result<bool> {
        Ok(self.index_is_in_use()? || is_held(&self.database, database_bytes::ALL)?)
    }

    /// Samples the state of the files before they are read.
    pub(crate) fn watch(&self) -> anyhow::Result<Watch<'_>> {
        let log = self.log.as_ref().map(|log| log as &dyn File);
        let index = self.index.as_ref().map(|index| index as &dyn File);
        Ok(Watch::begin(&self.database, log, index)?)
    }

    /// Whether the files are those that lie beside the database now. The last user of a
    /// database removes its log and its index, and the next one makes others.
    pub(crate) fn are_in_place(&self) -> anyhow::Result<bool> {
        let there = |file: &OsFile| file.is_still_at_its_path();
        let is_same = |file: &Option<OsFile>, kind: DatabaseFile| match file {
            Some(file) => there(file),
            None => Ok(!kind.path(&self.path).exists()),
        };
        Ok(there(&self.database)?
            && is_same(&self.log, DatabaseFile::Log)?
            && is_same(&self.index, DatabaseFile::Index)?)
    }

    /// Checks the log on all processors, with progress. `None` if there is no log, or it has
    /// no valid header.
    pub(crate) fn check_log(&self, output: &Output) -> anyhow::Result<Option<LogCheck>> {
        let Some(log) = &self.log else {
            return Ok(None);
        };
        let bar = Mutex::new(output.progress("checking the log", log.len()?));
        let progress = |done, total| {
            if let Ok(mut bar) = bar.lock() {
                bar.set(done, total);
            }
        };
        Ok(check_log(log, progress)?)
    }

    /// Copies the index, with the entries of the first `frames` frames.
    pub(crate) fn copy_index(&self, frames: u32) -> anyhow::Result<Option<IndexCopy>> {
        let Some(index) = &self.index else {
            return Ok(None);
        };
        Ok(IndexCopy::read(index, frames)?)
    }
}

/// The processes that use a database.
#[derive(Debug)]
pub(crate) struct Users {
    /// Those that are known.
    pub(crate) pids: Vec<u32>,
    /// What could not be seen.
    pub(crate) unseen: Vec<Unseen>,
}

impl Users {
    /// Searches for them for about as long as twice `budget`: by their locks, and by the files
    /// that they have open, for a process can lose its locks.
    pub(crate) fn of(path: &Path, budget: Duration) -> anyhow::Result<Self> {
        let census = Census::take(path, budget)?;
        let open = OpenFiles::find(path, budget)?;
        let own = std::process::id();
        let of_locks = census.locks.iter().filter_map(|lock| lock.pid);
        let of_files = open.files.iter().map(|file| file.pid);
        let mut pids: Vec<u32> = of_locks.chain(of_files).filter(|pid| *pid != own).collect();
        pids.sort_unstable();
        pids.dedup();
        let mut unseen = census.unseen;
        for of in open.unseen {
            if !unseen.contains(&of) {
                unseen.push(of);
            }
        }
        Ok(Users { pids, unseen })
    }
}

/// Whether any process holds a lock on `bytes` of `file`, also one that this one cannot see. It
/// is a query: no lock is acquired. A file system without locks has none.
fn is_held(file: &OsFile, bytes: Range<u64>) -> anyhow::Result<bool> {
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let found = locks.conflict(file.as_file()?, bytes);
    Ok(matches!(found, Ok(Some(_))))
}
