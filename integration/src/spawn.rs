//! Starts processes that do not outlive the test.
//!
//! A test that is killed runs no destructors. So the system kills what the test
//! has started ([`set_pdeathsig`]), also a process that is stopped, or in the
//! middle of a long load.
//!
//! The system regards the *thread* that forked as the parent, and tests start
//! processes on threads that end before. So one thread, which lives as long as
//! the process, starts all of them. A test that has mounted a disk for its own thread
//! ([`crate::disk`]) sees it, and so do the processes that it starts.

// `pre_exec` runs its closure between `fork` and `exec`.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

struct Request {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

/// Starts `command`, with the mounts of the calling thread. The process is killed when this
/// one ends, however it does.
///
/// # Errors
///
/// Those of [`Command::spawn`].
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = Pid::this();
    let mounts = own_mounts()?;
    let dies_with_parent = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        #[cfg(target_os = "linux")]
        if let Some(mounts) = &mounts {
            nix::sched::setns(mounts, nix::sched::CloneFlags::CLONE_NEWNS)?;
        }
        // The parent may have ended before it was asked for.
        let lives = getppid() == parent;
        lives.then_some(()).ok_or(Errno::ESRCH.into())
    };
    // SAFETY: the closure makes a few system calls, which are async-signal-safe,
    // takes no lock and does not allocate.
    unsafe { command.pre_exec(dies_with_parent) };
    let (answer, answered) = channel();
    let request = Request { command, answer };
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    let sent = starter()?.send(request);
    sent.map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    answered.recv().map_err(gone)?
}

/// The mount namespace of this thread, if it is not that of the process.
fn own_mounts() -> io::Result<Option<File>> {
    if cfg!(not(target_os = "linux")) {
        return Ok(None);
    }
    let [own, common] = ["thread-self", "self"].map(|of| format!("/proc/{of}/ns/mnt"));
    match fs::read_link(&own)? == fs::read_link(common)? {
        true => Ok(None),
        false => File::open(own).map(Some),
    }
}

/// The way to the thread that starts processes.
fn starter() -> io::Result<Sender<Request>> {
    static STARTER: OnceLock<io::Result<Sender<Request>>> = OnceLock::new();
    let start = || {
        let (sender, requests) = channel::<Request>();
        let run = move || {
            for mut request in requests {
                // The sender waits for the answer, unless it panicked.
                let _ = request.answer.send(request.command.spawn());
            }
        };
        thread::Builder::new().name("spawn".to_owned()).spawn(run)?;
        Ok(sender)
    };
    match STARTER.get_or_init(start) {
        Ok(sender) => Ok(sender.clone()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}
