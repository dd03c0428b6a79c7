//! Stock SQLite as a live peer: processes that run SQLite's own code on the
//! same database, and the means to stop them at any of their file calls.
//!
//! A [`StockSqlite`] is one process with one connection. It takes one line of
//! SQL at a time and has no busy timeout unless it is told one, so that a
//! conflict is seen at once. A [`Control`] stops it at a named point, by way
//! of the extension [`PAUSING_VFS`]. Every wait is bounded and says what it
//! waited for.

mod answer;
mod control;
mod extension;
mod shell;
pub mod wire;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use answer::{Rows, SqlError};
pub use control::Control;
pub use extension::load;

use crate::executable;
use crate::lines::Lines;
use crate::needs::Need;
use crate::spawn::spawn;

/// The extension that registers the VFS `pausing`, as a path to load it from.
pub const PAUSING_VFS: &str = env!("PAUSING_VFS");

/// How long [`StockSqlite::run`], [`spawn`](StockSqlite::spawn) and
/// [`close`](StockSqlite::close) wait for the process, too.
pub use crate::worker::WATCHDOG;

/// Which build of SQLite a peer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StockKind {
    /// The current SQLite that comes with libsqlite3-sys, in this package's
    /// `stock-worker`. It reports extended error codes.
    Bundled,
    /// The `sqlite3` shell of the system. It reports primary error codes only.
    Debian,
}

impl StockKind {
    /// The kinds that this machine has: the shell's only where it is on `PATH`.
    ///
    /// # Panics
    ///
    /// If the shell is not there where everything is required ([`Need`]).
    #[must_use]
    pub fn available() -> Vec<Self> {
        match Need::Shell.is_met("a peer that runs the SQLite of the system") {
            true => vec![Self::Bundled, Self::Debian],
            false => vec![Self::Bundled],
        }
    }
}

impl fmt::Display for StockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundled => "bundled SQLite",
            Self::Debian => "the system's sqlite3",
        })
    }
}

/// A process with a connection of stock SQLite; dropped, it is killed.
#[derive(Debug)]
pub struct StockSqlite {
    kind: StockKind,
    child: Child,
    /// Closed to end the process.
    stdin: Option<ChildStdin>,
    stdout: Lines<ChildStdout>,
    /// The shell's errors; the worker's are inherited.
    stderr: Option<Lines<ChildStderr>>,
    /// What was sent and is not answered yet.
    in_flight: Option<String>,
    /// The lines of the answer that have come so far.
    answer: Vec<String>,
    /// Numbers the marks that end the shell's answers.
    answers: u64,
}

impl StockSqlite {
    /// Starts a process, opens the database in it and, with a control, puts it
    /// under that control.
    ///
    /// # Errors
    ///
    /// When the process cannot be started or the database cannot be opened.
    pub fn spawn(kind: StockKind, database: &Path, control: Option<&Control>) -> Result<Self> {
        let extension = control.map(|_| Path::new(PAUSING_VFS));
        let extensions: Vec<&Path> = extension.into_iter().collect();
        let variables = control.map(Control::environment).unwrap_or_default();
        let peer = Self::start(kind, database, &extensions, variables)?;
        if let Some(control) = control {
            control.attach(WATCHDOG)?;
        }
        Ok(peer)
    }

    /// Starts a process that loads `extension`, and then opens the database through the VFS
    /// that is the default.
    ///
    /// # Errors
    ///
    /// When the process cannot be started or the database cannot be opened.
    pub fn spawn_with(kind: StockKind, database: &Path, extension: &Path) -> Result<Self> {
        Self::spawn_with_variables(kind, database, extension, &[])
    }

    /// As [`StockSqlite::spawn_with`], with variables of the environment.
    ///
    /// # Errors
    ///
    /// When the process cannot be started or the database cannot be opened.
    pub fn spawn_with_variables(
        kind: StockKind,
        database: &Path,
        extension: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start(kind, database, &[extension], variables.iter().copied())
    }

    /// As [`StockSqlite::spawn_with`], under `control`: the pausing VFS is beneath the VFS of
    /// `extension`.
    ///
    /// # Errors
    ///
    /// When the process cannot be started or the database cannot be opened.
    pub fn spawn_over(
        kind: StockKind,
        database: &Path,
        extension: &Path,
        control: &Control,
    ) -> Result<Self> {
        let extensions = [Path::new(PAUSING_VFS), extension];
        let mut variables = control.environment();
        variables.push(("PAUSING_VFS_DEFAULT", PathBuf::from("1")));
        let peer = Self::start(kind, database, &extensions, variables)?;
        control.attach(WATCHDOG)?;
        Ok(peer)
    }

