//! The test's end: starts a worker process, asks it, stops it, kills it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Stamp;
use super::wire::{
    Answer, Checkpoint, Command, HeldByte, Refusal, RefusalKind, Settings, SnapshotInfo,
};
use crate::container::Container;
use crate::executable;
use crate::lines::Lines;
use crate::spawn::spawn;

/// How long [`Worker::ask`] and its like wait for the process: longer than
/// any step takes on a machine that is busy with much else, so that only a hang
/// gets there.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// A process that uses the library; dropped, it is killed.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    /// Closed to end the process.
    stdin: Option<ChildStdin>,
    stdout: Lines<ChildStdout>,
    /// What was sent and is not answered yet, oldest first.
    in_flight: VecDeque<String>,
    stopped: bool,
}

impl Worker {
    /// Starts a process that has nothing open.
    ///
    /// # Errors
    ///
    /// When `wal-worker` is not beside this executable (or where
    /// `WAL_WORKER` says), or cannot be started.
    pub fn spawn() -> Result<Self> {
        Self::spawn_with(&[])
    }

    /// As [`spawn`](Self::spawn), with `variables` in its environment.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn).
    pub fn spawn_with(variables: &[(&str, &OsStr)]) -> Result<Self> {
        let mut command = std::process::Command::new(worker()?);
        command.envs(variables.iter().copied());
        Self::start(command)
    }

    /// As [`spawn`](Self::spawn), in namespaces of its own. [`pid`](Self::pid) is then the
    /// process that waits for it.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn).
    pub fn spawn_in(container: Container) -> Result<Self> {
        Self::start(container.command(&worker()?))
    }

