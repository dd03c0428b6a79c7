//! The controller's side of the pausing VFS: arm a point, wait until the
//! process stops at it, let it go on.
//!
//! # Protocol
//!
//! A Unix stream socket, a line a message. To the process: `arm <id> <pass>
//! <point>`, `go`, `disarm`. From it: `stopped <id> <point>`, with ` rc=<code>`
//! after the points that follow a call. A command that was sent is seen by
//! every point that the process passes later. The id tells a stop from one
//! that crossed with a later `arm` or `disarm` on its way.
//!
//! # Crash
//!
//! A killed process is the end of the stream here. When the controller ends,
//! the process goes on and never stops again.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::lines::{Lines, wait_readable};

/// Longest name of a point that the VFS can hold.
const MAX_POINT_LENGTH: usize = 127;

/// Stops one process at a time at the file calls of its SQLite; the process
/// must have loaded the pausing VFS with this control's environment.
#[derive(Debug)]
pub struct Control {
    directory: TempDir,
    listener: UnixListener,
    traced: bool,
    session: Mutex<Session>,
}

/// What is known of the process under control.
#[derive(Debug, Default)]
struct Session {
    stream: Option<Lines<UnixStream>>,
    armed: Option<Armed>,
    last_id: u64,
    stopped: bool,
}

#[derive(Debug, Clone)]
struct Armed {
    id: u64,
    point: String,
    pass: u32,
}

impl Control {
    /// A control whose socket lies in a temporary directory of its own.
    ///
    /// # Errors
    ///
    /// Whatever creating the directory or the socket gives.
    pub fn new() -> Result<Self> {
        Self::create(false)
    }

    /// Like [`new`](Self::new), and every point passed is recorded, to be read
    /// with [`trace`](Self::trace).
    ///
    /// # Errors
    ///
    /// Whatever creating the directory or the socket gives.
    pub fn with_trace() -> Result<Self> {
        Self::create(true)
    }

    fn create(traced: bool) -> Result<Self> {
        let directory = TempDir::new().context("creating a control's directory")?;
        let listener = UnixListener::bind(directory.path().join("control"))
            .context("creating a control's socket")?;
        Ok(Self {
            directory,
            listener,
            traced,
            session: Mutex::default(),
        })
    }

    /// The environment variables that a process to be controlled must have
    /// when it loads the extension [`PAUSING_VFS`](super::PAUSING_VFS).
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![("PAUSING_VFS_CONTROL", self.directory.path().join("control"))];
        if self.traced {
            variables.push(("PAUSING_VFS_TRACE", self.trace_path()));
        }
        variables
    }

    /// Takes the process that has just loaded the extension under control, in
    /// place of any earlier one, and hands it what is armed.
    ///
    /// # Errors
    ///
    /// When none has connected after `timeout`.
    pub fn attach(&self, timeout: Duration) -> Result<()> {
        let mut session = self.session()?;
        wait_readable(self.listener.as_fd(), Instant::now() + timeout)
            .with_context(|| format!("waiting {timeout:?} for a process with the pausing VFS"))?;
        let (stream, _) = self.listener.accept()?;
        session.stream = Some(Lines::new(stream));
        session.stopped = false;
        if let Some(armed) = session.armed.clone() {
            session.send(&armed.command())?;
        }
        Ok(())
    }

    /// Arms one point, in place of any other: the process stops at its `pass`-th
    /// pass from now, counted from 1. With a `*` at its end `point` is the start
    /// of a name. Without a process the point is armed for the next one.
    ///
    /// # Errors
    ///
    /// A name that cannot be that of a point, or a process that is gone.
    pub fn arm(&self, point: &str, pass: u32) -> Result<()> {
        ensure!(pass > 0, "passes are counted from 1");
        ensure!(
            point.starts_with("before ") || point.starts_with("after "),
            "`{point}` starts with neither `before ` nor `after `"
        );
        ensure!(
            point.len() <= MAX_POINT_LENGTH && !point.contains('\n'),
            "`{point}` is no name of a point"
        );
        let mut session = self.session()?;
        session.last_id += 1;
        let armed = Armed {
            id: session.last_id,
            point: point.to_owned(),
            pass,
        };
        let command = armed.command();
        session.armed = Some(armed);
        if session.stream.is_some() {
            session.send(&command)?;
        }
        Ok(())
    }

    /// Waits until the process has stopped at the armed point and returns the
    /// point's full name, with ` rc=<code>` for one that follows a call.
    ///
    /// # Errors
    ///
    /// When nothing is armed, the process ended, or `timeout` went by.
    pub fn wait_stopped(&self, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut session = self.session()?;
        let armed = session.armed.clone().context("no point is armed")?;
        let stream = session.stream.as_mut().context("no process is attached")?;
        loop {
            match stream.next_line(deadline) {
                Ok(Some(line)) => {
                    if let Some(report) = armed.report_in(&line) {
                        session.stopped = true;
                        session.armed = None;
                        return Ok(report.to_owned());
                    }
                }
                Ok(None) => bail!("the process ended before {armed}"),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    bail!("waited {timeout:?} for {armed}, which was not reached")
                }
                Err(error) => return Err(error).with_context(|| format!("waiting for {armed}")),
            }
        }
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// When it has not been seen to stop, or is gone.
    pub fn go(&self) -> Result<()> {
        let mut session = self.session()?;
        ensure!(session.stopped, "the process was not seen to stop");
        session.stopped = false;
        session.send("go\n")
    }

    /// Takes the armed point away; a process that is already stopped goes on.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn disarm(&self) -> Result<()> {
        let mut session = self.session()?;
        session.armed = None;
        session.stopped = false;
        if session.stream.is_none() {
            return Ok(());
        }
        session.send("disarm\n")
    }

    /// Every point passed so far by the processes under this control, oldest
    /// first; those that follow a call end in ` rc=<code>`.
    ///
    /// # Errors
    ///
    /// For a control made without a trace, or one whose trace cannot be read.
    pub fn trace(&self) -> Result<Vec<String>> {
        ensure!(self.traced, "this control keeps no trace");
        let path = self.trace_path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading the trace {}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn trace_path(&self) -> PathBuf {
        Path::join(self.directory.path(), "trace")
    }

    fn session(&self) -> Result<MutexGuard<'_, Session>> {
        self.session
            .lock()
            .map_err(|_| anyhow!("a thread died while it used this control"))
    }
}

impl Session {
    fn send(&mut self, command: &str) -> Result<()> {
        let stream = self.stream.as_ref().context("no process is attached")?;
        let sent = stream.source().write_all(command.as_bytes());
        if sent.is_err() {
            // So that what is armed later is kept for the next process.
            self.stream = None;
        }
        sent.with_context(|| format!("the process is gone: sending `{}`", command.trim_end()))
    }
}

impl Armed {
    fn command(&self) -> String {
        format!("arm {} {} {}\n", self.id, self.pass, self.point)
    }

    /// The point in a `stopped` line, if it answers this arming.
    fn report_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (id, report) = line.strip_prefix("stopped ")?.split_once(' ')?;
        (id.parse() == Ok(self.id)).then_some(report)
    }
}

impl fmt::Display for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pass {} of `{}`", self.pass, self.point)
    }
}
