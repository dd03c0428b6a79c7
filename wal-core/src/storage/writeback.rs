//! Lets the system begin to write a part of a file to the disk.
//!
//! Nothing is durable by that, and nothing has to be done: a sync that follows
//! finds less to wait for.
#![allow(unsafe_code)] // The call is in libc only.

use std::ops::Range;
use std::{fs, io};

/// Begins to write `range` of `file` to the disk, where the system can be asked
/// to.
///
/// # Errors
/// What says that something in it cannot be written.
#[cfg(target_os = "linux")]
pub(super) fn start(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let (Ok(offset), Ok(len)) = (
        i64::try_from(range.start),
        i64::try_from(range.end.saturating_sub(range.start)),
    ) else {
        return Ok(());
    };
    // SAFETY: the call takes numbers only, and the descriptor is open as long as
    // `file`.
    let answer = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EIO | libc::ENOSPC | libc::EDQUOT) => Err(error),
        // It cannot be done here, and need not.
        _ => Ok(()),
    }
}

/// There is no such call.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
pub(super) fn start(_: &fs::File, _: Range<u64>) -> io::Result<()> {
    Ok(())
}
