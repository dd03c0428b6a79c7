//! Both sides of the bank against each other, on files with one process.
//!
//! Here is what the tests share: a bank in a directory of its own, and its
//! pages as the file has them.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

mod damage;
mod format;
mod sql;

const START: i64 = 1_000;

/// A bank in a directory of its own, and its pages as the file has them.
struct Bank {
    _directory: TempDir,
    path: PathBuf,
}

impl Bank {
    fn new(accounts: u32, page_size: u32) -> Self {
        let bank = Self::nowhere();
        create(&bank.path, accounts, page_size, START).unwrap();
        bank
    }

    /// A place for a bank that the test makes itself.
    fn nowhere() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.db");
        Self {
            _directory: directory,
            path,
        }
    }

    /// Runs SQL; when this returns, all of it is in the database file.
    fn sql(&self, sql: &str) {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute_batch(sql).unwrap();
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
    }

    fn query(&self, sql: &str) -> i64 {
        let connection = Connection::open(&self.path).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn pages(&self) -> Pages {
        Pages::of(&self.path)
    }

    fn layout(&self) -> anyhow::Result<Layout> {
        self.pages().layout()
    }

    fn facts(&self) -> BankFacts {
        check_with_stock_sqlite(&self.path).unwrap()
    }
}

/// The bytes of a database file.
#[derive(Clone)]
struct Pages {
    size: usize,
    bytes: Vec<u8>,
}

impl Pages {
    fn of(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65536,
            size => usize::from(size),
        };
        Self { size, bytes }
    }

    fn range(&self, page: u32) -> anyhow::Result<std::ops::Range<usize>> {
        let end = self.size * usize::try_from(page)?;
        anyhow::ensure!(page > 0 && end <= self.bytes.len(), "no page {page}");
        Ok(end - self.size..end)
    }

    fn read(&self, page: u32) -> anyhow::Result<&[u8]> {
        Ok(&self.bytes[self.range(page)?])
    }

    fn page_mut(&mut self, page: u32) -> &mut [u8] {
        let range = self.range(page).unwrap();
        &mut self.bytes[range]
    }

    fn layout(&self) -> anyhow::Result<Layout> {
        Layout::load(|page| self.read(page))
    }

    fn balance(&self, layout: &Layout, id: usize) -> Result<i64, BankError> {
        let location = layout.accounts()[id];
        layout.read_balance(self.read(location.page).unwrap(), location)
    }

    fn set_balance(&mut self, layout: &Layout, id: usize, balance: i64) -> Result<(), BankError> {
        let location = layout.accounts()[id];
        layout.write_balance(self.page_mut(location.page), location, balance)
    }
}

fn refusal(error: &anyhow::Error) -> &BankError {
    error.downcast_ref().expect("a refusal by the bank itself")
}
