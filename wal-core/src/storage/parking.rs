//! Descriptors of database and `-shm` files are parked, not closed.
//!
//! POSIX locks belong to the process, and closing *any* descriptor of a file drops all that
//! the process holds on it. A stock SQLite in this process may open the file at any moment,
//! on a thread that knows nothing of this library. So no check of the process's descriptors
//! makes a close safe: the neighbour may lock the file between the check and the close. A
//! descriptor that is not used any more is kept here, without locks, and is reused by the next
//! open of the same file. A process has as many descriptors of a file as it ever used at one
//! time; opening the file more often adds none.
//!
//! # Protocol
//! The table is changed with its mutex held. A parked descriptor is closed in two cases:
//! - its file has no name any more. No process can open the file again, so a lock on it
//!   matters only to processes that have the removed file open. Each park checks a few parked
//!   files in turn; an open that fails because the process has too many descriptors checks all;
//! - its last user has promised that no other SQLite in the process uses the file. Classic
//!   locks of this library would be dropped too, so it is closed only while the library has
//!   no other descriptor of the file in use. It is closed with the mutex held, which an
//!   opener acquires before its first lock, so the close drops no lock of an opener.
//!
//! # Crash
//! The system closes the descriptors of a dead process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;

use super::file_id::FileId;
use super::low_numbers::{self, MayCarry};
use crate::fork::{ClosedInChild, ProcessGeneration};
use crate::once_table::OnceTable;
use crate::storage::byte_lock::{ByteLocks, LockKind};
use crate::sync::Unpoison;

/// Classic locks belong to the process, so releasing them here would release those of a
/// neighbour too. Their holder has released them.
const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// How many other parked files each park checks. More find files without a name sooner, and
/// cost each park a system call each.
const CHECKS: usize = 2;

/// What a descriptor is good for. Each can do what those before it can.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Reach {
    /// Reading by calls.
    Reads,
    /// Reading from a mapping too, where an overlay file system has copied the file to be
    /// written: it was opened since.
    MapsCopy,
    /// Writing.
    Writes,
}

/// A descriptor of a file that carries locks, in use or parked.
#[derive(Debug)]
pub(super) struct Parkable {
    // Dropped first: the number leaves the set before it can belong to another file.
    _in_child: ClosedInChild,
    file: File,
    id: FileId,
    reach: Reach,
    /// Set when it is parked, if its user has promised that no other SQLite in the process
    /// uses the file.
    may_close: bool,
}

impl Parkable {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Forgets the descriptor in a child. The fork handler has closed it there, and its number
    /// may belong to another file of the child.
    pub(super) fn forget_in_child(self) {
        let _ = self.file.into_raw_fd();
    }

