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
use std::sync::{Mutex, MutexGuard};

static PARKED: Mutex<Vec<File>> = Mutex::new(Vec::new());

fn parked() -> MutexGuard<'static, Vec<File>> {
    PARKED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Keeps `file`, which holds no locks any more.
pub(super) fn park(file: File) {
    parked().push(file);
}

/// A parked descriptor of the file that is now at `path`.
pub(super) fn reuse(path: &Path) -> io::Result<Option<File>> {
    let mut parked = parked();
    if parked.is_empty() {
        return Ok(None);
    }
    let wanted = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let is_wanted = |file: &File| {
        file.metadata()
            .is_ok_and(|found| same_file(&found, &wanted))
    };
    Ok(parked
        .iter()
        .position(is_wanted)
        .map(|at| parked.swap_remove(at)))
}
