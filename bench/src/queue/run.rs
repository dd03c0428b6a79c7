//! One round of a row on one system.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::order::{BUSY_TIMEOUT, Order, Outcome};
use super::peers::Peer;
use super::rows::{Row, System};
use crate::processes::Worker;

/// What one process reached.
pub(crate) struct Written {
    /// Whether it loaded the library or waits in the queue without it.
    pub(crate) queues: bool,
    /// What it answered.
    pub(crate) outcome: Outcome,
}

/// Runs the processes of `row` for `seconds`, with `library` where `system` has it.
pub(crate) fn round(
    row: &Row,
    system: System,
    library: &Path,
    seconds: f64,
    scratch: &Path,
) -> Result<Vec<Written>> {
    let directory = tempfile::tempdir_in(scratch)?;
    let database = std::path::absolute(directory.path().join("app.db"))?;
    // Stays open, so that no writer is the last to close the database.
    let connection = create(&database, row.processes)?;
    let mut writers = Vec::new();
    for (at, &peer) in (0..row.processes).zip(row.peers.iter().cycle()) {
        let loads = match system {
            System::Stock => false,
            System::Queue | System::QueueGroup => true,
            System::HalfQueue => at % 2 == 0,
        };
        let order = order(
            row,
            system,
            &database,
            loads.then(|| library.to_owned()),
            seconds,
            at,
        )?;
        let worker = Worker::spawn(peer.command(&order)?).with_context(|| format!("{peer:?}"))?;
        writers.push((peer, loads, worker));
    }
    for (_, _, worker) in &mut writers {
        worker.go()?;
    }
    let mut written = Vec::new();
    let mut commits = 0;
    for (peer, loads, worker) in writers {
        let outcome: Outcome = worker.end().with_context(|| format!("{peer:?}"))?;
        if peer != Peer::Wal {
            commits += outcome.commits;
        }
        let queues = loads || matches!(peer, Peer::Wal | Peer::WalLibsql);
        written.push(Written { queues, outcome });
    }
    check(&connection, commits)?;
    Ok(written)
}

fn order(
    row: &Row,
    system: System,
    database: &Path,
    library: Option<PathBuf>,
    seconds: f64,
    at: usize,
) -> Result<Order> {
    Ok(Order {
        database: database.to_owned(),
        library,
        synchronous: row.synchronous,
        group_commit: system == System::QueueGroup,
        pause_ms: row.pause_ms,
        busy_timeout_ms: u32::try_from(BUSY_TIMEOUT.as_millis())?,
        seconds,
        row: u32::try_from(at + 1)?,
    })
}

/// Makes the database, with a row for each process.
fn create(database: &Path, processes: usize) -> Result<Connection> {
    let connection = Connection::open(database)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, x BLOB);
         WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {processes})
         INSERT INTO t SELECT id, 0, randomblob(100) FROM ids"
    ))?;
    Ok(connection)
}

/// Fails unless the database is whole and has each of the `commits`.
fn check(connection: &Connection, commits: u64) -> Result<()> {
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "the database is damaged: {verdict}");
    let sum: i64 = connection.query_row("SELECT sum(n) FROM t", [], |row| row.get(0))?;
    ensure!(
        u64::try_from(sum) == Ok(commits),
        "{commits} commits were acknowledged, and {sum} are there"
    );
    Ok(())
}
