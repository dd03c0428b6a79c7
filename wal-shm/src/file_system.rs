//! Refuses file systems on which locks or shared mappings do not work between
//! all users of a file.
//!
//! On network file systems and file systems shared with a host, processes on
//! different machines do not see each other's mappings, and corrupt a
//! database within minutes. They are told by their type, and named.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use wal_core::{Error, Result};

use crate::options::ShmOptions;

/// The type of the file system that a file or directory is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSystemType {
    magic: Option<u32>,
}

impl FileSystemType {
    /// The one of the file or directory at `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    #[cfg(target_os = "linux")]
    pub fn of(path: &Path) -> Result<Self> {
        let found = nix::sys::statfs::statfs(path);
        let found = found.map_err(|e| Error::io(path, "statfs", e.into()))?;
        Ok(FileSystemType {
            magic: Some(number_of(found.filesystem_type())),
        })
    }

    /// Nothing is known about file systems here.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_path: &Path) -> Result<Self> {
        Ok(FileSystemType { magic: None })
    }

    /// True if its files are in memory, and lost at a restart of the machine.
    #[must_use]
    pub fn is_memory(self) -> bool {
        matches!(self.magic, Some(TMPFS | RAMFS))
    }
}

impl fmt::Display for FileSystemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(magic) = self.magic else {
            return f.write_str("a file system of unknown type");
        };
        match network_name(magic).or(local_name(magic)) {
            Some(name) => f.write_str(name),
            None => write!(f, "a file system of type {magic:#x}"),
        }
    }
}

const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

/// The name of a local file system by its number (`linux/magic.h`).
fn local_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0xef53 => "ext2, ext3 or ext4",
        0x5846_5342 => "XFS",
        0x9123_683e => "Btrfs",
        0x2fc1_2fc1 => "ZFS",
        0xf2f5_2010 => "F2FS",
        0x794c_7630 => "overlayfs",
        0x4d44 => "FAT",
        0x2011_bab0 => "exFAT",
        TMPFS => "tmpfs",
        RAMFS => "ramfs",
        _ => return None,
    })
}

/// True if the database at `path` is on a file system of that kind, which `options`
/// allow. `open` is the database file, or its directory if the file is not opened here.
///
/// # Errors
/// [`Error::CannotOpen`] if they do not, [`Error::Io`].
pub(crate) fn is_network(path: &Path, open: impl AsFd, options: ShmOptions) -> Result<bool> {
    match network_name_of(path, open)? {
        Some(name) if !options.allow_network_file_system => Err(Error::cannot_open(
            path,
            format!(
                "it is on a network or host-shared file system ({name}), where shared memory does \
                 not reach all users; move it to a local disk, or allow it by an option if only \
                 this machine uses it"
            ),
        )),
        name => Ok(name.is_some()),
    }
}

/// True if the database at `path` is on a file system that copies a file when it is first
/// opened for writing. Calls on descriptors that were opened before go to the copy then;
/// their mappings stay with the file from which it was copied.
///
/// # Errors
/// [`Error::Io`].
#[cfg(target_os = "linux")]
pub(crate) fn copies_up(path: &Path, open: impl AsFd) -> Result<bool> {
    let overlay = nix::sys::statfs::OVERLAYFS_SUPER_MAGIC;
    Ok(type_of(path, open)? == overlay)
}

/// Nothing is known about file systems here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn copies_up(_path: &Path, _open: impl AsFd) -> Result<bool> {
    Ok(false)
}

/// The name of the network or host-shared file system that the open file is on; `None` if it
/// is on another one.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn network_name_at(path: &Path, open: impl AsFd) -> Result<Option<&'static str>> {
    network_name_of(path, open)
}

#[cfg(target_os = "linux")]
fn type_of(path: &Path, open: impl AsFd) -> Result<nix::sys::statfs::FsType> {
    let found = nix::sys::statfs::fstatfs(open);
    let found = found.map_err(|e| Error::io(path, "fstatfs", e.into()))?;
    Ok(found.filesystem_type())
}

#[cfg(target_os = "linux")]
fn network_name_of(path: &Path, open: impl AsFd) -> Result<Option<&'static str>> {
    Ok(network_name(number_of(type_of(path, open)?)))
}

/// The field is signed or not, and of different width, between systems.
#[cfg(target_os = "linux")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn number_of(found: nix::sys::statfs::FsType) -> u32 {
    found.0 as u32
}

/// Nothing is known about file systems here.
#[cfg(not(target_os = "linux"))]
fn network_name_of(_path: &Path, _open: impl AsFd) -> Result<Option<&'static str>> {
    Ok(None)
}

/// The name of a network file system by the number that `statfs` gives
/// (`linux/magic.h`).
fn network_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x0102_1997 => "9p",
        // Also the number of virtiofs and of sshfs.
        0x6573_5546 => "FUSE or virtiofs",
        0x5346_414f => "AFS",
        0x6b41_4653 => "kAFS",
        0x7375_7245 => "Coda",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x564c => "NCP",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_of_a_type_is_named_and_judged() {
        let of = |magic| FileSystemType { magic: Some(magic) };
        assert_eq!(of(0xef53).to_string(), "ext2, ext3 or ext4");
        assert_eq!(of(0x6969).to_string(), "NFS");
        assert_eq!(of(0x1234).to_string(), "a file system of type 0x1234");
        assert!(of(TMPFS).is_memory() && !of(0xef53).is_memory());
        assert!(FileSystemType::of(Path::new("/proc")).is_ok_and(|found| !found.is_memory()));
        assert!(FileSystemType::of(Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn network_file_systems_are_named_and_local_ones_pass() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0x0102_1997), Some("9p"));
        let local = [
            0xef53,
            0x0102_1994,
            0x5846_5342,
            0x9123_683e,
            0x794c_7630,
            0x2fc1_2fc1,
        ];
        assert!(local.into_iter().all(|magic| network_name(magic).is_none()));
    }
}
