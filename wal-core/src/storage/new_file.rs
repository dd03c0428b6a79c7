//! A file that is written whole before it gets its name.
//!
//! # Protocol
//! The file is made beside its future name and locked, written and synced by the caller, and
//! named in one call. Its first name ends in [`SUFFIX`] and two numbers.
//!
//! # Crash
//! Before the call that names it nothing is at the future name. The file stays under its first
//! name, without a lock; the next [`NewFile::beside`] in that directory removes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

use super::byte_lock::{ByteLocks, LockKind};
use super::{OpenMode, OsFile, database_bytes, sync_directory};
use crate::error::{Error, Result};
use crate::types::LockMode;

/// What is added to the future name, before the number of the process and one of the file. A
/// file of such a name that no process has locked is taken for a leftover.
const SUFFIX: &str = "-new-by-wal-";
/// The lock that says that the maker of the file is alive. SQLite does not use this byte.
const ALIVE: std::ops::Range<u64> = 0..1;
const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// What becomes of a file that is at the future name already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// It stays, and the new file is not named.
    Keep,
    /// The new file replaces it. A process that has it open keeps the old one.
    Replace,
}

/// A file without its name. It is removed when it is dropped.
#[derive(Debug)]
pub struct NewFile {
    first_name: PathBuf,
    /// `None` once it was closed.
    file: Option<OsFile>,
    is_named: bool,
}

impl NewFile {
    /// Makes a file that is going to be at `path`, with the owner and the permissions of
    /// `like`, and removes what makers that died have left in its directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn beside(path: &Path, like: Option<&OsFile>) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers(path);
        let mode = || like.map_or(OpenMode::New, OpenMode::NewLike);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut name = OsString::from(path);
            name.push(format!("{SUFFIX}{}-{number}", std::process::id()));
            let first_name = PathBuf::from(name);
            let file = match OsFile::open_for_locks(&first_name, mode()) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    continue;
                }
                made => made?,
            };
            file.set_close_on_drop(true);
            // Before it is locked it looks like a leftover, and a peer may be removing it. A
            // file system without locks leaves it to the user to remove what is left.
            let locked = LOCKS.try_lock(file.as_file()?, ALIVE, LockMode::Exclusive);
            if !matches!(locked, Ok(false)) && file.is_still_at_its_path()? {
                return Ok(NewFile {
                    first_name,
                    file: Some(file),
                    is_named: false,
                });
            }
        }
    }

    /// The file, to be written and synced.
    ///
    /// # Errors
    /// [`Error::Refused`] once [`NewFile::close`] was called.
    pub fn file(&self) -> Result<&OsFile> {
        let reason = "it was closed";
        let closed = || Error::refused(&self.first_name, "writing the new file", reason);
        self.file.as_ref().ok_or_else(closed)
    }

    /// Closes the file, which is written and synced. Once it has its name that would drop the
    /// locks of a stock SQLite in this process; so a file that this process does not open is
    /// closed before. Another maker that takes it for a leftover in that moment removes it,
    /// and [`NewFile::name`] then finds no file.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Gives the file the name `path`, durably.
    ///
    /// # Errors
    /// [`Error::Io`]: of the kind `AlreadyExists` if a file is there that is to stay, and
    /// `Unsupported` if the file system cannot name a file in one call that keeps another,
    /// when it may be called again.
    pub fn name(&mut self, path: &Path, naming: Naming) -> Result<()> {
        if let Some(file) = &self.file {
            file.set_close_on_drop(false);
        }
        let named = match naming {
            Naming::Keep => rename_to_new_name(&self.first_name, path),
            Naming::Replace => fs::rename(&self.first_name, path),
        };
        named.map_err(|e| Error::io(path, "name the new file", e))?;
        self.is_named = true;
        if let Some(file) = &self.file {
            // The descriptor may be parked.
            let _ = LOCKS.unlock(file.as_file()?, ALIVE);
        }
        sync_directory(path)
    }

    /// Gives the file the name `path`, durably, if nothing is there: also on a file system that
    /// cannot do so in one call. There the name is taken by an empty file, which is replaced.
    ///
    /// # Errors
    /// [`Error::Io`], of the kind `AlreadyExists` if something is there.
    pub fn name_new(&mut self, path: &Path) -> Result<()> {
        match self.name(path, Naming::Keep) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported => {
                let taken = fs::File::create_new(path);
                taken.map_err(|e| Error::io(path, "name the new file", e))?;
                let named = self.name(path, Naming::Replace);
                named.inspect_err(|_| drop(fs::remove_file(path)))
            }
            named => named,
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_named {
            if let Some(file) = &self.file {
                file.set_close_on_drop(true);
            }
            let _ = fs::remove_file(&self.first_name);
        }
    }
}

