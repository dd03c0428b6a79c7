//! Descriptors that are not closed, because closing them would drop the locks
//! of a stock SQLite in this process.
//!
//! POSIX locks belong to the process, and closing *any* descriptor of a file
//! drops all that the process holds on it. So a descriptor of a database or
//! `-shm` file that others may still use is kept here, without locks, and is
//! used again by the next one who opens the same file.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fork::{ClosedInChild, ProcessGeneration};
use crate::once_table::OnceTable;

/// A descriptor without locks. It is still closed in children, because
/// whoever uses it again takes locks that a child must not keep alive.
struct Parked {
    file: File,
    in_child: ClosedInChild,
}

/// One list for each generation of forks: the parent's descriptors are closed
/// in a child, and its mutex may have been held at the fork.
static PARKED: OnceTable<Mutex<Vec<Parked>>> = OnceTable::new();

fn parked() -> MutexGuard<'static, Vec<Parked>> {
    let generation = ProcessGeneration::current().number();
    PARKED
        .get_or_make(generation, Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Keeps `file`, which holds no locks any more.
pub(super) fn park(file: File, in_child: ClosedInChild) {
    parked().push(Parked { file, in_child });
}

/// A parked descriptor of the file that is now at `path`.
pub(super) fn reuse(path: &Path) -> io::Result<Option<(File, ClosedInChild)>> {
    let mut parked = parked();
    if parked.is_empty() {
        return Ok(None);
    }
    let wanted = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let is_wanted = |parked: &Parked| {
        parked
            .file
            .metadata()
            .is_ok_and(|found| same_file(&found, &wanted))
    };
    let found = parked
        .iter()
        .position(is_wanted)
        .map(|at| parked.swap_remove(at));
    Ok(found.map(|Parked { file, in_child }| (file, in_child)))
}
