//! Waiting for a word of shared memory to change.
#![allow(unsafe_code)] // The system call takes an address.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps until `word` is woken, unless it is not `seen` any more, and no
/// longer than `most`. May return early for any reason.
#[cfg(target_os = "linux")]
pub(crate) fn wait(word: &AtomicU32, seen: u32, most: Duration) {
    let most = libc::timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(most.subsec_nanos()),
    };
    // SAFETY: the word and the time outlive the call, which reads both and
    // writes neither. The word is shared between processes, so the call is
    // not the process-private form.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            seen,
            &raw const most,
        )
    };
}

/// Wakes everybody who sleeps on `word`.
#[cfg(target_os = "linux")]
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: the call uses the address of the word as a name and does not
    // touch what is there.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps no longer than `most`, and not for long, as nobody wakes it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wait(_word: &AtomicU32, _seen: u32, most: Duration) {
    std::thread::sleep(most.min(Duration::from_millis(2)));
}

/// Sleepers of this system look again by themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wake_all(_word: &AtomicU32) {}
