//! A writer of the tests of `wal-queue`, with the bundled SQLite: `queue-writer ORDER [linked]`,
//! where the order is JSON (`integration::queue::Order`). With `linked` the program registers the
//! extension itself instead of loading a library.
//!
//! The process prints `ready`, waits for a line, commits until the time of the order is over, and
//! prints what it reached.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::queue::{Order, Outcome};
use integration::stock;
use rusqlite::{Connection, ErrorCode};

fn main() -> Result<()> {
    let order = std::env::args().nth(1).context("usage: ORDER")?;
    let mut order: Order = serde_json::from_str(&order)?;
    if std::env::args().nth(2).as_deref() == Some("linked") {
        order.library = None;
        wal_queue::register()?;
    }
    let connection = open(&order)?;
    let file = |path| {
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
    };
    let acknowledged = order.acknowledged.as_ref().map(file).transpose()?;

    let mut out = io::stdout();
    writeln!(out, "ready")?;
    io::stdin().read_line(&mut String::new())?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < order.seconds {
        match commit(&connection, &order, &mut outcome) {
            Ok(count) => {
                outcome.commits += 1;
                if let Some(file) = &acknowledged {
                    file.write_all_at(&count.to_le_bytes(), 0)?;
                }
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                outcome.locked += 1;
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    Ok(())
}

fn open(order: &Order) -> Result<Connection> {
    if let Some(library) = &order.library {
        stock::load(library.as_os_str())?;
    }
    let mut uri = format!("file:{}", order.database.display());
    if order.group_commit {
        uri += "?walqueue_group=1";
    }
    let connection = Connection::open(uri)?;
    connection.busy_timeout(Duration::from_millis(order.busy_timeout_ms.into()))?;
    connection.pragma_update(None, "synchronous", &order.synchronous)?;
    Ok(connection)
}

/// Increments the row of `order`, and returns what it counts now.
fn commit(connection: &Connection, order: &Order, outcome: &mut Outcome) -> rusqlite::Result<i64> {
    let asked = Instant::now();
    let began = connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]);
    let wait = asked.elapsed().as_micros();
    outcome
        .waits_us
        .push(u32::try_from(wait).unwrap_or(u32::MAX));
    began?;
    let update = "UPDATE t SET n = n + 1, x = randomblob(100) WHERE id = ?1 RETURNING n";
    let count = connection
        .prepare_cached(update)?
        .query_row([order.row], |row| row.get(0))?;
    std::thread::sleep(Duration::from_millis(order.pause_ms.into()));
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(count)
}
