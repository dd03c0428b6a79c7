//! The numbers 0, 1 and 2 are never those of a file of this library.
//!
//! A daemon may run with its standard streams closed. The next file that it opens gets
//! such a number, and the next warning on stderr then overwrites the header of that file.
//!
//! # Protocol
//! Numbers that are free are occupied before a file is opened. Another thread may close one
//! in between, so the number of each opened file is compared. A low one of a file without
//! locks is duplicated to a higher number and closed. One of a file that carries locks is
//! never closed, because that would drop the locks of another SQLite in the process. It
//! stays open at the largest offset of the file system, where every write to the stream
//! fails with `EFBIG`, and the file is opened again.
#![allow(unsafe_code)] // A number that may not be open is no `BorrowedFd`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, fcntl};

/// The lowest number of a file of this library.
const LOWEST: RawFd = 3;
/// How often a file is opened whose number another thread makes a low one.
const ATTEMPTS: usize = 8;

/// Whether locks of this process may be on a file while it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MayCarry {
    /// A close of it drops them.
    Locks,
    NoLocks,
}

/// Opens a file by `open`, with a number above those of the standard streams.
///
/// # Errors
/// What `open` returns, or that another thread keeps closing the standard streams.
pub(super) fn open_above(
    may_carry: MayCarry,
    open: impl Fn() -> io::Result<File>,
) -> io::Result<File> {
    for _ in 0..ATTEMPTS {
        occupy()?;
        let file = open()?;
        if file.as_raw_fd() >= LOWEST {
            return Ok(file);
        }
        match may_carry {
            MayCarry::NoLocks => return move_up(&file),
            MayCarry::Locks => disarm(file),
        }
    }
    Err(io::Error::other(
        "another thread of this process closes the descriptors 0, 1 and 2 again and again; \
         replace them by dup2 instead",
    ))
}

/// Occupies the numbers of standard streams that are closed. They stay occupied.
fn occupy() -> io::Result<()> {
    // SAFETY: the call reads the flags of a number and touches no memory.
    let is_free = |number: RawFd| unsafe { libc::fcntl(number, libc::F_GETFD) } == -1;
    while (0..LOWEST).any(is_free) {
        let filler = filler()?;
        if filler.as_raw_fd() >= LOWEST {
            // Another thread has occupied the number.
            return Ok(());
        }
        let _ = filler.into_raw_fd();
    }
    Ok(())
}

/// A descriptor that reads nothing. In a jail without devices it cannot be written to.
fn filler() -> io::Result<File> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.or_else(|_| {
        let mut path_only = OpenOptions::new();
        path_only.read(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        path_only.custom_flags(libc::O_PATH);
        path_only.open("/")
    })
}

/// The same open file by a higher number.
fn move_up(file: &File) -> io::Result<File> {
    let number = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(LOWEST))?;
    // SAFETY: the call has just made the number, which belongs to nothing else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Leaves `file` open where no write to its number changes it.
fn disarm(mut file: File) {
    // An offset beyond the largest one is refused.
    let (mut at, mut beyond) = (0, 1 << 63);
    while beyond - at > 1 {
        let middle = at + (beyond - at) / 2;
        match file.seek(SeekFrom::Start(middle)) {
            Ok(_) => at = middle,
            Err(_) => beyond = middle,
        }
    }
    let _ = file.seek(SeekFrom::Start(at));
    let _ = file.into_raw_fd();
}
