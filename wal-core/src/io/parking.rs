//! Descriptors of database and `-shm` files are parked, not closed.
//!
//! POSIX locks belong to the process, and closing *any* descriptor of a file drops all that
//! the process holds on it. A stock SQLite in this process may open the file at any moment,
//! on a thread that knows nothing of this library, so no look at who has the file open
//! makes a close safe: the neighbour may lock the file between the look and the close. So a
//! descriptor that is given up is kept here, without locks, and is used again for the next
//! open of the same file. A process has as many descriptors of a file as it ever used at one
//! time, and no more by opening it more often.
//!
//! # Protocol
//! The table is changed with its mutex held. A parked descriptor is closed in two cases:
//! - its file has no name any more, so it cannot be opened again, and a lock on it concerns
//!   no later user. Each park looks at a few parked files in turn, and an open that finds the
//!   process without free descriptors looks at all;
//! - its last user has promised that no other SQLite in the process uses the file. The locks
//!   that this library itself holds by classic locks go with a close too, so it happens only
//!   while the library has no other descriptor of the file in use. It happens with the mutex
//!   held, which an opener takes before its first lock, so it drops no lock of an opener.
//!
//! # Crash
//! The system closes the descriptors of a dead process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::file_id::FileId;
use crate::fork::{ClosedInChild, ProcessGeneration};
use crate::io::byte_lock::{ByteLocks, LockKind};
use crate::once_table::OnceTable;

/// Classic locks belong to the process: they are released by who took them, since their
/// release here would be that of a neighbour's locks too.
const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// How many other parked files each park looks at. With more, files without a name are found
/// sooner, and each park has more system calls.
const LOOKS: usize = 2;

/// A descriptor of a file that carries locks, in use or parked.
#[derive(Debug)]
pub(super) struct Parkable {
    // Dropped first: the number leaves the set before it can belong to another file.
    _in_child: ClosedInChild,
    file: File,
    id: FileId,
    /// Whether it can be written through.
    writes: bool,
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

    /// Drops what a child has of it. The fork handler has closed the child's copy, and the
    /// number may belong to another file of the child.
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
    /// Closes what may be closed. True if nothing is left to be known of the file.
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
    /// The file at which a park has looked last.
    looked_at: Option<FileId>,
}

impl Table {
    fn tidy(&mut self, id: FileId) {
        if self.files.get_mut(&id).is_some_and(Known::tidy) {
            self.files.remove(&id);
        }
    }

    fn tidy_next(&mut self) {
        let behind = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.files.range((behind, Bound::Unbounded)).next();
        let next = next.or_else(|| self.files.first_key_value());
        self.looked_at = next.map(|(id, _)| *id);
        if let Some(id) = self.looked_at {
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
        .unwrap_or_else(PoisonError::into_inner)
}

/// A parked descriptor of the file at `path`: one that can be written through, if `writes`;
/// else any, and rather one that cannot.
pub(super) fn reuse(path: &Path, writes: bool) -> io::Result<Option<Parkable>> {
    let Some(id) = FileId::at(path)? else {
        return Ok(None);
    };
    let mut table = table();
    let Some(known) = table.files.get_mut(&id) else {
        return Ok(None);
    };
    let find = |writable| {
        let mut parked = known.parked.iter();
        parked.position(|parked| parked.writes == writable)
    };
    let found = match writes {
        true => find(true),
        false => find(false).or_else(|| find(true)),
    };
    let reused = found.map(|at| known.parked.swap_remove(at));
    known.in_use += usize::from(reused.is_some());
    Ok(reused)
}

/// Takes over `file`, which was just opened. If the system does not tell which file it is, it
/// stays open until the process ends: it may be one that a neighbour has locked.
pub(super) fn adopt(file: File, writes: bool) -> io::Result<Parkable> {
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
        writes,
        may_close: false,
    })
}

/// Keeps `given_up`, which is not used any more, or closes it where that is safe; `may_close`
/// promises that no other SQLite in the process uses the file. It is to hold no lock: one
/// that could not be released before is released now, for which the system needs no memory.
pub(super) fn park(mut given_up: Parkable, may_close: bool) {
    if LOCKS.belong_to_description() {
        let _ = LOCKS.unlock_all(&given_up.file);
    }
    given_up.may_close = may_close;
    let id = given_up.id;
    let mut table = table();
    let known = table.files.entry(id).or_default();
    known.in_use = known.in_use.saturating_sub(1);
    known.parked.push(given_up);
    table.tidy(id);
    (0..LOOKS).for_each(|_| table.tidy_next());
}

/// Opens a file by `open`. Where the process has no descriptor left, those of files without
/// a name are closed first.
///
/// # Errors
/// What `open` gives. If it is for want of descriptors, of which some are parked, it tells so.
pub(crate) fn open_with_room(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
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
