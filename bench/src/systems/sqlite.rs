//! Stock SQLite, with prepared statements: a record is a row that fills a page.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rusqlite::Connection;

use super::{Durability, Settings, Store};

pub(crate) struct Sqlite {
    connection: Connection,
    directory: PathBuf,
    settings: Settings,
    mapped: bool,
    record: usize,
}

impl Sqlite {
    pub(crate) fn open(directory: &Path, settings: Settings, mapped: bool) -> Result<Self> {
        let name = if mapped { "sqlite-mmap" } else { "sqlite" };
        let connection = Connection::open(directory.join(name))?;
        connection.busy_timeout(Duration::from_secs(30))?;
        let synchronous = match settings.durability {
            Durability::Normal => "NORMAL",
            Durability::Full => "FULL",
        };
        let checkpoint = if settings.auto_checkpoint { 1000 } else { 0 };
        let mmap_size = if mapped { 1_u64 << 40 } else { 0 };
        connection.execute_batch(&format!(
            "PRAGMA page_size={}; PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};
             PRAGMA wal_autocheckpoint={checkpoint}; PRAGMA mmap_size={mmap_size};
             CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x BLOB)",
            settings.page_size
        ))?;
        connection.set_prepared_statement_cache_capacity(16);
        Ok(Sqlite {
            connection,
            directory: directory.to_owned(),
            settings,
            mapped,
            record: settings.record(),
        })
    }

    fn look_up(&self, keys: &[u32]) -> Result<u64> {
        let mut select = self
            .connection
            .prepare_cached("SELECT x FROM t WHERE id = ?1")?;
        let mut sum = 0;
        for &key in keys {
            let middle = |row: &rusqlite::Row<'_>| {
                let bytes = row.get_ref(0)?.as_blob()?;
                Ok(bytes[bytes.len() / 2])
            };
            sum += u64::from(select.query_row([key], middle)?);
        }
        Ok(sum)
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

impl Store for Sqlite {
    /// Each thread has a connection.
    fn another(&self) -> Result<Box<dyn Store>> {
        let another = Sqlite::open(&self.directory, self.settings, self.mapped)?;
        Ok(Box::new(another))
    }

    fn read(&mut self, key: u32) -> Result<u64> {
        self.look_up(&[key])
    }

    fn read_many(&mut self, keys: &[u32]) -> Result<u64> {
        self.run("BEGIN")?;
        let sum = self.look_up(keys)?;
        self.run("COMMIT")?;
        Ok(sum)
    }

    fn write(&mut self, keys: &[u32], value: u8) -> Result<()> {
        let record = vec![value; self.record];
        self.run("BEGIN IMMEDIATE")?;
        {
            let mut update = self
                .connection
                .prepare_cached("UPDATE t SET x = ?2 WHERE id = ?1")?;
            for &key in keys {
                if update.execute(rusqlite::params![key, record])? == 0 {
                    let mut insert = self
                        .connection
                        .prepare_cached("INSERT INTO t VALUES (?1, ?2)")?;
                    insert.execute(rusqlite::params![key, record])?;
                }
            }
        }
        self.run("COMMIT")
    }

    fn checkpoint(&mut self) -> Result<()> {
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        self.connection.query_row(checkpoint, [], |_| Ok(()))?;
        Ok(())
    }
}
