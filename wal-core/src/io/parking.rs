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
use std::os::fd::AsRawFd;
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

/// How many of those that are kept are looked at when another one comes.
const LOOKS: usize = 2;

/// Keeps `file`, unless nobody needs that. It is to hold no locks any more: a lock that
/// could not be given back before is given back now, for which the system needs no
/// memory. On the occasion some of those are let go that were kept before, if nobody
/// needs them any more; all whose files were removed, so that nobody can open them again.
pub(super) fn park(file: File, in_child: ClosedInChild) {
    if LOCKS.belong_to_description() {
        let _ = LOCKS.unlock(&file, EVERY_BYTE);
    }
    let mut parked = parked();
    parked.push_back(Parked { file, in_child });
    parked.retain(|parked| !is_removed(&parked.file));
    let newest = parked.pop_back();
    let looks = LOOKS.min(parked.len());
    let oldest = parked.drain(..looks).collect::<Vec<_>>();
    let looked_at = newest.into_iter().chain(oldest);
    parked.extend(looked_at.filter(|parked| is_needed(&parked.file)));
}

/// False if nobody has a lock on `file`, as all of its bytes can be locked, and nobody
/// else in this process has it open: who opens it now takes its first lock long after
/// this descriptor is closed. It is not closed while it is locked, for then a child that
/// is just being made would keep the file locked. A descriptor that cannot be written
/// through takes no such lock, and is kept.
fn is_needed(file: &File) -> bool {
    if !LOCKS.belong_to_description() {
        return true;
    }
    let is_alone = LOCKS
        .try_lock(file, EVERY_BYTE, LockMode::Exclusive)
        .is_ok_and(|locked| locked);
    let is_needed = !is_alone || is_open_elsewhere(file).unwrap_or(true);
    let is_unlocked = LOCKS.unlock(file, EVERY_BYTE).is_ok();
    is_needed || !is_unlocked
}

/// True if another descriptor of this process is of the same file.
fn is_open_elsewhere(file: &File) -> io::Result<bool> {
    let this = file.metadata()?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        // One that is gone by now is no longer open.
        let is_same = std::fs::metadata(&path).is_ok_and(|other| same_file(&other, &this));
        if is_same && number != Some(file.as_raw_fd()) {
            return Ok(true);
        }
    }
    Ok(false)
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
        let (file, _in_child) = open(path);
        assert!(LOCKS.try_lock(&file, 9..10, LockMode::Shared).unwrap());
        file
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
    fn a_descriptor_is_kept_as_long_as_somebody_needs_it() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        if !LOCKS.belong_to_description() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |n: usize| dir.path().join(format!("file {n}"));
        let is_kept = |n: usize| {
            let is_there = |parked: &Parked| {
                let there = std::fs::metadata(path(n)).unwrap();
                same_file(&parked.file.metadata().unwrap(), &there)
            };
            parked().iter().any(is_there)
        };
        let park_one = |n: usize| {
            let (file, in_child) = open(&path(n));
            park(file, in_child);
        };
        park_one(0);
        assert!(!is_kept(0), "nobody has it open");
        // Nobody else has a lock, but somebody who has it open may take one.
        let users: Vec<File> = (1..=LOOKS).map(|n| open(&path(n)).0).collect();
        (1..=LOOKS).for_each(park_one);
        assert!((1..=LOOKS).all(is_kept));
        drop(users);
        assert!((1..=LOOKS).all(is_kept), "nobody has looked");
        park_one(0);
        assert!(!(0..=LOOKS).any(is_kept));
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
