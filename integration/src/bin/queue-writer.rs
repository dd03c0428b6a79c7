//! A writer of the tests of `wal-queue`, with the bundled SQLite: `queue-writer ORDER [KIND]`,
//! where the order is JSON (`integration::queue::Order`). With `linked` the program registers the
//! extension itself instead of loading a library. With `pages` it writes by page transactions of
//! this library instead.
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

/// Where page 1 has the number that an application may set (`PRAGMA user_version`).
const USER_VERSION: std::ops::Range<usize> = 60..64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let order = arguments.next().context("usage: ORDER [KIND]")?;
    let mut order: Order = serde_json::from_str(&order)?;
    match arguments.next().as_deref() {
        None => write_rows(&order),
        Some("linked") => {
            order.library = None;
            wal_queue::register()?;
            write_rows(&order)
        }
        Some("pages") => write_pages(&order),
        Some(other) => anyhow::bail!("{other} is no kind of writer"),
    }
}

/// Commits by `commit`, which returns what is counted now, or `None` if the lock stayed taken.
fn repeat(
    order: &Order,
    mut commit: impl FnMut(&mut Outcome) -> Result<Option<i64>>,
) -> Result<()> {
    let file = |path| {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).open(path)
    };
    let acknowledged = order.acknowledged.as_ref().map(file).transpose()?;
    let mut out = io::stdout();
    writeln!(out, "ready")?;
    io::stdin().read_line(&mut String::new())?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < order.seconds {
        let Some(count) = commit(&mut outcome)? else {
            outcome.locked += 1;
            continue;
        };
        outcome.commits += 1;
        if let Some(file) = &acknowledged {
            file.write_all_at(&count.to_le_bytes(), 0)?;
        }
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    Ok(())
}

fn add_wait(outcome: &mut Outcome, asked: Instant) {
    let wait = u32::try_from(asked.elapsed().as_micros());
    outcome.waits_us.push(wait.unwrap_or(u32::MAX));
}

fn write_rows(order: &Order) -> Result<()> {
    let connection = open(order)?;
    repeat(order, |outcome| match commit(&connection, order, outcome) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    })
}

fn write_pages(order: &Order) -> Result<()> {
    let synchronous = match order.synchronous.as_str() {
        "FULL" => wal::Synchronous::Full,
        _ => wal::Synchronous::Normal,
    };
    let database = wal::Options::new()
        .kind(wal::DatabaseKind::Sqlite)
        .busy_timeout(Duration::from_millis(order.busy_timeout_ms.into()))
        .synchronous(synchronous)
        .group_commit(order.group_commit)
        .open(&order.database)?;
    let first = wal::PageNo::new(1)?;
    repeat(order, |outcome| {
        let asked = Instant::now();
        let began = database.begin_write();
        add_wait(outcome, asked);
        let mut write = match began {
            Ok(write) => write,
            Err(wal::Error::Busy { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let page = write.page_mut(first)?;
        let bytes = page.get_mut(USER_VERSION).context("page 1 has no header")?;
        let version = bytes
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes));
        bytes.copy_from_slice(&(version + 1).to_be_bytes());
        std::thread::sleep(Duration::from_millis(order.pause_ms.into()));
        write.commit()?;
        Ok(Some(i64::from(version) + 1))
    })
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
    add_wait(outcome, asked);
    began?;
    let update = "UPDATE t SET n = n + 1, x = randomblob(100) WHERE id = ?1 RETURNING n";
    let count = connection
        .prepare_cached(update)?
        .query_row([order.row], |row| row.get(0))?;
    std::thread::sleep(Duration::from_millis(order.pause_ms.into()));
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(count)
}
