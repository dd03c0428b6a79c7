//! Descriptors that are not closed, because closing them would drop the locks
//! of a stock SQLite in this process.
//!
//! POSIX locks belong to the process, and closing *any* descriptor of a file
//! drops all that the process holds on it. So a descriptor of a database or
//! `-shm` file that others may still use is kept here, without locks, and is
//! used again by the next one who opens the same file.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::coordination::LockMode;
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
static PARKED: OnceTable<Mutex<VecDeque<Parked>>> = OnceTable::new();

fn parked() -> MutexGuard<'static, VecDeque<Parked>> {
    let generation = ProcessGeneration::current().number();
    PARKED
        .get_or_make(generation, Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// How many descriptors are kept for their own sake; beyond that, those that nobody needs
/// are let go.
const KEPT: usize = 64;
/// How many are looked at then.
const LOOKS: usize = 8;

/// Keeps `file`, which is to hold no locks any more: a lock that could not be given back
/// before is given back now, for which the system needs no memory. Files that were
/// removed are let go on the occasion: nobody can open them again, so their descriptors
/// would be of no use and would only grow in number.
pub(super) fn park(file: File, in_child: ClosedInChild) {
    if LOCKS.belong_to_description() {
        let _ = LOCKS.unlock(&file, EVERY_BYTE);
    }
    let mut parked = parked();
    parked.retain(|parked| !is_removed(&parked.file));
    if !is_removed(&file) {
        parked.push_back(Parked { file, in_child });
    }
    if parked.len() > KEPT {
        let_go(&mut parked);
    }
}

/// Closes some of those that have been there longest, if nobody has a lock on their
/// files. That is so if all bytes can be locked, and stays so until they are closed: the
/// lock goes with them, and was taken for that alone.
fn let_go(parked: &mut VecDeque<Parked>) {
    for oldest in parked.drain(..LOOKS).collect::<Vec<_>>() {
        let alone = LOCKS.belong_to_description()
            && LOCKS
                .try_lock(&oldest.file, EVERY_BYTE, LockMode::Exclusive)
                .is_ok_and(|locked| locked);
        if !alone {
            parked.push_back(oldest);
        }
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
        .and_then(|at| parked.remove(at));
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
    use std::os::fd::{AsFd, AsRawFd};

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

    #[test]
    fn a_parked_descriptor_is_used_again_for_the_same_file_only() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn beyond_some_those_are_let_go_that_nobody_needs() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let path = |n: usize| dir.path().join(format!("file {n}"));
        let strangers: Vec<_> = (0..4 * KEPT)
            .map(|n| {
                let (file, in_child) = open(&path(n));
                park(file, in_child);
                let stranger = File::options().read(true).write(true).open(path(n));
                let stranger = stranger.unwrap();
                // Every fourth one is in use.
                let locked = LOCKS.try_lock(&stranger, 1..2, LockMode::Shared).unwrap();
                assert!(locked);
                if n % 4 > 0 {
                    LOCKS.unlock(&stranger, 1..2).unwrap();
                }
                stranger
            })
            .collect();
        let is_there = |n: &usize| reuse(&path(*n), true).unwrap().is_some();
        let there: Vec<usize> = (0..strangers.len()).filter(is_there).collect();
        let in_use = there.iter().filter(|n| *n % 4 == 0).count();
        assert_eq!(in_use, KEPT, "one that is in use was let go");
        assert!(there.len() <= 2 * KEPT, "{} are kept", there.len());
    }

    #[test]
    fn descriptors_of_removed_files_are_let_go() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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
