//! Writers of stock SQLite that load the extension `wal-queue`: processes that commit again and
//! again, in each language that the machine has.
//!
//! The order of a writer and its answer are JSON, and are the same in the benchmarks
//! (`bench/src/queue/order.rs`), from which the writers in Python and Node come. The writer in
//! Rust is `queue-writer`.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::executable;
use crate::lines::Lines;
use crate::needs::{self, Need};
use crate::spawn::spawn;

/// The extension: what `WAL_QUEUE_LIBRARY` names, else what Cargo builds as a dependency of this
/// package. A test is in the same folder `deps`, and a worker one up from it.
///
/// # Errors
///
/// When it is not there.
pub fn library() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WAL_QUEUE_LIBRARY") {
        return Ok(path.into());
    }
    let executable = env::current_exe()?;
    let folders = executable.ancestors().skip(1).take(2);
    let candidates = folders.flat_map(|folder| [folder.to_owned(), folder.join("deps")]);
    let found = candidates
        .map(|folder| folder.join("libwal_queue.so"))
        .find(|path| path.is_file());
    found.with_context(|| format!("no libwal_queue.so beside {}", executable.display()))
}

/// Makes a database in WAL mode with a row for each of `writers`, which a writer increments.
///
/// # Errors
///
/// Those of SQLite.
pub fn create(database: &Path, writers: u32) -> Result<()> {
    let connection = rusqlite::Connection::open(database)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, x BLOB);
         WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {writers})
         INSERT INTO t SELECT id, 0, randomblob(100) FROM ids"
    ))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// Python whose SQLite loads extensions; `None` if there is none, which leaves `unchecked` out.
///
/// # Panics
///
/// If it is not there where everything is required ([`Need`]).
#[must_use]
pub fn python(unchecked: &str) -> Option<Command> {
    Need::ExtensionPython
        .is_met(unchecked)
        .then(needs::extension_python)
        .flatten()
}

/// In which language a writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust, with the bundled SQLite.
    Rust,
    /// The same, which is linked with `wal-queue` and loads nothing.
    Linked,
    /// Rust, with page transactions of this library: `n` is `PRAGMA user_version`.
    Pages,
    /// Python, with the SQLite of the system.
    Python,
    /// Node, with better-sqlite3.
    Node,
}

impl Language {
    /// The languages with SQL that this machine has.
    ///
    /// # Panics
    ///
    /// If one of them is not there where everything is required ([`Need`]).
    #[must_use]
    pub fn available() -> Vec<Self> {
        let python = Need::ExtensionPython.is_met("writers of the queue in Python");
        let node = Need::NodeDriver.is_met("writers of the queue in Node");
        let all = [
            (Self::Rust, true),
            (Self::Linked, true),
            (Self::Python, python),
            (Self::Node, node),
        ];
        let there = all.into_iter().filter(|(_, there)| *there);
        there.map(|(language, _)| language).collect()
    }

    fn command(self) -> Result<Command> {
        let script = |name: &str| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/queue");
            Path::new(folder).join(name)
        };
        Ok(match self {
            Self::Rust | Self::Linked | Self::Pages => {
                Command::new(executable::find("queue-writer", "QUEUE_WRITER")?)
            }
            Self::Python => {
                let mut command = needs::extension_python().context("no Python")?;
                command.arg(script("writer.py"));
                command
            }
            Self::Node => {
                let mut command = needs::node();
                command.arg(script("writer.cjs"));
                command
            }
        })
    }
}

/// What a writer is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The database, as [`create`] makes it.
    pub database: PathBuf,
    /// The extension, which is loaded before the database is opened.
    pub library: Option<PathBuf>,
    /// `PRAGMA synchronous`.
    pub synchronous: String,
    /// Whether commits share their syncs.
    pub group_commit: bool,
    /// How long a transaction sleeps before it commits, in milliseconds.
    pub pause_ms: u32,
    /// The busy timeout, in milliseconds.
    pub busy_timeout_ms: u32,
    /// For how long the writer commits.
    pub seconds: f64,
    /// The row whose `n` each commit increments.
    pub row: u32,
    /// A file that gets `n` after each commit, in eight bytes, the lowest first.
    pub acknowledged: Option<PathBuf>,
}

impl Order {
    /// Commits of row `row` for `seconds`, with the extension, at NORMAL, without a pause, with
    /// a busy timeout of five seconds.
    ///
    /// # Errors
    ///
    /// When there is no extension.
    pub fn new(database: &Path, row: u32, seconds: f64) -> Result<Self> {
        Ok(Self {
            database: database.to_owned(),
            library: Some(library()?),
            synchronous: "NORMAL".to_owned(),
            group_commit: false,
            pause_ms: 0,
            busy_timeout_ms: 5000,
            seconds,
            row,
            acknowledged: None,
        })
    }
}

/// What a writer answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// How many transactions it committed.
    pub commits: u64,
    /// How often it gave up: "database is locked".
    pub locked: u64,
    /// How long it took in all.
    pub seconds: f64,
    /// How long each transaction waited to begin, in microseconds.
    pub waits_us: Vec<u32>,
}

/// A process that commits; dropped, it is killed.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<ChildStdout>,
    /// How long it may take in all.
    patience: Duration,
}

impl Writer {
    /// Starts a process, which opens the database.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(language: Language, order: &Order) -> Result<Self> {
        Self::start_with(language, order, |_| {})
    }

    /// As [`Writer::start`], with a command that `change` has changed.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start_with(
        language: Language,
        order: &Order,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = language.command()?;
        change(&mut command);
        command.arg(serde_json::to_string(order)?);
        match language {
            Language::Linked => command.arg("linked"),
            Language::Pages => command.arg("pages"),
            _ => &mut command,
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("starting {language:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: Lines::new(stdout),
            child,
            patience: Duration::from_secs_f64(order.seconds) + crate::worker::WATCHDOG,
        })
    }

    /// Waits until it has opened the database.
    ///
    /// # Errors
    ///
    /// When it ends before, or does not open it in time.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let line = self.stdout.next_line(Instant::now() + self.patience)?;
        ensure!(line.as_deref() == Some("ready"), "a writer wrote {line:?}");
        Ok(())
    }

    /// Starts its commits, once it is ready.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it was hung up")?;
        Ok(writeln!(stdin)?)
    }

    /// Waits until it ends, and returns what it reached.
    ///
    /// # Errors
    ///
    /// When it fails, or does not end in time.
    pub fn finish(mut self) -> Result<Outcome> {
        let deadline = Instant::now() + self.patience;
        loop {
            let line = self.stdout.next_line(deadline)?;
            match line.context("a writer ended without an answer")?.as_str() {
                "ready" => {}
                outcome => {
                    let outcome = serde_json::from_str(outcome)?;
                    self.wait_until_ended(deadline)?;
                    return Ok(outcome);
                }
            }
        }
    }

    /// A process that ends by itself closes its database, and runs what it has for its end.
    fn wait_until_ended(&mut self, deadline: Instant) -> Result<()> {
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "a writer did not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
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
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail only for a process that was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs writers side by side, each with its order, and returns what they reached.
///
/// # Errors
///
/// When one of them fails.
pub fn run(writers: &[(Language, Order)]) -> Result<Vec<Outcome>> {
    let start = |(language, order): &(Language, Order)| Writer::start(*language, order);
    let mut started: Vec<Writer> = writers.iter().map(start).collect::<Result<_>>()?;
    started.iter_mut().try_for_each(Writer::wait_until_ready)?;
    started.iter_mut().try_for_each(Writer::go)?;
    started.into_iter().map(Writer::finish).collect()
}