/// Renames in one call that never replaces a file.
fn rename_to_new_name(from: &Path, to: &Path) -> io::Result<()> {
    match rename_without_replacing(from, to) {
        Err(e) if is_unsupported(&e) => Err(io::Error::new(io::ErrorKind::Unsupported, e)),
        renamed => renamed,
    }
}

#[cfg(target_os = "linux")]
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let flags = RenameFlags::RENAME_NOREPLACE;
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn rename_without_replacing(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// True if the file system does not know the call (`EINVAL` for a flag that it does not know).
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
    ) || error.kind() == io::ErrorKind::Unsupported
}

/// Removes the files of makers that have died. What cannot be removed stays.
fn remove_leftovers(path: &Path) {
    for leftover in with_first_names(directory_of(path)) {
        let Ok(file) = OsFile::open(&leftover, OpenMode::Existing) else {
            continue;
        };
        // A database that a process has open is none, whatever its name is.
        let is_dead = file.as_file().is_ok_and(|open| {
            matches!(LOCKS.conflict(open, database_bytes::ALL), Ok(None))
                && matches!(LOCKS.try_lock(open, ALIVE, LockMode::Exclusive), Ok(true))
        });
        // Its maker may have named it, and another one may have its first name.
        if is_dead && file.is_still_at_its_path().unwrap_or(false) {
            let _ = fs::remove_file(&leftover);
        }
    }
}

/// The files in the directory of `path` that makers of new files have left when they died. The
/// next [`NewFile::beside`] in that directory removes them. No lock is acquired; what cannot be
/// read is not listed.
///
/// ```
/// let left = wal_core::storage::new_file_leftovers("app.db".as_ref());
/// assert!(left.is_empty());
/// ```
pub fn new_file_leftovers(path: &Path) -> Vec<PathBuf> {
    let is_dead = |leftover: &PathBuf| {
        let file = OsFile::open(leftover, OpenMode::Observed);
        file.is_ok_and(|file| {
            let is_free = |bytes| {
                let open = file.as_file();
                open.is_ok_and(|open| matches!(LOCKS.conflict(open, bytes), Ok(None)))
            };
            is_free(database_bytes::ALL) && is_free(ALIVE)
        })
    };
    with_first_names(directory_of(path))
        .filter(is_dead)
        .collect()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// The files in `directory` with the first name of a new file.
fn with_first_names(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| is_first_name(&entry.file_name().to_string_lossy()));
    named.map(|entry| entry.path())
}

/// True for a name, [`SUFFIX`] and two numbers.
fn is_first_name(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name
        .rsplit_once(SUFFIX)
        .and_then(|(future, numbers)| (!future.is_empty()).then_some(numbers)?.split_once('-'));
    numbers.is_some_and(|(process, file)| is_number(process) && is_number(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn new_file_keeps_or_replaces_what_is_at_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let make = || NewFile::beside(&path, None).unwrap();
        make().name(&path, Naming::Keep).unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        let kept = make().name(&path, Naming::Keep).unwrap_err();
        assert!(
            matches!(&kept, Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists),
            "{kept}"
        );
        assert_eq!(fs::metadata(&path).unwrap().ino(), first);
        let mut replacing = make();
        let ino = replacing
            .file()
            .unwrap()
            .as_file()
            .unwrap()
            .metadata()
            .unwrap()
            .ino();
        replacing.name(&path, Naming::Replace).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), ino);
        assert_eq!(names(directory.path()), ["db"]);
    }

    #[test]
    fn leftover_of_a_dead_maker_is_removed_and_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let alive = NewFile::beside(&path, None).unwrap();
        let others = [
            "db",
            "-new-by-wal-1-1",
            "db-new-by-wal-1",
            "db-new-by-wal-1-x",
            "db-new-by-wal--1",
            "db-new-by-wal-1-1-1",
        ];
        let leftovers = ["db-new-by-wal-1-1", "other-new-by-wal-99999-0"];
        for name in others.iter().chain(&leftovers) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        drop(NewFile::beside(&path, None).unwrap());
        let mut expected: Vec<OsString> = others.map(OsString::from).to_vec();
        expected.push(alive.first_name.file_name().unwrap().to_owned());
        expected.sort();
        assert_eq!(names(directory.path()), expected);
    }
}