    fn start(mut command: std::process::Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command).context("starting a worker")?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Worker {
            stdin: child.stdin.take(),
            stdout: Lines::new(stdout),
            child,
            in_flight: VecDeque::new(),
            stopped: false,
        })
    }

    /// Starts a process and opens a database in it.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and [`run`](Self::run).
    pub fn open(settings: &Settings) -> Result<Self> {
        let mut worker = Self::spawn()?;
        worker.run(Command::Open(settings.clone()))?;
        Ok(worker)
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command and does not wait for its answer. Commands that are
    /// sent while others are unanswered are carried out in turn.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn send(&mut self, command: &Command) -> Result<()> {
        let line = serde_json::to_string(command)?;
        self.write_line(&line)?;
        self.in_flight.push_back(line);
        Ok(())
    }

    /// Waits for the answer to the oldest unanswered command.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] if the command failed; when nothing was sent, the
    /// process ended or stopped at a point, or `timeout` went by, after which
    /// it can be waited for again.
    pub fn finish<T: DeserializeOwned>(&mut self, timeout: Duration) -> Result<T> {
        match self.next_answer(timeout)? {
            Answer::Ok(value) => {
                let command = self.in_flight.pop_front();
                serde_json::from_value(value)
                    .with_context(|| format!("the answer to {command:?} is of another type"))
            }
            Answer::Error(refusal) => {
                let command = self.in_flight.pop_front();
                Err(refusal).with_context(|| format!("{command:?}"))
            }
            Answer::Stopped { point, pass } => {
                self.stopped = true;
                bail!("{self} stopped at pass {pass} of {point} instead of answering")
            }
        }
    }

    /// Sends a command and waits for what it answers.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send) and [`finish`](Self::finish).
    pub fn ask<T: DeserializeOwned>(&mut self, command: Command) -> Result<T> {
        self.send(&command)?;
        self.finish(WATCHDOG)
    }

    /// Sends a command and waits until it is carried out.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn run(&mut self, command: Command) -> Result<()> {
        self.ask::<IgnoredAny>(command).map(drop)
    }

    /// Sends a command that is to fail, and tells how it did.
    ///
    /// # Errors
    ///
    /// When it succeeds, and those of [`ask`](Self::ask) but a refusal.
    pub fn refused(&mut self, command: Command) -> Result<RefusalKind> {
        match self.run(command.clone()) {
            Ok(()) => bail!("{command:?} succeeded"),
            Err(error) => match error.downcast_ref::<Refusal>() {
                Some(refusal) => Ok(refusal.kind),
                None => Err(error),
            },
        }
    }

    /// Begins a read transaction called `name`, and tells what it sees.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn begin_read(&mut self, name: &str) -> Result<SnapshotInfo> {
        let name = name.to_owned();
        self.run(Command::BeginRead { name: name.clone() })?;
        self.ask(Command::Snapshot { name })
    }

    /// Ends the read transaction called `name`.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn end_read(&mut self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.run(Command::EndRead { name })
    }

    /// Begins and ends `times` read transactions, and sleeps for `pause` after each.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn read_times(&mut self, times: u32, pause: Duration) -> Result<()> {
        self.run(Command::ReadTimes { times, pause })
    }

    /// The stamps on `pages` as the read transaction called `name` sees them.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn stamps(&mut self, name: &str, pages: Range<u32>) -> Result<Vec<Option<Stamp>>> {
        let name = name.to_owned();
        self.ask(Command::Stamps { name, pages })
    }

    /// The stamps on `pages` in the newest state.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn newest_stamps(&mut self, pages: Range<u32>) -> Result<Vec<Option<Stamp>>> {
        self.begin_read("newest")?;
        let stamps = self.stamps("newest", pages)?;
        self.end_read("newest")?;
        Ok(stamps)
    }

    /// Stamps `pages` in a transaction of their own.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn commit(&mut self, pages: Range<u32>, stamp: Stamp) -> Result<()> {
        self.run(Command::BeginWrite)?;
        self.run(Command::Write { pages, stamp })?;
        self.run(Command::Commit)
    }

    /// Checkpoints without waiting; true if all of the log was copied.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn checkpoint(&mut self) -> Result<bool> {
        self.ask(Command::Checkpoint(Checkpoint::Passive))
    }

    /// Who holds `byte` of `file`, as this process sees it. The process must
    /// not have the database open itself.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask).
    pub fn probe(&mut self, file: &Path, byte: u64) -> Result<Option<HeldByte>> {
        let file = file.to_owned();
        self.ask(Command::Probe { file, byte })
    }

    /// Makes the process stop at the `pass`-th pass of a step point from now.
    ///
    /// # Errors
    ///
    /// When there is no such point, and as [`ask`](Self::ask).
    pub fn stop_at(&mut self, point: &str, pass: u32) -> Result<()> {
        let point = point.to_owned();
        self.run(Command::Arm { point, pass })
    }

    /// Waits until the process has stopped within the oldest unanswered
    /// command.
    ///
    /// # Errors
    ///
    /// When it answered or ended instead, or `timeout` went by.
    pub fn wait_stopped(&mut self, timeout: Duration) -> Result<()> {
        match self.next_answer(timeout)? {
            Answer::Stopped { .. } => {
                self.stopped = true;
                Ok(())
            }
            other => bail!("{self} did not stop but answered {other:?}"),
        }
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// When it was not seen to stop, or is gone.
    pub fn go(&mut self) -> Result<()> {
        ensure!(self.stopped, "{self} was not seen to stop");
        self.stopped = false;
        let go = serde_json::to_string(&Command::Go)?;
        self.write_line(&go)
    }

    /// Kills the process with SIGKILL and reaps it. Children that it forked
    /// live on until this value is dropped.
    ///
    /// # Errors
    ///
    /// Whatever the system gives.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the process cleanly: it closes what it has open.
    ///
    /// # Errors
    ///
    /// When it failed to, or has not ended after the watchdog's time.
    pub fn end(mut self) -> Result<()> {
        self.stdin = None;
        self.stdout
            .skip_to_end(Instant::now() + WATCHDOG)
            .with_context(|| format!("waiting {WATCHDOG:?} for {self} to end"))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{self} failed to end: {status}");
        Ok(())
    }

    fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the process was hung up")?;
        let written = stdin.write_all(format!("{line}\n").as_bytes());
        written.with_context(|| format!("{self} is gone: sending {line}"))
    }

    fn next_answer(&mut self, timeout: Duration) -> Result<Answer> {
        let pending = self.in_flight.front().context("nothing was sent")?;
        match self.stdout.next_line(Instant::now() + timeout) {
            Ok(Some(line)) => Ok(serde_json::from_str(&line)?),
            Ok(None) => bail!("{self} ended before it answered {pending}"),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                bail!("{self} did not answer {pending} within {timeout:?}")
            }
            Err(error) => Err(error).with_context(|| format!("reading from {self}")),
        }
    }
}

fn worker() -> Result<PathBuf> {
    executable::find("wal-worker", "WAL_WORKER")
}

impl std::fmt::Display for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {}", self.pid())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a process that was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
