//! Refuses file systems on which locks or shared mappings do not work between
//! all users of a file.
//!
//! On network file systems and file systems shared with a host, processes on
//! different machines do not see each other's mappings, and corrupt a
//! database within minutes. They are told by their type, and named.

use std::os::fd::AsFd;
use std::path::Path;

use wal_core::{Error, Result};

use crate::options::ShmOptions;

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
    // The field is signed or not, and of different width, between systems.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = type_of(path, open)?.0 as u32;
    Ok(network_name(magic))
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
