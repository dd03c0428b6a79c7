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
    let mut blocked = SigSet::all();
    FAULTS.iter().for_each(|&fault| blocked.remove(fault));
    // A new thread inherits the mask of the thread that starts it.
    let mask = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = Builder::new().name(name.to_owned()).spawn(run);
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
