//! Children made by a bare `fork`, which inherit all that their parent has
//! open.
#![allow(unsafe_code)] // `fork` is unsafe in a process with threads, and a child must leave by `_exit`.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::lines::Lines;

/// What a child says when its body is over and went well.
const DONE: &str = "done";

/// A forked child; dropped, it is killed and reaped.
#[derive(Debug)]
pub struct ForkedChild {
    pid: Pid,
    reports: Lines<io::PipeReader>,
    reaped: bool,
}

/// Forks, and runs `body` in the child. The child ends with it: nothing else
/// of the parent's stack is unwound there.
///
/// # Errors
///
/// Whatever the system gives.
pub fn fork(body: impl FnOnce() -> Result<()>) -> Result<ForkedChild> {
    let (reader, mut writer) = io::pipe()?;
    // SAFETY: the C library makes its allocator and its locks usable in the
    // child of a process with threads. The child runs `body` alone, which the
    // tests write so that it waits for no lock of the parent's threads, and
    // leaves by `_exit`.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(ForkedChild {
            pid: child,
            reports: Lines::new(reader),
            reaped: false,
        }),
        ForkResult::Child => {
            let report = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => DONE.to_owned(),
                Ok(Err(error)) => format!("{error:#}").replace('\n', " "),
                Err(_) => "the child panicked".to_owned(),
            };
            // A parent that is gone does not read it.
            let _ = writeln!(writer, "{report}");
            // SAFETY: ends the process at once; nothing is used afterwards.
            unsafe { nix::libc::_exit(0) }
        }
    }
}

impl ForkedChild {
    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits until the child's body is over.
    ///
    /// # Errors
    ///
    /// What the body gave, or that `timeout` went by.
    pub fn finish(mut self, timeout: Duration) -> Result<()> {
        let report = self
            .reports
            .next_line(Instant::now() + timeout)
            .with_context(|| format!("waiting {timeout:?} for the forked child {}", self.pid))?;
        match report {
            Some(report) => ensure!(report == DONE, "in the forked child: {report}"),
            None => bail!("the forked child died: {:?}", self.reap()?),
        }
        self.reap().map(drop)
    }

    fn reap(&mut self) -> Result<WaitStatus> {
        self.reaped = true;
        Ok(waitpid(self.pid, None)?)
    }
}

impl Drop for ForkedChild {
    fn drop(&mut self) {
        if !self.reaped {
            // Both fail only for a process that is gone.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.reap();
        }
    }
}
