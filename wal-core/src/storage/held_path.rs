//! The path of a file in a directory that is held open.
//!
//! A path leads elsewhere, or nowhere, once the process has changed its root directory
//! (`chroot`) or its user (`setuid`), or a directory above was renamed; other mount namespaces
//! have other paths. The directory that is held open stays the one in which peer processes
//! find the files. So files are looked for, opened and removed there, and the path is for
//! messages.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file_id::FileId;
use super::low_numbers::MayCarry;
use super::parking::open_with_room;
use crate::error::{Error, Result};

/// The path of a file whose directory is held open. Clones share the directory.
#[derive(Clone, Debug)]
pub struct HeldPath {
    directory: Arc<File>,
    path: PathBuf,
}

impl AsFd for HeldPath {
    /// The directory, which may be open for its path alone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// What is told of a file without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which file it is.
    pub id: FileId,
    /// Its length in bytes.
    pub len: u64,
    /// When it was written last.
    pub modified: SystemTime,
}

impl HeldPath {
    /// Opens the directory to which `path` leads now, whether the file exists or not.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be opened.
    pub fn of(path: &Path) -> Result<Self> {
        let parent = parent_of(path);
        let directory = open_directory(parent);
        let directory = directory.map_err(|e| Error::io(parent, "open the directory", e))?;
        Ok(HeldPath {
            directory: Arc::new(directory),
            path: path.to_owned(),
        })
    }

    /// The path of the file with `suffix` added to the name, in the same directory.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> Self {
        HeldPath {
            directory: self.directory.clone(),
            path: beside(&self.path, suffix),
        }
    }

    /// The path by which the directory was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that is there now; `None` if there is none. A symbolic link is a file of its
    /// own.
    ///
    /// # Errors
    /// What `fstatat` returns, other than that there is no such file.
    pub fn find(&self) -> io::Result<Option<Found>> {
        match self.stat() {
            Ok(found) => Ok(Some(found_of(&found))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// All that is told of the file that is there now.
    pub(super) fn stat(&self) -> nix::Result<FileStat> {
        fstatat(&*self.directory, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Removes the file that is there, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self) -> Result<()> {
        match unlinkat(&*self.directory, self.name(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::io(&self.path, "remove", errno.into())),
        }
    }

    /// Makes the names in the directory durable: after a file was made or removed there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync_directory(&self) -> Result<()> {
        let synced = match self.directory.sync_all() {
            // It is held by a descriptor for its path alone.
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let open = || open_in(&self.directory, OsStr::new("."), flags, Mode::empty());
                open_with_room(MayCarry::NoLocks, open).and_then(|directory| directory.sync_all())
            }
            synced => synced,
        };
        synced.map_err(|e| Error::io(parent_of(&self.path), "sync the directory", e))
    }

    /// Opens the file with `flags`, and makes it with `permissions` if the flags say so.
    pub(super) fn open(&self, flags: OFlag, permissions: u32) -> io::Result<File> {
        let permissions = Mode::from_bits_truncate(permissions as libc::mode_t);
        open_in(
            &self.directory,
            self.name(),
            flags | OFlag::O_CLOEXEC,
            permissions,
        )
    }

    /// Which directory it is; `None` if the system does not tell.
    pub(super) fn directory_id(&self) -> Option<FileId> {
        let directory = fstat(&*self.directory).ok()?;
        Some(FileId::of_stat(&directory))
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or(self.path.as_os_str())
    }
}

fn found_of(found: &FileStat) -> Found {
    let seconds = u64::try_from(found.st_mtime).unwrap_or(0);
    let nanoseconds = u32::try_from(found.st_mtime_nsec).unwrap_or(0);
    Found {
        id: FileId::of_stat(found),
        len: u64::try_from(found.st_size).unwrap_or(0),
        modified: SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds),
    }
}

fn open_in(directory: &File, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<File> {
    loop {
        match openat(directory, name, flags, mode) {
            Err(Errno::EINTR) => {}
            opened => return Ok(File::from(opened?)),
        }
    }
}

/// For reading, so that it can be synced; for its path alone where it may not be read.
fn open_directory(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = |flags| {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECTORY | flags);
        open_with_room(MayCarry::NoLocks, || options.open(path))
    };
    match open(0) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Err(e) if e.kind() == ErrorKind::PermissionDenied => open(libc::O_PATH),
        opened => opened,
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The file that belongs to the database at `path`: its very name, with
/// `suffix` added.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
