//! Threads of the library in a process whose signals belong to the program.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The signals of a fault of the thread itself. The system ends a process in which one of them is
/// blocked, without a call of the program's handler, such as a crash reporter.
const FAULTS: [Signal; 6] = [
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Starts a thread with the name `name`, in which all signals are blocked but those of a fault:
/// the program's handlers run in its own threads.
///
/// # Errors
/// The error of the system, if it starts no thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    with_mask(|| Builder::new().name(name.to_owned()).spawn(run))
}

/// Calls `run` in as many threads as the system has processors for, this one included, and
/// returns once all calls have. The other threads block signals as those of [`spawn`]. Where the
/// system starts fewer threads, fewer calls are made.
pub fn on_all_processors(name: &str, run: impl Fn() + Sync) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..processors {
            let thread = || Builder::new().name(name.to_owned());
            if with_mask(|| thread().spawn_scoped(scope, &run)).is_err() {
                break;
            }
        }
        run();
    });
}

/// Calls `start`, which starts a thread, with the mask of signals that the thread is to have.
fn with_mask<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut blocked = SigSet::all();
    FAULTS.iter().for_each(|&fault| blocked.remove(fault));
    // A new thread inherits the mask of the thread that starts it.
    let mask = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = start();
    // It fails for an unknown `how` alone.
    let _ = mask.thread_set_mask();
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_blocks_signals_and_its_starter_does_not() {
        let before = SigSet::thread_get_mask().unwrap();
        let thread = spawn("wal-test", || SigSet::thread_get_mask().unwrap()).unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
        let mask = thread.join().unwrap();
        let kept = Signal::iterator().filter(|&signal| !mask.contains(signal));
        let kept: Vec<_> = kept.map(Signal::as_str).collect();
        // The system blocks neither SIGKILL nor SIGSTOP.
        let expected = "SIGILL SIGTRAP SIGBUS SIGFPE SIGKILL SIGSEGV SIGSTOP SIGSYS";
        assert_eq!(kept.join(" "), expected);
    }
}
