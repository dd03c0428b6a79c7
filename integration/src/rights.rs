//! Work without the rights of root, as whom the tests may run.
// A test ends where a thread of it panics.
#![allow(clippy::unwrap_used)]

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

/// The user "nobody", which owns nothing.
pub const NOBODY: u32 = 65534;

/// Runs `work` with the file system rights of nobody, which are a thread's.
pub fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if geteuid().is_root() {
                setfsgid(Gid::from_raw(NOBODY));
                setfsuid(Uid::from_raw(NOBODY));
            }
            work()
        });
        thread.join().unwrap()
    })
}
