//! Which processes have the files of a database open.
//!
//! A process that has the database open and does not hold SHARED in the [`Census`] has lost
//! its locks: a close of the file elsewhere in the process drops all that the process has. A
//! process that has a replaced file open writes to a file that no other process finds.
//!
//! [`Census`]: super::Census

use std::path::Path;
use std::time::{Duration, Instant};

use wal_core::Result;

use super::descriptors::{Descriptor, Which, walk};
use super::watched::{WatchedFile, WatchedFiles};
use super::{DatabaseFile, Unseen, process};

/// A file of a database that a process has open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OpenFile {
    /// The process.
    pub pid: u32,
    /// Which file it is, or was.
    pub file: DatabaseFile,
    /// Whether it is the file that lies there now; else it was removed, renamed or replaced.
    pub is_current: bool,
    /// Whether the process may write it.
    pub may_write: bool,
}

/// The files of a database that processes have open.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenFiles {
    /// Each file once for each process, in the order of processes.
    pub files: Vec<OpenFile>,
    /// What could not be seen; empty if nothing is missing.
    pub unseen: Vec<Unseen>,
}

impl OpenFiles {
    /// Searches all processes for the files of `database`, for as long as `budget`, apart from
    /// the call at its end. A file that a process has open by another name than the one that
    /// it has here is not found.
    ///
    /// # Errors
    /// As [`Census::take`](super::Census::take).
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use wal_shm::inspect::OpenFiles;
    ///
    /// let open = OpenFiles::find("app.db".as_ref(), Duration::from_millis(200))?;
    /// for file in open.files.iter().filter(|file| !file.is_current) {
    ///     println!("process {} uses a file that was replaced", file.pid);
    /// }
    /// # Ok::<(), wal_core::Error>(())
    /// ```
    pub fn find(database: &Path, budget: Duration) -> Result<Self> {
        let deadline = Instant::now() + budget;
        let watched = WatchedFiles::of(database)?;
        let found = walk(
            &watched,
            &process::all().unwrap_or_default(),
            Which::Named,
            deadline,
        );
        let open = found.descriptors.iter().filter_map(|descriptor| {
            let (file, is_current) = which_of(descriptor, &watched)?;
            Some(OpenFile {
                pid: descriptor.pid,
                file,
                is_current,
                may_write: descriptor.may_write(),
            })
        });
        let mut files: Vec<OpenFile> = open.collect();
        // A file that can be written through one of its descriptors comes first.
        files.sort_unstable_by_key(|open| (open.pid, open.file, !open.is_current, !open.may_write));
        files.dedup_by_key(|open| (open.pid, open.file, open.is_current));
        let unseen = Unseen::of_walk(found.refused, found.left);
        Ok(OpenFiles { files, unseen })
    }
}

/// Which file of `watched` the descriptor is of, and whether it is the current one.
fn which_of(descriptor: &Descriptor, watched: &WatchedFiles) -> Option<(DatabaseFile, bool)> {
    let id = descriptor.id()?;
    let is_current = |file: &&WatchedFile| file.id == id;
    if let Some(file) = watched.iter().find(is_current) {
        return Some((file.file, true));
    }
    // Another database may have the same name elsewhere.
    let (path, _) = descriptor.path();
    let was_there = watched.iter().find(|file| file.path == path)?;
    Some((was_there.file, false))
}
