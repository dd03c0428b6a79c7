//! A database that stock SQLite holds open while its files are copied.
//!
//! All content is a function of row ids, so that two runs write the same pages.

use std::path::Path;

use anyhow::{Result, ensure};
use integration::fixtures::{DATABASE, LOG};
use rusqlite::{Connection, params};
use tempfile::TempDir;

use crate::facts::{integer, text};
use crate::files::copy_files;

const SCHEMA: &str = "
    CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT NOT NULL, quantity INTEGER NOT NULL);
    CREATE INDEX item_name ON item(name);
    CREATE TABLE document(id INTEGER PRIMARY KEY, body BLOB NOT NULL);";

/// An open database in a folder of its own.
///
/// The connection is declared first, so that it is closed before its folder
/// goes away.
pub(crate) struct Stock {
    pub(crate) connection: Connection,
    folder: TempDir,
}

impl Stock {
    /// A new database in WAL mode that checkpoints only when it is told to,
    /// with the tables in the log and page 1 in the database file.
    pub(crate) fn wal(page_size: usize) -> Result<Self> {
        Self::create(page_size, "wal", "", "")?.with_tables()
    }

    /// As [`Stock::wal`], with nothing in the database yet.
    pub(crate) fn without_tables(page_size: usize) -> Result<Self> {
        Self::create(page_size, "wal", "", "")
    }

    /// As [`Stock::wal`], giving pages back to the file system at every commit.
    pub(crate) fn auto_vacuum(page_size: usize) -> Result<Self> {
        Self::create(page_size, "wal", "PRAGMA auto_vacuum = FULL;", "")?.with_tables()
    }

    /// As [`Stock::wal`], for a device on which a write can damage the bytes
    /// next to it, so that commits are padded to whole sectors.
    pub(crate) fn padded(page_size: usize) -> Result<Self> {
        Self::create(page_size, "wal", "", "?psow=0")?.with_tables()
    }

    /// A new database with a rollback journal.
    pub(crate) fn rollback(page_size: usize) -> Result<Self> {
        Self::create(page_size, "delete", "", "")?.with_tables()
    }

    fn create(page_size: usize, journal_mode: &str, settings: &str, query: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let uri = format!("file:{}{query}", folder.path().join(DATABASE).display());
        let connection = Connection::open(uri)?;
        connection.execute_batch(&format!("PRAGMA page_size = {page_size}; {settings}"))?;
        let mode = text(
            &connection,
            &format!("PRAGMA journal_mode = {journal_mode}"),
        )?;
        ensure!(
            mode == journal_mode,
            "SQLite answers with journal mode {mode}"
        );
        // FULL, because only then are commits padded and journals synced when
        // they spill.
        connection.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = FULL;")?;
        let written = integer(&connection, "PRAGMA page_size", 0)?;
        ensure!(
            usize::try_from(written)? == page_size,
            "SQLite answers with page size {written}"
        );
        Ok(Self { connection, folder })
    }

    /// Creates the tables, in a transaction each unless one is open.
    pub(crate) fn create_tables(&self) -> Result<()> {
        self.run(SCHEMA)
    }

    fn with_tables(self) -> Result<Self> {
        self.run("BEGIN")?;
        self.create_tables()?;
        self.run("COMMIT")?;
        Ok(self)
    }

    /// The folder of the live files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Copies the database and its log.
    pub(crate) fn copy_to(&self, target: &Path) -> Result<()> {
        copy_files(self.folder(), target, &[DATABASE, LOG])
    }

    /// Runs SQL whose rows nobody wants.
    pub(crate) fn run(&self, sql: &str) -> Result<()> {
        Ok(self.connection.execute_batch(sql)?)
    }

    /// Checkpoints, and fails unless all was copied.
    pub(crate) fn checkpoint(&self, mode: &str) -> Result<()> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let (busy, log, copied) = self.connection.query_row(&sql, [], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })?;
        ensure!(
            busy == 0 && log == copied,
            "{mode}: busy {busy}, {copied} of {log} frames"
        );
        Ok(())
    }

    /// Adds items, in one transaction unless one is open.
    pub(crate) fn add_items(&self, ids: std::ops::Range<i64>) -> Result<()> {
        self.connection.execute(
            "WITH RECURSIVE ids(id) AS (SELECT ?1 UNION ALL SELECT id + 1 FROM ids WHERE id + 1 < ?2)
             INSERT INTO item SELECT id, printf('item %05d', id * 7919 % 10007), id % 97 FROM ids",
            params![ids.start, ids.end],
        )?;
        Ok(())
    }

    /// Adds one document of `bytes` bytes.
    pub(crate) fn add_document(&self, id: i64, bytes: usize) -> Result<()> {
        let start = u64::try_from(id)? * 7;
        let body: Vec<u8> = (start..).map(byte_at).take(bytes).collect();
        self.connection
            .execute("INSERT INTO document VALUES (?1, ?2)", params![id, body])?;
        Ok(())
    }

    /// Adds several documents, in a transaction each unless one is open.
    pub(crate) fn add_documents(&self, ids: std::ops::Range<i64>, bytes: usize) -> Result<()> {
        ids.into_iter()
            .try_for_each(|id| self.add_document(id, bytes))
    }

    /// Changes every `step`th item, in place.
    pub(crate) fn change_items(&self, step: i64) -> Result<()> {
        let sql = "UPDATE item SET quantity = quantity + 1 WHERE id % ?1 = 0";
        self.connection.execute(sql, params![step])?;
        Ok(())
    }

    /// Overflow pages that the committed database has.
    pub(crate) fn overflow_pages(&self) -> Result<i64> {
        integer(
            &self.connection,
            "SELECT count(*) FROM dbstat WHERE pagetype = 'overflow'",
            0,
        )
    }

    /// Opens a transaction whose pages do not fit its cache, so that SQLite
    /// writes them before the commit.
    pub(crate) fn begin_spilling(&self) -> Result<()> {
        self.run("PRAGMA cache_size = 8; PRAGMA cache_spill = 8; BEGIN IMMEDIATE;")
    }

    /// Closes the connection, and keeps the folder.
    pub(crate) fn close(self) -> Result<TempDir> {
        self.connection.close().map_err(|(_, error)| error)?;
        Ok(self.folder)
    }
}

/// 251 is prime, so that no two pages of a document are alike.
fn byte_at(position: u64) -> u8 {
    u8::try_from(position % 251).unwrap_or_default()
}
