//! By which numbers the system knows a file.
//!
//! A list of locks has the device and the inode of the file system's own structures. `stat`
//! may give another device: each subvolume of btrfs has one of its own, and so may the layers
//! of an overlay. The device of the mount, and the inode in the `fdinfo` of a descriptor, are
//! those of the list.
//!
//! A descriptor for the path alone (`O_PATH`) gives both. It needs no right to read the file,
//! changes no time of access, and its close drops no POSIX lock.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use wal_core::{Error, Result};

use super::DatabaseFile;
use super::listed_lock::ListedFile;

/// The place of a file of the database, and the file that lies there now.
#[derive(Clone, Debug)]
pub(super) struct WatchedFile {
    pub(super) file: DatabaseFile,
    pub(super) path: PathBuf,
    /// The device and inode in its `stat`; `None` if there is no file now.
    pub(super) id: Option<(u64, u64)>,
    /// By each of these the system may list its locks.
    pub(super) listed: BTreeSet<ListedFile>,
}

/// The files of a database.
#[derive(Clone, Debug)]
pub(super) struct WatchedFiles(Vec<WatchedFile>);

impl WatchedFiles {
    /// The files of the database at `path`, whose symbolic links are followed. The database is
    /// there.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let resolved = path.canonicalize();
        Self::at(&resolved.map_err(|e| Error::io(path, "find", e))?)
    }

    /// The same, where the database itself may have been removed.
    pub(super) fn of_maybe_removed(path: &Path) -> Result<Self> {
        match path.canonicalize() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => return Self::of(path),
        }
        let io = |e| Error::io(path, "find", e);
        let name = path.file_name();
        let name = name.ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).canonicalize();
        Self::at(&parent.map_err(io)?.join(name))
    }

    fn at(path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for file in DatabaseFile::ALL {
            let place = file.path(path);
            let (id, listed) = match numbers_of(&place) {
                Ok((id, listed)) => (Some(id), listed),
                Err(e) if e.kind() == io::ErrorKind::NotFound => (None, BTreeSet::new()),
                Err(e) => return Err(Error::io(&place, "find", e)),
            };
            files.push(WatchedFile {
                file,
                path: place,
                id,
                listed,
            });
        }
        Ok(WatchedFiles(files))
    }

    /// Which of them the system lists as `listed`.
    pub(super) fn find(&self, listed: ListedFile) -> Option<DatabaseFile> {
        let watched = self.0.iter().find(|file| file.listed.contains(&listed))?;
        Some(watched.file)
    }

    /// True if a path with the last part `name` may be one of them.
    pub(super) fn have_name(&self, name: &OsStr) -> bool {
        self.0
            .iter()
            .any(|file| file.path.file_name() == Some(name))
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &WatchedFile> {
        self.0.iter()
    }
}

/// Returns the device and inode in the `stat` of the file at `place`, and the numbers by which
/// the system may list its locks. A symbolic link is not followed.
#[cfg(target_os = "linux")]
fn numbers_of(place: &Path) -> io::Result<((u64, u64), BTreeSet<ListedFile>)> {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    use nix::sys::stat::{major, minor};

    let mut options = File::options();
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = options.read(true).custom_flags(flags).open(place)?;
    let stat = file.metadata()?;
    let by_stat = ListedFile {
        major: major(stat.dev()),
        minor: minor(stat.dev()),
        inode: stat.ino(),
    };
    let mut numbers = BTreeSet::from([by_stat]);
    let info = format!("/proc/thread-self/fdinfo/{}", file.as_raw_fd());
    // Of the thread, which may have mounts of its own. Without `/proc` no lock is listed either.
    if let Ok(info) = std::fs::read_to_string(info)
        && let Ok(mounts) = std::fs::read("/proc/thread-self/mountinfo")
    {
        numbers.extend(numbers_in(
            &info,
            &String::from_utf8_lossy(&mounts),
            by_stat.inode,
        ));
    }
    Ok(((stat.dev(), stat.ino()), numbers))
}

/// No other system lists locks in this form.
#[cfg(not(target_os = "linux"))]
fn numbers_of(place: &Path) -> io::Result<((u64, u64), BTreeSet<ListedFile>)> {
    use std::os::unix::fs::MetadataExt;

    let found = std::fs::symlink_metadata(place)?;
    Ok(((found.dev(), found.ino()), BTreeSet::new()))
}

/// The numbers that `info`, the `fdinfo` of a descriptor, and `mounts`, the `mountinfo` of its
/// process, give. Kernels before 5.14 do not list the inode.
#[cfg(target_os = "linux")]
fn numbers_in(info: &str, mounts: &str, inode: u64) -> Option<ListedFile> {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim()))
    };
    let mount = field("mnt_id:")?;
    let inode = field("ino:")
        .and_then(|inode| inode.parse().ok())
        .unwrap_or(inode);
    let (major, minor) = mounts.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_mount = words.next()? == mount;
        let device = words.nth(1)?;
        is_mount.then(|| device.split_once(':')).flatten()
    })?;
    Some(ListedFile {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        inode,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const INFO: &str = "pos:\t0\nflags:\t012100000\nmnt_id:\t27\nino:\t257\n";
    const MOUNTS: &str = "\
26 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
27 26 0:35 /sub /mnt/a\\040b rw,relatime - btrfs /dev/vdb rw,subvol=/sub\n\
garbage\n\n";

    #[test]
    fn device_is_that_of_the_mount_and_inode_that_of_the_descriptor() {
        let numbers = numbers_in(INFO, MOUNTS, 9);
        let listed = |inode| ListedFile {
            major: 0,
            minor: 35,
            inode,
        };
        assert_eq!(numbers, Some(listed(257)));
        let old = INFO.replace("ino:\t257\n", "");
        assert_eq!(numbers_in(&old, MOUNTS, 9), Some(listed(9)));
    }

    #[test]
    fn unknown_mount_and_garbage_give_no_numbers() {
        assert_eq!(numbers_in(&INFO.replace("27", "28"), MOUNTS, 9), None);
        for (info, mounts) in [
            ("", MOUNTS),
            (INFO, ""),
            (INFO, "27 26 x:y /"),
            (INFO, "27"),
        ] {
            assert_eq!(numbers_in(info, mounts, 9), None, "{info:?} {mounts:?}");
        }
    }

    #[test]
    fn files_beside_a_database_are_found_by_its_link_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        for suffix in ["", "-shm"] {
            std::fs::write(wal_core::storage::beside(&path, suffix), "x").unwrap();
        }
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let watched = WatchedFiles::of(&link).unwrap();
        let there = watched.0.iter().filter(|file| file.id.is_some());
        let files: Vec<DatabaseFile> = there.map(|file| file.file).collect();
        assert_eq!(files, [DatabaseFile::Database, DatabaseFile::Index]);
        // A process may have the log open that is there no more.
        for name in ["app.db-shm", "app.db-wal"] {
            assert!(watched.have_name(OsStr::new(name)));
        }
        assert!(!watched.have_name(OsStr::new("app.db-journal")));
    }

    #[test]
    fn removed_database_is_watched_only_where_that_is_expected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none");
        assert!(WatchedFiles::of(&path).is_err());
        let watched = WatchedFiles::of_maybe_removed(&path).unwrap();
        assert!(watched.iter().all(|file| file.id.is_none()));
        assert!(watched.have_name(OsStr::new("none-wal")));
        assert!(WatchedFiles::of_maybe_removed(&path.join("none")).is_err());
    }
}
