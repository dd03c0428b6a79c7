//! The side of stock SQLite: making the bank, and asking whether it is sound.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rusqlite::{Connection, OpenFlags};

use super::value::{Journal, OFFSET, stored};

/// Journal rows of a bank, and so the most workers that can share it.
pub const WORKERS: u32 = 64;

/// How long the check waits for a lock that a live peer holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a bank at `path`, a SQLite database in WAL mode, with accounts 0 to
/// `accounts - 1` of `starting_balance` each and an empty journal. On return the
/// log is checkpointed and gone and nobody has the file open.
///
/// # Errors
/// If the file exists, a parameter is outside of what the format can hold, or
/// SQLite fails.
pub fn create(
    path: &Path,
    accounts: u32,
    page_size: u32,
    starting_balance: i64,
) -> anyhow::Result<()> {
    ensure!(accounts > 0, "a bank has at least one account");
    ensure!(
        page_size.is_power_of_two() && (512..=65536).contains(&page_size),
        "page size {page_size} is not a power of two in 512..=65536"
    );
    stored(starting_balance)?;
    // An empty file is an empty database to SQLite. Claiming it first keeps a
    // bank that is already there from being opened as if it were new.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    let connection = open(path)?;
    connection.pragma_update(None, "page_size", page_size)?;
    fill(&connection, accounts, starting_balance)?;
    close_quiescent(connection, path)
}

/// Turns on WAL mode and makes the tables in a database that has none.
pub(super) fn fill(
    connection: &Connection,
    accounts: u32,
    starting_balance: i64,
) -> anyhow::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite chose journal mode {mode}");
    let balance = stored(starting_balance)?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
         CREATE TABLE journal(
             worker INTEGER PRIMARY KEY, transfers INTEGER NOT NULL, digest INTEGER NOT NULL);",
    )?;
    {
        let mut account = transaction.prepare("INSERT INTO account VALUES(?1, ?2)")?;
        for id in 0..accounts {
            account.execute((id, balance))?;
        }
        let mut journal = transaction.prepare("INSERT INTO journal VALUES(?1, ?2, ?2)")?;
        for worker in 0..WORKERS {
            journal.execute((worker, OFFSET))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Checkpoints the whole log and closes; as the last closer, SQLite then
/// removes the log.
fn close_quiescent(connection: Connection, path: &Path) -> anyhow::Result<()> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    ensure!(busy == 0, "somebody else has {} open", path.display());
    connection.close().map_err(|(_, error)| error)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    ensure!(
        !PathBuf::from(log).try_exists()?,
        "somebody else has {} open",
        path.display()
    );
    Ok(())
}

/// What stock SQLite says of a bank, all from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankFacts {
    /// The lines of `PRAGMA integrity_check`; a single `ok` if all is well.
    pub integrity: Vec<String>,
    /// Rows of the table of accounts.
    pub accounts: u32,
    /// The sum of all balances, without the offset.
    pub total: i64,
    /// The journal; the worker is the index.
    pub journal: Vec<Journal>,
}

impl BankFacts {
    /// Whether the integrity check had no complaint.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.integrity == ["ok"]
    }
}

/// Asks stock SQLite for the facts. Peers may be at work meanwhile.
///
/// # Errors
/// If SQLite cannot read the bank at all. Damage that it can describe is a
/// fact and not an error.
pub fn check_with_stock_sqlite(path: &Path) -> anyhow::Result<BankFacts> {
    let connection = open(path)?;
    let transaction = connection.unchecked_transaction()?;
    let integrity = transaction
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let (accounts, total) = transaction.query_row(
        "SELECT count(*), coalesce(sum(balance - ?1), 0) FROM account",
        [OFFSET],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let journal = transaction
        .prepare("SELECT transfers - ?1, digest - ?1 FROM journal ORDER BY worker")?
        .query_map([OFFSET], |row| {
            Ok(Journal {
                transfers: row.get(0)?,
                digest: row.get(1)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(BankFacts {
        integrity,
        accounts,
        total,
        journal,
    })
}

/// Opens a file that is there, and never makes one.
fn open(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .with_context(|| format!("opening {} with SQLite", path.display()))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}
