//! Room on the disk for a file that is mapped to be written.
//!
//! A store to a mapped page whose blocks the disk has no room for is a signal (`SIGBUS`),
//! where a write would be an error. So the blocks are allocated before.
//!
//! A file system that writes each block to a new place (btrfs) needs room for each store to
//! a page that was written back, though the page has blocks. It is asked not to, which it
//! grants to an empty file only; from Linux 6.17 on such a store needs no room. What a
//! process of SQLite has made there, or a snapshot of the file system has of the file, is
//! written to a new place all the same.
#![cfg_attr(target_os = "linux", allow(unsafe_code))] // Attributes are set by `ioctl`.

use std::os::unix::fs::FileExt;
use std::{fs, io};

use wal_core::storage::{File, OsFile};
use wal_core::{Error, Result};

/// Makes `file` empty, and asks that its blocks be written in place.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn empty(file: &OsFile) -> Result<()> {
    file.set_len(0)?;
    #[cfg(target_os = "linux")]
    {
        let _ = linux::write_in_place(file.as_file()?);
    }
    Ok(())
}

/// Makes `file`, which is `len` long, `end` long, with all of the new part really there.
///
/// # Errors
/// [`Error::Io`]. What is there then is allocated, and the next call goes on behind it.
pub(crate) fn allocate(file: &OsFile, len: u64, end: u64) -> Result<()> {
    allocate_in(file.as_file()?, len, end).map_err(|e| Error::io(file.path(), "grow", e))
}

fn allocate_in(file: &fs::File, len: u64, end: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if linux::allocate_at_once(file, len, end)? {
        return Ok(());
    }
    // Each byte: the blocks of the file system may be of any size. Nobody has stored to what
    // the file did not have.
    let zeros = [0; 4096];
    let mut at = len;
    while at < end {
        let next = usize::try_from(end - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all_at(&zeros[..next], at)?;
        at += next as u64;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::AsRawFd;
    use std::{fs, io};

    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};
    use nix::libc::{FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, c_long};
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};

    /// `FS_NOCOW_FL` (`linux/fs.h`).
    const NOT_TO_A_NEW_PLACE: c_long = 0x0080_0000;

    nix::ioctl_read_bad!(attributes, FS_IOC_GETFLAGS, c_long);
    nix::ioctl_write_ptr_bad!(set_attributes, FS_IOC_SETFLAGS, c_long);

    /// Allocates the new part by one call; false if the file system cannot.
    pub(super) fn allocate_at_once(file: &fs::File, len: u64, end: u64) -> io::Result<bool> {
        let signed = |n| i64::try_from(n).map_err(|_| Errno::EFBIG);
        let (from, by) = (signed(len)?, signed(end - len)?);
        loop {
            match fallocate(file, FallocateFlags::empty(), from, by) {
                Ok(()) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Other file systems have other uses for the attribute, or none.
    pub(super) fn write_in_place(file: &fs::File) -> nix::Result<()> {
        if fstatfs(file)?.filesystem_type() != BTRFS_SUPER_MAGIC {
            return Ok(());
        }
        let descriptor = file.as_raw_fd();
        let mut now = 0;
        // SAFETY: the descriptor is open as long as `file` is borrowed, and the system
        // stores a number to `now`, which is as long as the call says.
        unsafe { attributes(descriptor, &raw mut now) }?;
        let wanted = now | NOT_TO_A_NEW_PLACE;
        // SAFETY: as above; the system only loads the number.
        unsafe { set_attributes(descriptor, &raw const wanted) }?;
        Ok(())
    }
}
