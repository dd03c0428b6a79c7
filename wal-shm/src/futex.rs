//! Waiting for a word of shared memory to change.
#![allow(unsafe_code)] // The system call takes an address.

use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use nix::errno::Errno;

use wal_core::sync::AtomicU32;

#[cfg(all(target_os = "linux", not(loom)))]
fn address(word: &AtomicU32) -> *const u32 {
    word.as_ptr()
}

/// Loom's atomics have none, which the system refuses; what is mapped is not in a model.
#[cfg(all(target_os = "linux", loom))]
fn address(_word: &AtomicU32) -> *const u32 {
    std::ptr::null()
}

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
            address(word),
            libc::FUTEX_WAIT,
            seen,
            &raw const most,
        )
    };
}

/// Sleeps until `word` is woken, unless it is not `seen` any more, and no later than `until`.
/// May return early for any reason.
pub(crate) fn wait_until(word: &AtomicU32, seen: u32, until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    wait(word, seen, left);
}

/// Sleeps until one of `words` is woken, unless one of them is not what it was seen to be any
/// more, and no later than `until`, if that is set. May return early for any reason. A system
/// that cannot wait for as many words waits for the first one, for [`POLL`] at most.
pub(crate) fn wait_any(words: &[(&AtomicU32, u32)], until: Option<Instant>) {
    let Some((first, seen)) = words.first() else {
        return;
    };
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let most = until.map_or(A_WHILE, left);
    if words.len() > 1 && !wait_vector(words, most) {
        wait(first, *seen, most.min(POLL));
    } else if words.len() == 1 {
        wait(first, *seen, most);
    }
}

/// How often words are looked at that the system cannot wait for.
const POLL: Duration = Duration::from_micros(500);
/// A sleep that need not end ends after this time, to begin again.
const A_WHILE: Duration = Duration::from_secs(3600);

/// False if the system does not do it (before Linux 5.16, or in a sandbox).
#[cfg(target_os = "linux")]
fn wait_vector(words: &[(&AtomicU32, u32)], most: Duration) -> bool {
    /// `struct futex_waitv`.
    #[repr(C)]
    struct Waiter {
        seen: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }
    /// The number of the call on all architectures but one, which refuses it.
    const SYS_FUTEX_WAITV: libc::c_long = 449;
    const MOST_WORDS: usize = 128;
    /// A word of 32 bits, which processes share.
    const FUTEX_32: u32 = 2;

    if words.len() > MOST_WORDS {
        return false;
    }
    let waiter = |(word, seen): &(&AtomicU32, u32)| Waiter {
        seen: u64::from(*seen),
        address: address(word) as u64,
        flags: FUTEX_32,
        reserved: 0,
    };
    let waiters: Vec<Waiter> = words.iter().map(waiter).collect();
    // The call takes the time at which it ends.
    let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else {
        return false;
    };
    let until = Duration::from(now).saturating_add(most);
    let until = libc::timespec {
        tv_sec: i64::try_from(until.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(until.subsec_nanos()),
    };
    // SAFETY: the words, the waiters and the time outlive the call, which reads them and
    // writes nothing.
    let woken = unsafe {
        libc::syscall(
            SYS_FUTEX_WAITV,
            waiters.as_ptr(),
            waiters.len(),
            0,
            &raw const until,
            libc::CLOCK_MONOTONIC,
        )
    };
    let ended = [Errno::EAGAIN, Errno::EINTR, Errno::ETIMEDOUT];
    woken >= 0 || ended.contains(&Errno::last())
}

/// This system does not.
#[cfg(not(target_os = "linux"))]
fn wait_vector(_words: &[(&AtomicU32, u32)], _most: Duration) -> bool {
    false
}

/// Wakes everybody who sleeps on `word`.
#[cfg(target_os = "linux")]
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: the call uses the address of the word as a name and does not
    // touch what is there.
    let _ = unsafe { libc::syscall(libc::SYS_futex, address(word), libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps no longer than `most`, and not for long, as nobody wakes it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wait(_word: &AtomicU32, _seen: u32, most: Duration) {
    std::thread::sleep(most.min(wal_core::wait::POLL_INTERVAL));
}

/// Sleepers of this system look again by themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn wake_all(_word: &AtomicU32) {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    /// As many as the system waits for, and more.
    #[test]
    fn sleep_on_many_words_ends_with_a_change_of_any() {
        for count in [1, 2, 128, 200] {
            let words: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(7)).collect();
            let (first, last) = (&words[0], &words[count - 1]);
            let deadline = Instant::now() + Duration::from_secs(60);
            for changed in [first, last] {
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while changed.load(Ordering::SeqCst) == 7 {
                            assert!(Instant::now() < deadline, "{count} words: no wake-up");
                            let seen: Vec<_> = words.iter().map(|word| (word, 7)).collect();
                            wait_any(&seen, Some(deadline));
                        }
                    });
                    changed.store(8, Ordering::SeqCst);
                    wake_all(changed);
                });
                changed.store(7, Ordering::SeqCst);
            }
        }
    }

    #[test]
    fn sleep_on_many_words_ends_in_time() {
        for count in [1, 2, 200] {
            let words: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(7)).collect();
            let seen: Vec<_> = words.iter().map(|word| (word, 7)).collect();
            let until = Instant::now() + Duration::from_millis(2);
            while Instant::now() < until {
                wait_any(&seen, Some(until));
            }
            assert!(Instant::now() < until + Duration::from_secs(30));
        }
    }
}
