//! A writer of the queue's table in Rust: stock SQLite as rusqlite bundles it, or page
//! transactions of this library.

// Loading an extension runs foreign code, which rusqlite cannot vouch for.
#![allow(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rusqlite::{Connection, ErrorCode, LoadExtensionGuard};
use wal::{DatabaseKind, Options, PageNo};

use super::order::{Order, Outcome, Synchronous};
use crate::worker::line_up;

/// Where page 1 has the number that an application may set (`PRAGMA user_version`).
const USER_VERSION: std::ops::Range<usize> = 60..64;

/// Carries out `order` with stock SQLite, after a line on standard input.
pub(crate) fn run_stock(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)?;
    let connection = open(&order)?;
    let mut update = connection
        .prepare("UPDATE t SET n = n + 1, x = randomblob(100) WHERE id = ?1")
        .context("preparing")?;
    repeat(&order, |began| {
        let mut transaction = || {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            began();
            update.execute([order.row])?;
            std::thread::sleep(Duration::from_millis(order.pause_ms.into()));
            connection.prepare_cached("COMMIT")?.execute([])
        };
        let result = transaction();
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Opens the database of `order`, through the library if it names one.
fn open(order: &Order) -> Result<Connection> {
    if let Some(library) = &order.library {
        load(library).with_context(|| format!("{}: loading", library.display()))?;
    }
    let mut uri = format!("file:{}", order.database.display());
    if order.group_commit {
        uri += "?walqueue_group=1";
    }
    let connection = Connection::open(uri)?;
    connection.busy_timeout(Duration::from_millis(order.busy_timeout_ms.into()))?;
    connection.pragma_update(None, "synchronous", order.synchronous.name())?;
    Ok(connection)
}

/// Loads `library` by way of a connection that is then closed: what it registers stays with the
/// process.
fn load(library: &Path) -> Result<()> {
    let connection = Connection::open_in_memory()?;
    // SAFETY: no SQL from elsewhere runs on this connection while it may load extensions.
    let _guard = unsafe { LoadExtensionGuard::new(&connection) }?;
    // SAFETY: the order names a library made for SQLite.
    unsafe { connection.load_extension(library, None::<&str>) }?;
    Ok(())
}

/// Carries out `order` with page transactions, after a line on standard input: each increments
/// `PRAGMA user_version`.
pub(crate) fn run_pages(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)?;
    let synchronous = match order.synchronous {
        Synchronous::Normal => wal::Synchronous::Normal,
        Synchronous::Full => wal::Synchronous::Full,
    };
    let database = Options::new()
        .kind(DatabaseKind::Sqlite)
        .busy_timeout(Duration::from_millis(order.busy_timeout_ms.into()))
        .synchronous(synchronous)
        .group_commit(order.group_commit)
        .open_shm(&order.database)?;
    let first = PageNo::new(1)?;
    repeat(&order, |began| {
        let mut transaction = match database.begin_write() {
            Ok(transaction) => transaction,
            Err(wal::Error::Busy { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        began();
        let page = transaction.page_mut(first)?;
        let version = page.get_mut(USER_VERSION).context("page 1 has no header")?;
        let next = version
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes))
            + 1;
        version.copy_from_slice(&next.to_be_bytes());
        std::thread::sleep(Duration::from_millis(order.pause_ms.into()));
        transaction.commit()?;
        Ok(true)
    })
}

/// Repeats `transaction` until the time of `order` is over, and writes the outcome. The
/// transaction calls its argument when it has begun, and returns whether it committed.
fn repeat(
    order: &Order,
    mut transaction: impl FnMut(&mut dyn FnMut()) -> Result<bool>,
) -> Result<()> {
    line_up()?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < order.seconds {
        let asked = Instant::now();
        let mut waited = None;
        if transaction(&mut || waited = Some(asked.elapsed()))? {
            outcome.commits += 1;
        } else {
            outcome.locked += 1;
        }
        let wait = waited.unwrap_or_else(|| asked.elapsed());
        let wait = u32::try_from(wait.as_micros()).unwrap_or(u32::MAX);
        outcome.waits_us.push(wait);
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    Ok(())
}
