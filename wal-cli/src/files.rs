//! The files of a database, opened by a command that only looks.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use wal_core::inspect::{IndexCopy, LogCheck, Watch, check_log};
use wal_core::storage::{File, OsFile};
use wal_shm::inspect::{Census, DatabaseFile, LockByte, OpenFiles, Unseen};

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

/// Which processes use a database.
#[derive(Debug)]
pub(crate) struct Users {
    /// Those that are known.
    pub(crate) pids: Vec<u32>,
    /// Whether a lock shows that there are users, known or not.
    pub(crate) hold_locks: bool,
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
        let is_used = |byte: LockByte| matches!(byte, LockByte::Dms | LockByte::Shared);
        let hold_locks = census.locks.iter().any(|lock| is_used(lock.byte));
        let mut unseen = census.unseen;
        unseen.extend(open.unseen);
        unseen.dedup();
        Ok(Users {
            pids,
            hold_locks,
            unseen,
        })
    }

    /// Whether there are any; `None` if that is not known.
    pub(crate) fn are_there(&self) -> Option<bool> {
        match self.hold_locks || !self.pids.is_empty() {
            true => Some(true),
            false => self.unseen.is_empty().then_some(false),
        }
    }
}
