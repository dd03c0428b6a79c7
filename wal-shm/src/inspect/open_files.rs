//! Which processes have the files of a database open.
//!
//! A process that has the database open and does not hold SHARED in the [`Census`] has lost
//! its locks: a close of the file elsewhere in the process drops all that the process has. A
//! process that has a replaced file open writes to a file that no other process finds.
//!
//! [`Census`]: super::Census

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wal_core::Result;

use super::descriptors::{Descriptor, Which, walk};
use super::watched::{WatchedFile, WatchedFiles};
use super::{DatabaseFile, Unseen, process};

/// Device and inode.
type Id = (u64, u64);

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
    /// Whether the process holds a lock on it, of its own or of the open file description.
    /// False also on systems that do not show the locks of a descriptor (Linux before 4.1).
    pub has_locks: bool,
    /// The number of its descriptor in the process; see [`OpenFile::link`].
    pub descriptor: u32,
}

impl OpenFile {
    /// The link that leads to the open file, also where its name was removed
    /// ([`wal_core::storage::OpenMode::ObservedByLink`]). The process may have closed it since.
    pub fn link(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.pid, self.descriptor))
    }
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
    /// Searches all processes for the files of `database`, which itself may have been removed,
    /// for as long as `budget`, apart from the call at its end. A file that a process has open by another name than the one that
    /// it has here is not found.
    ///
    /// # Errors
    /// [`wal_core::Error::Io`] if the directory of the database cannot be found.
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
        let watched = WatchedFiles::of_maybe_removed(database)?;
        let processes = process::all().unwrap_or_default();
        let (mut files, unseen) = search(&watched, &processes, deadline);
        // A file that can be written through one of its descriptors comes first.
        files.sort_by_key(|(open, _)| (open.pid, open.file, !open.is_current, !open.may_write));
        merge(&mut files, |(open, _)| {
            (open.pid, open.file, open.is_current)
        });
        let files = files.into_iter().map(|(open, _)| open).collect();
        Ok(OpenFiles { files, unseen })
    }

    /// Searches the process `pid` for the files of `database`, which itself may have been
    /// removed. A file that was replaced more than once is there once for each of its
    /// predecessors that the process has open.
    ///
    /// # Errors
    /// [`wal_core::Error::Io`] if the directory of the database cannot be found.
    pub fn of_process(database: &Path, pid: u32, budget: Duration) -> Result<Self> {
        let watched = WatchedFiles::of_maybe_removed(database)?;
        let (mut files, unseen) = search(&watched, &[pid], Instant::now() + budget);
        merge(&mut files, |(open, id)| (open.pid, open.file, *id));
        let files = files.into_iter().map(|(open, _)| open).collect();
        Ok(OpenFiles { files, unseen })
    }
}

/// Leaves the first of neighbours with the same `key`. It has locks if one of them has.
fn merge<K: PartialEq>(files: &mut Vec<(OpenFile, Id)>, key: impl Fn(&(OpenFile, Id)) -> K) {
    files.dedup_by(|next, kept| {
        let is_same = key(next) == key(kept);
        if is_same {
            kept.0.has_locks |= next.0.has_locks;
        }
        is_same
    });
}

/// The files of `watched` that `processes` have open, with their device and inode. Of one file
/// the descriptor through which it can be written comes first.
fn search(
    watched: &WatchedFiles,
    processes: &[u32],
    deadline: Instant,
) -> (Vec<(OpenFile, Id)>, Vec<Unseen>) {
    let found = walk(watched, processes, Which::Named, deadline);
    let open = found.descriptors.iter().filter_map(|descriptor| {
        let id = descriptor.id()?;
        let (file, is_current) = which_of(descriptor, id, watched)?;
        let (may_write, has_locks) = descriptor.may_write_and_has_locks();
        let open = OpenFile {
            pid: descriptor.pid,
            file,
            is_current,
            may_write,
            has_locks,
            descriptor: descriptor.number()?,
        };
        Some((open, id))
    });
    let mut files: Vec<_> = open.collect();
    files.sort_by_key(|(open, id)| {
        (
            open.pid,
            open.file,
            !open.is_current,
            *id,
            !open.may_write,
            open.descriptor,
        )
    });
    (files, Unseen::of_walk(found.refused, found.left))
}

/// Which file of `watched` the descriptor is of, and whether it is the current one.
fn which_of(
    descriptor: &Descriptor,
    id: Id,
    watched: &WatchedFiles,
) -> Option<(DatabaseFile, bool)> {
    let is_current = |file: &&WatchedFile| file.id == Some(id);
    if let Some(file) = watched.iter().find(is_current) {
        return Some((file.file, true));
    }
    // Another database may have the same name elsewhere.
    let (path, _) = descriptor.path();
    let was_there = watched.iter().find(|file| file.path == path)?;
    Some((was_there.file, false))
}