    /// True if the file has no name any more.
    fn is_unlinked(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

/// What this process has open of one file.
#[derive(Default)]
struct Known {
    in_use: usize,
    parked: Vec<Parkable>,
}

impl Known {
    /// Closes the parked descriptors that may be closed. True if none is left, and none is in
    /// use.
    fn tidy(&mut self) -> bool {
        if self.in_use > 0 {
            return false;
        }
        match self.parked.first().is_some_and(Parkable::is_unlinked) {
            true => self.parked.clear(),
            false => self.parked.retain(|parked| !parked.may_close),
        }
        self.parked.is_empty()
    }
}

#[derive(Default)]
struct Table {
    files: BTreeMap<FileId, Known>,
    /// The file that a park has checked last.
    checked: Option<FileId>,
}

impl Table {
    fn tidy(&mut self, id: FileId) {
        if self.files.get_mut(&id).is_some_and(Known::tidy) {
            self.files.remove(&id);
        }
    }

    fn tidy_next(&mut self) {
        let behind = self.checked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.files.range((behind, Bound::Unbounded)).next();
        let next = next.or_else(|| self.files.first_key_value());
        self.checked = next.map(|(id, _)| *id);
        if let Some(id) = self.checked {
            self.tidy(id);
        }
    }

    fn parked(&self) -> usize {
        self.files.values().map(|known| known.parked.len()).sum()
    }
}

/// One table for each generation of forks: the parent's descriptors are closed
/// in a child, and its mutex may have been held at the fork.
static TABLE: OnceTable<Mutex<Table>> = OnceTable::new();

fn table() -> MutexGuard<'static, Table> {
    let generation = ProcessGeneration::current().number();
    TABLE
        .get_or_make(generation, Mutex::default)
        .lock()
        .unpoison()
}

/// Unparks a descriptor of the file `id`: one with the least reach that includes `reach`.
pub(super) fn reuse(id: FileId, reach: Reach) -> Option<Parkable> {
    let mut table = table();
    let known = table.files.get_mut(&id)?;
    let parked = known.parked.iter().enumerate();
    let suitable = parked.filter(|(_, parked)| parked.reach >= reach);
    let found = suitable.min_by_key(|(_, parked)| parked.reach);
    let found = found.map(|(at, _)| at);
    let reused = found.map(|at| known.parked.swap_remove(at));
    known.in_use += usize::from(reused.is_some());
    reused
}

/// Takes over `file`, which was just opened. If the system does not identify it, it stays
/// open until the process ends: a neighbour may have locked it.
pub(super) fn adopt(file: File, reach: Reach) -> io::Result<Parkable> {
    let in_child = ClosedInChild::register(file.as_fd());
    let id = match file.metadata() {
        Ok(metadata) => FileId::of(&metadata),
        Err(e) => {
            std::mem::forget((in_child, file));
            return Err(e);
        }
    };
    table().files.entry(id).or_default().in_use += 1;
    Ok(Parkable {
        _in_child: in_child,
        file,
        id,
        reach,
        may_close: false,
    })
}

/// Keeps `unused`, or closes it where that is safe; `may_close` promises that no other SQLite
/// in the process uses the file. Its user has released its locks. Those that the system did
/// not release then are released now, for which it needs no memory.
pub(super) fn park(mut unused: Parkable, may_close: bool) {
    if LOCKS.belong_to_description() {
        let _ = LOCKS.unlock_all(&unused.file);
    }
    unused.may_close = may_close;
    let id = unused.id;
    let mut table = table();
    let known = table.files.entry(id).or_default();
    known.in_use = known.in_use.saturating_sub(1);
    known.parked.push(unused);
    table.tidy(id);
    (0..CHECKS).for_each(|_| table.tidy_next());
}

/// Returns how many descriptors of files other than `id` are parked. A user that can do without
/// a descriptor asks, so that a process which uses many files does not run out of them.
pub fn parked_elsewhere(id: FileId) -> usize {
    let table = table();
    let own = table.files.get(&id).map_or(0, |known| known.parked.len());
    table.parked() - own
}

/// Opens a file by `open`, with a number above those of the standard streams. If the process
/// has no descriptor left, closes those of files without a name and opens again.
///
/// # Errors
/// What `open` returns, or that another thread keeps closing the standard streams. For want
/// of descriptors it also names those that are parked.
pub(crate) fn open_with_room(
    may_carry: MayCarry,
    open: impl Fn() -> io::Result<File>,
) -> io::Result<File> {
    let open = || low_numbers::open_above(may_carry, &open);
    let is_for_want = |e: &io::Error| {
        let errno = e.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
    };
    let refused = match open() {
        Err(e) if is_for_want(&e) => e,
        opened => return opened,
    };
    let parked = {
        let mut table = table();
        table.files.retain(|_, known| !known.tidy());
        table.parked()
    };
    match open() {
        Err(e) if is_for_want(&e) && parked > 0 => Err(io::Error::new(
            refused.kind(),
            format!(
                "{e}; this process keeps {parked} descriptors of databases that it has closed, \
                 because closing them would drop the locks of another SQLite in it: raise the \
                 limit of open files (RLIMIT_NOFILE), or open the databases that no other SQLite \
                 in this process uses with `close_descriptors`"
            ),
        )),
        opened => opened,
    }
}

#[cfg(test)]
mod tests;
