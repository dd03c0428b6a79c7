//! Refuses a file that processes may have open by two names.
//!
//! The log lies beside one name. A process that opens the file by another one finds no log
//! there, or another log, and commits are lost without an error. Noticed are
//! - hard links: the file has more than one (`st_nlink`);
//! - a file that is mounted by itself, as into a container: it is the root of a mount
//!   (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8). The process that has it by its first name notices
//!   nothing, but every process that sees it mounted does.
//!
//! Symbolic links are resolved before, and a directory that is mounted twice is one directory.
#![allow(unsafe_code)] // `statx` has no wrapper.

use super::{File, OsFile};
use crate::error::{Error, Result};

/// Refuses `file` if it may have another name.
///
/// # Errors
/// [`Error::CannotOpen`] if it may, [`Error::Io`].
pub fn refuse_other_names(file: &OsFile) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let open = file.as_file()?;
    let metadata = open
        .metadata()
        .map_err(|e| Error::io(file.path(), "fstat", e))?;
    let reason = if metadata.nlink() > 1 {
        format!("it has {} names, which are hard links", metadata.nlink())
    } else if is_mounted_by_itself(file.path()) {
        "it is mounted by itself, so it has another name elsewhere".to_owned()
    } else {
        return Ok(());
    };
    let advice = "its log lies beside one name, and processes that use two names lose each \
        other's commits; share its directory instead, or set `Options::allow_other_names` if no \
        process uses another name";
    Err(Error::cannot_open(
        file.path(),
        format!("{reason}: {advice}"),
    ))
}

/// True if the system tells that the file at `path` is the root of a mount. A descriptor would
/// tell this of the name by which it was opened, and may have been parked since.
#[cfg(target_os = "linux")]
fn is_mounted_by_itself(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    const MOUNT_ROOT: u64 = libc::STATX_ATTR_MOUNT_ROOT as u64;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: zeros are a value of this structure of numbers.
    let mut told: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and the structure is written only within its size.
    let failed = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            0,
            &raw mut told,
        )
    };
    failed == 0 && told.stx_attributes & told.stx_attributes_mask & MOUNT_ROOT != 0
}

/// Nothing is known about mounts here.
#[cfg(not(target_os = "linux"))]
fn is_mounted_by_itself(_path: &std::path::Path) -> bool {
    false
}
