//! `walctl locks`

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal_core::Lock;
use wal_core::inspect::IndexInfo;
use wal_core::wait::now;
use wal_shm::inspect::{Census, FoundBy, HeldLock, LockByte, SideView};

use super::processes;
use crate::exit::Exit;
use crate::figures::{ProcessFigures, file_name, kind_name, mode_name};
use crate::look::Look;
use crate::output::units::{self, count, duration};
use crate::output::{DIM, Output, Report, STRONG, Table, WARN, escape, paint};

/// Lists each lock on the files of a database, and the process that holds it.
///
/// The system lists the processes of POSIX locks. Those of open file description (OFD) locks are
/// searched for among the processes that have the files open, for as long as `--budget`. It
/// acquires no lock and writes nothing.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl locks app.db
  sudo walctl locks app.db        sees the processes of all users
  walctl locks --json app.db | jq '.locks[] | select(.lock == \"WRITE\") | .pid'")]
pub(crate) struct Locks {
    /// The database.
    database: PathBuf,
    /// How long to search for the processes that hold OFD locks.
    #[arg(long, value_name = "TIME", default_value = "2s")]
    budget: humantime::Duration,
}

/// The locks on the files of a database.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LocksReport {
    /// The path of the database, without symbolic links.
    path: String,
    /// When the look began, RFC 3339.
    time: String,
    /// The locks, in the order of files and bytes.
    locks: Vec<LockFigures>,
    /// The writers that wait in the queue of this library and of `wal-queue`, first to last.
    waiting: Vec<WaitingFigures>,
    /// The processes that hold or wait for a lock.
    processes: Vec<ProcessFigures>,
    /// What could not be seen, a sentence each; empty if nothing is missing.
    unseen: Vec<String>,
}

/// A lock of one holder.
#[derive(Debug, Serialize, JsonSchema)]
struct LockFigures {
    /// The file: `database`, `wal`, `shm` or `coord`.
    file: &'static str,
    /// The name of the lock in SQLite, or `ATTACHED` or `OTHER`.
    lock: String,
    /// The first byte of the range.
    first_byte: u64,
    /// The number of bytes; null if the range has no end.
    bytes: Option<u64>,
    /// `shared` or `exclusive`.
    mode: &'static str,
    /// `POSIX` (of the process) or `OFD` (of an open file description).
    kind: &'static str,
    /// Whether its process waits for it in the system and does not hold it.
    is_waited_for: bool,
    /// Of a lock on a read slot: the frame up to which its readers read the log.
    frame: Option<u32>,
    /// The process; null if it is not known.
    pid: Option<u32>,
    /// How the process was found: `lock list`, `descriptor`, or `side file`.
    found_by: &'static str,
}

/// A writer in the queue.
#[derive(Debug, Serialize, JsonSchema)]
struct WaitingFigures {
    /// Its process; null if it is one of another container.
    pid: Option<u32>,
    /// How long it has waited, in seconds.
    waited_s: f64,
    /// How long ago it showed that it is alive, in seconds.
    silent_s: f64,
}

impl Locks {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let time = units::time(SystemTime::now());
        let budget: Duration = self.budget.into();
        let path = crate::look::resolve(&self.database)?;
        let census = Census::take(&path, budget)?;
        let look = Look::at(&path)?;
        let side = SideView::of(&path).ok().flatten();
        output.print(&LocksReport {
            path: path.display().to_string(),
            time,
            locks: figures(&census, look.index.as_ref()),
            waiting: side.as_ref().map_or_else(Vec::new, waiting),
            processes: census.processes.values().map(ProcessFigures::of).collect(),
            unseen: census.unseen.iter().map(ToString::to_string).collect(),
        })?;
        Ok(Exit::Done)
    }
}

fn figures(census: &Census, index: Option<&IndexInfo>) -> Vec<LockFigures> {
    let locks = census.locks.iter();
    locks.map(|lock| LockFigures::of(lock, index)).collect()
}

impl LockFigures {
    fn of(lock: &HeldLock, index: Option<&IndexInfo>) -> Self {
        let frame = match (lock.byte, index) {
            (LockByte::Protocol(Lock::Read(slot)), Some(index)) => index.mark(slot),
            _ => None,
        };
        let len = lock.bytes.end - lock.bytes.start;
        LockFigures {
            file: file_name(lock.file),
            lock: lock.byte.to_string(),
            first_byte: lock.bytes.start,
            bytes: (lock.bytes.end != u64::MAX).then_some(len),
            mode: mode_name(lock.mode),
            kind: kind_name(lock.kind),
            is_waited_for: lock.is_waited_for,
            frame,
            pid: lock.pid,
            found_by: match lock.found_by {
                FoundBy::LockList => "lock list",
                FoundBy::Descriptor => "descriptor",
                _ => "side file",
            },
        }
    }
}

fn waiting(side: &SideView) -> Vec<WaitingFigures> {
    let queue = side.wait_state().writer_queue();
    let waiting = queue.waiting_writers(now()).into_iter();
    let figures = waiting.map(|writer| WaitingFigures {
        pid: writer.process.pid(),
        waited_s: writer.waited.as_secs_f64(),
        silent_s: writer.silent.as_secs_f64(),
    });
    figures.collect()
}

impl Report for LocksReport {
    const KIND: &'static str = "locks";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", paint(STRONG, escape(&self.path)))?;
        if self.locks.is_empty() {
            writeln!(out, "  no locks")?;
        } else {
            self.write_locks(out)?;
        }
        if !self.waiting.is_empty() {
            writeln!(out, "\n{}", paint(STRONG, "Writers that wait in the queue"))?;
            for writer in &self.waiting {
                let pid = writer
                    .pid
                    .map_or("(another container)".to_owned(), |pid| pid.to_string());
                let waited = duration(Duration::from_secs_f64(writer.waited_s));
                writeln!(out, "  {pid} for {waited}")?;
            }
        }
        processes::write(&self.processes, out)?;
        for unseen in &self.unseen {
            writeln!(out, "\n{} {unseen}", paint(WARN, "not seen:"))?;
        }
        Ok(())
    }
}

impl LocksReport {
    fn write_locks(&self, out: &mut dyn Write) -> io::Result<()> {
        let headings = [
            "FILE",
            "LOCK",
            "BYTE",
            "MODE",
            "KIND",
            "UP TO FRAME",
            "PID",
            "COMMAND",
        ];
        let mut table = Table::new(headings).figures([2, 5, 6]);
        for lock in &self.locks {
            let pid = lock.pid.map_or("?".to_owned(), |pid| pid.to_string());
            let process = self.processes.iter().find(|of| Some(of.pid) == lock.pid);
            let command = process.map_or_else(String::new, processes::command);
            let mode = match lock.is_waited_for {
                true => format!("{} {}", lock.mode, paint(DIM, "(waits)")),
                false => lock.mode.to_owned(),
            };
            table.row([
                lock.file.to_owned(),
                lock.lock.clone(),
                lock.first_byte.to_string(),
                mode,
                lock.kind.to_owned(),
                lock.frame.map_or_else(String::new, count),
                pid,
                command,
            ]);
        }
        table.write(out, "  ")
    }
}