    fn start(
        kind: StockKind,
        database: &Path,
        extensions: &[&Path],
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> Result<Self> {
        let mut command = match kind {
            StockKind::Bundled => bundled_command(database, extensions)?,
            StockKind::Debian => shell_command(),
        };
        command.envs(variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("starting {kind}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut peer = Self {
            kind,
            stdin: child.stdin.take(),
            stdout: Lines::new(stdout),
            stderr: child.stderr.take().map(Lines::new),
            child,
            in_flight: None,
            answer: Vec::new(),
            answers: 0,
        };
        peer.expect_opened(database, extensions)
            .with_context(|| format!("opening {} with {kind}", database.display()))?;
        Ok(peer)
    }

    /// Waits for the answer to the opening, which the worker gives unasked.
    fn expect_opened(&mut self, database: &Path, extensions: &[&Path]) -> Result<()> {
        match self.kind {
            StockKind::Bundled => self.in_flight = Some("the opening".to_owned()),
            StockKind::Debian => {
                self.transmit(shell::opening(database, extensions)?)?;
            }
        }
        self.finish(WATCHDOG)??;
        Ok(())
    }

    /// Sends a line of SQL, one statement or several, and does not wait for its
    /// end. At the first statement that fails the rest is dropped.
    ///
    /// # Errors
    ///
    /// When the last line is not answered yet, or the process is gone.
    pub fn send(&mut self, sql: &str) -> Result<()> {
        ensure!(!sql.contains('\n'), "more than one line: {sql}");
        // The shell waits for more as long as a statement has no end.
        self.transmit(format!("{sql};"))
    }

    fn transmit(&mut self, request: String) -> Result<()> {
        if let Some(pending) = &self.in_flight {
            bail!("{self} has yet to answer `{pending}`");
        }
        self.answers += 1;
        let message = match self.kind {
            StockKind::Bundled => format!("{request}\n"),
            StockKind::Debian => format!("{request}\n.print \"{}\"\n", self.end_mark()),
        };
        let stdin = self.stdin.as_mut().context("the process was hung up")?;
        let sent = stdin.write_all(message.as_bytes());
        sent.with_context(|| format!("{self} is gone: sending `{request}`"))?;
        self.in_flight = Some(request);
        Ok(())
    }

    /// Waits for the answer to what was sent last: its rows, or SQLite's error.
    ///
    /// # Errors
    ///
    /// When nothing was sent, the process ended, or `timeout` went by; after a
    /// timeout the answer can be waited for again.
    pub fn finish(&mut self, timeout: Duration) -> Result<Result<Rows, SqlError>> {
        let pending = self.in_flight.clone().context("nothing was sent")?;
        let deadline = Instant::now() + timeout;
        loop {
            match self.stdout.next_line(deadline) {
                Ok(Some(line)) if self.is_last(&line) => {
                    self.answer.push(line);
                    break;
                }
                Ok(Some(line)) => self.answer.push(line),
                Ok(None) => bail!("{self} ended before it answered `{pending}`"),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    bail!("{self} did not answer `{pending}` within {timeout:?}")
                }
                Err(error) => return Err(error).with_context(|| format!("reading from {self}")),
            }
        }
        self.in_flight = None;
        self.decode()
            .with_context(|| format!("the answer of {self} to `{pending}`"))
    }

    /// Sends a line of SQL and waits for its answer, no longer than the watchdog.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send) and [`finish`](Self::finish); SQLite's own
    /// are the inner result.
    pub fn run(&mut self, sql: &str) -> Result<Result<Rows, SqlError>> {
        self.send(sql)?;
        self.finish(WATCHDOG)
    }

    /// Lets the connection wait for locks; a new one does not.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn set_busy_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.run(&format!("PRAGMA busy_timeout={}", timeout.as_millis()))??;
        Ok(())
    }

    /// SQLite's version, as `3.40.1`.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn version(&mut self) -> Result<String> {
        let rows = self.run("SELECT sqlite_version()")??;
        Ok(rows.text()?.to_owned())
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process with SIGKILL and reaps it.
    ///
    /// # Errors
    ///
    /// Whatever the system gives.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Tells the process to close its connection and end, without waiting: it
    /// may yet stop at a point of its closing.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Ends the process cleanly, its connection closed.
    ///
    /// # Errors
    ///
    /// When it has not ended after the watchdog's time, or was killed.
    pub fn close(mut self) -> Result<()> {
        self.hang_up();
        self.stdout
            .skip_to_end(Instant::now() + WATCHDOG)
            .with_context(|| format!("waiting {WATCHDOG:?} for {self} to close"))?;
        let status = self.child.wait()?;
        ensure!(status.code().is_some(), "{self} was killed: {status}");
        Ok(())
    }

    fn is_last(&self, line: &str) -> bool {
        match self.kind {
            StockKind::Bundled => wire::is_last(line),
            StockKind::Debian => line == self.end_mark(),
        }
    }

    /// No row reads so: the shell's rows start with a quote, a digit or a letter.
    fn end_mark(&self) -> String {
        format!("-- end of answer {} of {}", self.answers, self.pid())
    }

    fn decode(&mut self) -> Result<Result<Rows, SqlError>> {
        let mut lines = std::mem::take(&mut self.answer);
        match &mut self.stderr {
            None => wire::decode_answer(&lines),
            Some(stderr) => {
                lines.pop();
                shell::decode_answer(&lines.join("\n"), &stderr.take_arrived()?)
            }
        }
    }
}

impl fmt::Display for StockSqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.kind, self.pid())
    }
}

impl Drop for StockSqlite {
    fn drop(&mut self) {
        // Both fail only for a process that was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bundled_command(database: &Path, extensions: &[&Path]) -> Result<Command> {
    let mut command = Command::new(executable::find("stock-worker", "STOCK_WORKER")?);
    command.arg(database).args(extensions);
    Ok(command)
}

fn shell_command() -> Command {
    let mut command = Command::new("sqlite3");
    // Without somebody's start-up file, and in memory until told otherwise.
    command.args(["-batch", "-init", "/dev/null", ":memory:"]);
    command.stderr(Stdio::piped());
    command
}
