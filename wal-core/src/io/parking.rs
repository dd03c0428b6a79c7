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

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::fork::{ClosedInChild, ProcessGeneration};
use crate::io::byte_lock::{ByteLocks, LockKind};
use crate::once_table::OnceTable;

/// Classic locks belong to the process, and are not looked after here.
const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// A descriptor without locks. It is still closed in children, because
/// whoever uses it again takes locks that a child must not keep alive.
struct Parked {
    // Taken from the table before the number can belong to another file.
    in_child: ClosedInChild,
    file: File,
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

/// Keeps `file`, which is to hold no locks any more: one that could not be given back
/// goes now, as the system needs no memory to give all back. Files that were removed are
/// let go on the occasion: nobody can open them again, so their descriptors
/// would be of no use and would only grow in number.
pub(super) fn park(file: File, in_child: ClosedInChild) {
    if LOCKS.belong_to_description() {
        let _ = LOCKS.unlock(&file, 0..i64::MAX as u64);
    }
    let mut parked = parked();
    parked.retain(|parked| !is_removed(&parked.file));
    if !is_removed(&file) {
        parked.push(Parked { file, in_child });
    }
}

fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

/// A parked descriptor of the file that is now at `path`: one that can be
/// written through, if `writes`, else any.
pub(super) fn reuse(path: &Path, writes: bool) -> io::Result<Option<(File, ClosedInChild)>> {
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
            && (!writes || is_writable(&parked.file))
    };
    let found = parked
        .iter()
        .position(is_wanted)
        .map(|at| parked.swap_remove(at));
    Ok(found.map(|Parked { file, in_child }| (file, in_child)))
}

/// True unless it was opened for reading alone.
fn is_writable(file: &File) -> bool {
    let flags = fcntl(file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE != OFlag::O_RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::LockMode;
    use std::os::fd::{AsFd, AsRawFd};

    fn open(path: &Path) -> (File, ClosedInChild) {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = file.unwrap();
        let in_child = ClosedInChild::reserve().unwrap();
        in_child.register(file.as_fd());
        (file, in_child)
    }

    #[test]
    fn a_parked_descriptor_is_used_again_for_the_same_file_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let (file, in_child) = open(&path);
        let number = file.as_raw_fd();
        park(file, in_child);
        std::fs::write(&other, "").unwrap();
        assert!(reuse(&other, true).unwrap().is_none());
        assert!(reuse(&dir.path().join("missing"), true).unwrap().is_none());
        let (again, _in_child) = reuse(&path, true).unwrap().unwrap();
        assert_eq!(again.as_raw_fd(), number);
        assert!(reuse(&path, true).unwrap().is_none());
    }

    #[test]
    fn a_descriptor_for_reading_alone_is_not_used_again_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        let in_child = ClosedInChild::reserve().unwrap();
        in_child.register(file.as_fd());
        park(file, in_child);
        assert!(reuse(&path, true).unwrap().is_none());
        assert!(reuse(&path, false).unwrap().is_some());
    }

    #[test]
    fn a_parked_descriptor_holds_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (file, in_child) = open(&path);
        let (stranger, _in_child) = open(&path);
        let byte = 1..2;
        let locked = LOCKS.try_lock(&file, byte.clone(), LockMode::Exclusive);
        assert!(locked.unwrap());
        park(file, in_child);
        let held = LOCKS.conflict(&stranger, byte).unwrap();
        assert_eq!(held.is_some(), !LOCKS.belong_to_description());
    }

    #[test]
    fn descriptors_of_removed_files_are_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let (file, in_child) = open(&path);
        let inode = file.metadata().unwrap().ino();
        park(file, in_child);
        std::fs::remove_file(&path).unwrap();
        let (file, in_child) = open(&other);
        park(file, in_child);
        let left = parked()
            .iter()
            .any(|p| p.file.metadata().unwrap().ino() == inode);
        assert!(!left, "the descriptor of the removed file is still there");
    }
}
