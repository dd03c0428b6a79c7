//! Which processes have a file of the database open, and with which locks.
//!
//! The system lists a lock of an open file description without a process. The `fdinfo` of a
//! descriptor has the locks of its description, so the processes are looked through for
//! descriptors of the files. Links of `/proc/<pid>/fd` are read and not followed, but for those
//! with the name of a file of the database: to follow one leads into a file system that may
//! hang.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, str};

use nix::fcntl::readlinkat;

use super::listed_lock::ListedLock;
use super::watched::WatchedFiles;

/// What the system adds to the path of a file whose name was removed.
const DELETED: &[u8] = b" (deleted)";

/// A descriptor that may be of a file of the database.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    pub(super) pid: u32,
    number: OsString,
    /// The path of its file, as its link shows it.
    target: PathBuf,
}

impl Descriptor {
    fn info(&self) -> io::Result<Vec<u8>> {
        let directory = Path::new("/proc").join(self.pid.to_string());
        fs::read(directory.join("fdinfo").join(&self.number))
    }

    /// Its number in its process.
    pub(super) fn number(&self) -> Option<u32> {
        self.number.to_str()?.parse().ok()
    }

    /// The path by which its file was opened or to which it was renamed since, and whether
    /// that name was removed.
    pub(super) fn path(&self) -> (&Path, bool) {
        let target = self.target.as_os_str().as_bytes();
        match target.strip_suffix(DELETED) {
            Some(path) => (Path::new(OsStr::from_bytes(path)), true),
            None => (&self.target, false),
        }
    }

    /// Device and inode of its file, for which the link is followed; `None` if it was closed.
    pub(super) fn id(&self) -> Option<(u64, u64)> {
        let directory = Path::new("/proc").join(self.pid.to_string());
        let found = fs::metadata(directory.join("fd").join(&self.number)).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Whether its file can be written through it, and whether the process or its open file
    /// description holds a lock on the file.
    pub(super) fn may_write_and_has_locks(&self) -> (bool, bool) {
        let info = self.info().unwrap_or_default();
        let info = String::from_utf8_lossy(&info);
        let has_locks = info.lines().any(|line| line.starts_with("lock:"));
        (may_write(&info), has_locks)
    }

    /// The locks of its open file description on a file of `watched`, at this moment.
    pub(super) fn locks(&self, watched: &WatchedFiles) -> Vec<ListedLock> {
        let Ok(info) = self.info() else {
            return Vec::new();
        };
        let lines = info.split(|byte| *byte == b'\n');
        let locks = lines.filter_map(|line| {
            let lock = str::from_utf8(line).ok()?.strip_prefix("lock:")?;
            ListedLock::parse(lock.trim_start())
        });
        locks
            .filter(|lock| lock.belongs_to_description && watched.find(lock.file).is_some())
            .collect()
    }
}

/// Whether the descriptor with this `fdinfo` was opened for writing.
fn may_write(info: &str) -> bool {
    let flags = info.lines().find_map(|line| {
        let flags = line.strip_prefix("flags:")?.trim();
        i64::from_str_radix(flags, 8).ok()
    });
    flags.is_some_and(|flags| flags & i64::from(libc::O_ACCMODE) != i64::from(libc::O_RDONLY))
}

/// Which descriptors are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// Those whose file has the name of a file of the database.
    Named,
    /// Those of all files: one may be open by another name (a hard link, a mount of the file).
    All,
}

/// What a walk through the processes has found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) descriptors: Vec<Descriptor>,
    /// How many processes this one may not look into.
    pub(super) refused: usize,
    /// How many processes were left when the time was over.
    pub(super) left: usize,
}

/// Looks through `processes` until `deadline`.
pub(super) fn walk(
    watched: &WatchedFiles,
    processes: &[u32],
    which: Which,
    deadline: Instant,
) -> Walk {
    let mut walk = Walk::default();
    for (done, &pid) in processes.iter().enumerate() {
        match look_into(pid, watched, which, deadline, &mut walk.descriptors) {
            Ok(true) => {}
            Ok(false) => {
                walk.left = processes.len() - done;
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => walk.refused += 1,
            // It has ended.
            Err(_) => {}
        }
    }
    walk
}

/// False if the time is over.
fn look_into(
    pid: u32,
    watched: &WatchedFiles,
    which: Which,
    deadline: Instant,
    found: &mut Vec<Descriptor>,
) -> io::Result<bool> {
    let directory = format!("/proc/{pid}/fd");
    // Most of the time goes into the links, which are found sooner from the directory.
    let links = fs::File::open(&directory)?;
    for entry in fs::read_dir(&directory)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let number = entry?.file_name();
        // Closed since.
        let Ok(target) = readlinkat(&links, number.as_os_str()) else {
            continue;
        };
        let target = PathBuf::from(target);
        // Sockets and pipes have no path.
        let is_wanted = target.has_root()
            && match which {
                Which::Named => watched.have_name(name_of(&target)),
                Which::All => true,
            };
        if is_wanted {
            let descriptor = Descriptor {
                pid,
                number,
                target,
            };
            if which == Which::Named || !descriptor.locks(watched).is_empty() {
                found.push(descriptor);
            }
        }
    }
    Ok(true)
}

/// The last part of the target of a link, to which the system adds whether it was deleted.
fn name_of(target: &Path) -> &OsStr {
    let name = target.file_name().unwrap_or_default().as_bytes();
    OsStr::from_bytes(name.strip_suffix(DELETED).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_deleted_file_is_that_it_had() {
        let name = |target| name_of(Path::new(target)).to_str();
        assert_eq!(name("/a/app.db-shm"), Some("app.db-shm"));
        assert_eq!(name("/a/app.db-shm (deleted)"), Some("app.db-shm"));
        assert_eq!(name("/"), Some(""));
    }
}
