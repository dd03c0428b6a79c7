//! Descriptors that are not closed, because closing them would drop the locks
//! of a stock SQLite in this process.
//!
//! POSIX locks belong to the process, and closing *any* descriptor of a file
//! drops all that the process holds on it. So a descriptor of a database or
//! `-shm` file that somebody else in the process has open is kept here, without locks,
//! and is used again by the next one who opens the same file.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::fork::{ClosedInChild, ProcessGeneration};
use crate::io::byte_lock::{ByteLocks, LockKind};
use crate::once_table::OnceTable;

/// Classic locks belong to the process, and are not looked after here.
const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);
const EVERY_BYTE: Range<u64> = 0..i64::MAX as u64;

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

/// Keeps `file`, if anybody else in this process has that file open. It is to hold no
/// locks any more: a lock that could not be given back before is given back now, for which
/// the system needs no memory. Files that were removed are let go on the occasion: nobody
/// can open them again, so their descriptors would be of no use and would only grow in
/// number.
pub(super) fn park(file: File, in_child: ClosedInChild) {
    if LOCKS.belong_to_description() {
        let _ = LOCKS.unlock(&file, EVERY_BYTE);
    }
    let mut parked = parked();
    parked.push(Parked { file, in_child });
    parked.retain(|parked| !is_removed(&parked.file));
    let Some(this) = parked.last().and_then(|newest| newest.file.metadata().ok()) else {
        return;
    };
    // Who opens it now takes its first lock long after these are closed. If it cannot be
    // told, they are kept.
    if is_open_elsewhere(&this, &parked).is_ok_and(|elsewhere| !elsewhere) {
        parked.retain(|parked| !is(&parked.file, &this));
    }
}

/// True if a descriptor of this process is of the file `this`, and none of `parked`.
fn is_open_elsewhere(this: &Metadata, parked: &[Parked]) -> io::Result<bool> {
    let parked: Vec<_> = parked.iter().map(|kept| kept.file.as_raw_fd()).collect();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.parse().ok());
        // One that is gone by now is no longer open.
        let is_same = std::fs::metadata(&path).is_ok_and(|other| same_file(&other, this));
        if is_same && number.is_none_or(|number| !parked.contains(&number)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is(file: &File, this: &Metadata) -> bool {
    file.metadata().is_ok_and(|found| same_file(&found, this))
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
    let is_wanted =
        |parked: &Parked| is(&parked.file, &wanted) && (!writes || is_writable(&parked.file));
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
    use std::os::fd::AsFd;

    /// There is one list for all tests of a process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

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

    /// Somebody who needs the file at `path` to be kept.
    fn user_of(path: &Path) -> File {
        open(path).0
    }

    #[test]
    fn a_parked_descriptor_is_used_again_for_the_same_file_only() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let (file, in_child) = open(&path);
        let _user = user_of(&path);
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
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "").unwrap();
        let _user = user_of(&path);
        let file = File::open(&path).unwrap();
        let in_child = ClosedInChild::reserve().unwrap();
        in_child.register(file.as_fd());
        park(file, in_child);
        assert!(reuse(&path, true).unwrap().is_none());
        assert!(reuse(&path, false).unwrap().is_some());
    }

    #[test]
    fn a_parked_descriptor_holds_no_lock() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (file, in_child) = open(&path);
        let stranger = user_of(&path);
        let byte = 1..2;
        let locked = LOCKS.try_lock(&file, byte.clone(), LockMode::Exclusive);
        assert!(locked.unwrap());
        park(file, in_child);
        let held = LOCKS.conflict(&stranger, byte).unwrap();
        assert_eq!(held.is_some(), !LOCKS.belong_to_description());
    }

    #[test]
    fn a_descriptor_is_kept_if_somebody_else_here_has_the_file_open() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let kept = || {
            let there = std::fs::metadata(&path).unwrap();
            let is_of_it = |parked: &&Parked| is(&parked.file, &there);
            parked().iter().filter(is_of_it).count()
        };
        let park_one = || {
            let (file, in_child) = open(&path);
            park(file, in_child);
        };
        park_one();
        assert_eq!(kept(), 0, "nobody has it open");
        let (user, _in_child) = open(&path);
        park_one();
        park_one();
        assert_eq!(kept(), 2);
        drop(user);
        park_one();
        assert_eq!(kept(), 0, "they are not there for each other's sake");
    }

    #[test]
    fn descriptors_of_removed_files_are_let_go() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let (file, in_child) = open(&path);
        let inode = file.metadata().unwrap().ino();
        let _user = user_of(&path);
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
