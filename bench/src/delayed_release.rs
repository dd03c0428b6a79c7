//! What delayed release of read locks costs peers, and what it saves: processes that read
//! at several rates, with and without it and in stock SQLite, beside checkpoints of this
//! library and of stock SQLite, and stopped.
//!
//! A checkpoint follows its commit at once, which is the worst moment for it: a reader of
//! the state before has had no time to end.

mod reader;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use wal::{CheckpointMode, LockKind, Options, PageNo, Synchronous};
use wal_core::Lock;
use wal_core::storage::{ByteLocks, beside, shm_bytes};

use reader::Reader;
pub(crate) use reader::run as run_reader;

/// How many rows of a kilobyte the table has.
const ROWS: u32 = 100;

/// What a reader reads with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum System {
    /// This library, by default.
    Delayed,
    /// This library, without delayed release.
    Undelayed,
    /// SQLite.
    Stock,
}

impl System {
    const ALL: [System; 3] = [System::Delayed, System::Undelayed, System::Stock];

    fn name(self) -> &'static str {
        match self {
            System::Delayed => "this library",
            System::Undelayed => "without delay",
            System::Stock => "SQLite",
        }
    }
}

/// When a reader reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Pace {
    /// So many times a second.
    PerSecond(u32),
    /// Without a pause.
    FullSpeed,
    /// So many times, and no more until the next checkpoint is over.
    ThenIdle(u32),
}

impl Pace {
    const ALL: [Pace; 7] = [
        Pace::ThenIdle(2),
        Pace::PerSecond(10),
        Pace::PerSecond(100),
        Pace::PerSecond(1000),
        Pace::PerSecond(10_000),
        Pace::FullSpeed,
        Pace::ThenIdle(20_000),
    ];

    fn name(self) -> String {
        match self {
            Pace::PerSecond(rate) => format!("{rate} reads/s"),
            Pace::FullSpeed => "full speed".to_owned(),
            Pace::ThenIdle(2) => "2 reads, then none".to_owned(),
            Pace::ThenIdle(_) => "full speed, then none".to_owned(),
        }
    }
}

/// The settings of a reader process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    path: PathBuf,
    system: System,
    pace: Pace,
}

/// The process that commits and checkpoints.
enum Checkpointer {
    Ours(wal::shm::Database),
    Stock(Connection),
}

impl Checkpointer {
    fn ours(path: &Path) -> Result<Self> {
        let options = Options::new().auto_checkpoint(0);
        let database = options.synchronous(Synchronous::Off).open_shm(path)?;
        Ok(Checkpointer::Ours(database))
    }

    fn stock(path: &Path) -> Result<Self> {
        Ok(Checkpointer::Stock(connect(path)?))
    }

    /// Commits and checkpoints; true if not all was moved to the database file.
    fn is_short(&self) -> Result<bool> {
        match self {
            Checkpointer::Ours(database) => {
                let mut write = database.begin_write()?;
                write.page_mut(PageNo::ONE)?;
                write.commit()?;
                let report = database.checkpoint(CheckpointMode::Passive)?;
                Ok(!report.is_complete())
            }
            Checkpointer::Stock(connection) => {
                let mut update = connection.prepare_cached("UPDATE n SET n = n + 1")?;
                let mut checkpoint = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
                update.execute([])?;
                let frames = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
                let (log, moved): (i64, i64) = checkpoint.query_row([], frames)?;
                Ok(moved < log)
            }
        }
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.execute_batch("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0")?;
    Ok(connection)
}

fn create(path: &Path) -> Result<()> {
    let connection = connect(path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB);
         CREATE TABLE n(n); INSERT INTO n VALUES(0);
         WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < {ROWS})
         INSERT INTO t SELECT i, zeroblob(1000) FROM i"
    ))?;
    Ok(())
}

/// The share of `rounds` in which `act` answers true, in percent, beside a reader.
fn share(
    scratch: &Path,
    (system, pace, rounds): (System, Pace, u32),
    act: impl FnOnce(&Path) -> Result<Box<dyn FnMut(&Reader) -> Result<bool>>>,
) -> Result<(f64, Reader)> {
    let directory = tempfile::tempdir_in(scratch)?;
    let path = directory.path().join("database");
    create(&path)?;
    let mut reader = Reader::start(
        &Order {
            path: path.clone(),
            system,
            pace,
        },
        directory,
    )?;
    let mut act = act(&path)?;
    let mut count = 0;
    for _ in 0..rounds {
        // Until the reader has reached its pace again, or the reads of the last round
        // are forgotten.
        thread::sleep(Duration::from_millis(fastrand::u64(2..6)));
        reader.read_if_asked()?;
        count += u32::from(act(&reader)?);
    }
    Ok((100.0 * f64::from(count) / f64::from(rounds), reader))
}

/// Stops the reader, and tells whether it holds a read lock then.
fn stops_with_a_lock(shm: &std::fs::File, reader: &Reader) -> Result<bool> {
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    kill(reader.pid()?, Signal::SIGSTOP)?;
    waitpid(reader.pid()?, Some(WaitPidFlag::WUNTRACED))?;
    let held = locks.conflict(shm, shm_bytes::of(Lock::Readers))?;
    kill(reader.pid()?, Signal::SIGCONT)?;
    Ok(held.is_some())
}

/// Prints the table.
pub(crate) fn measure(scratch: &Path, rounds: u32) -> Result<()> {
    std::fs::create_dir_all(scratch)?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| a process that reads | with | a read | short: ours | short: SQLite's | stopped |\n\
         |---|---|---|---|---|---|"
    )?;
    for pace in Pace::ALL {
        for system in System::ALL {
            let what = (system, pace, rounds);
            let (ours, reader) = share(scratch, what, |path| {
                let checkpointer = Checkpointer::ours(path)?;
                Ok(Box::new(move |_| checkpointer.is_short()))
            })?;
            drop(reader);
            let (stock, reader) = share(scratch, what, |path| {
                let checkpointer = Checkpointer::stock(path)?;
                Ok(Box::new(move |_| checkpointer.is_short()))
            })?;
            drop(reader);
            let (stopped, reader) = share(scratch, what, |path| {
                let mut options = std::fs::File::options();
                let shm = options.read(true).write(true).open(beside(path, "-shm"))?;
                Ok(Box::new(move |reader| stops_with_a_lock(&shm, reader)))
            })?;
            let micros = reader.end().context("the reader's time")?;
            writeln!(
                out,
                "| {} | {} | {micros:.2} µs | {ours:.1} % | {stock:.1} % | {stopped:.1} % |",
                pace.name(),
                system.name()
            )?;
            out.flush()?;
        }
    }
    Ok(())
}
