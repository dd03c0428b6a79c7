//! The bank as the library changes it, with a model of what it must hold.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use demo::bank::{self, Layout, OFFSET};
use fixtures::file_digests;
use integration::stock::{StockKind, StockSqlite};
use rusqlite::types::Value;
use tempfile::TempDir;
use wal::generic::{Database, WriteTx};
use wal::{Options, PageNo, Synchronous};

/// Enough for a tree of several leaves at every page size but the largest.
pub(crate) const ACCOUNTS: u32 = 400;
const BALANCE: i64 = 1000;
/// Where page 1 has `PRAGMA user_version`, big-endian.
const USER_VERSION: std::ops::Range<usize> = 60..64;

/// What the bank must hold, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) balances: Vec<i64>,
    pub(crate) user_version: u32,
}

impl Model {
    fn new() -> Self {
        Model {
            balances: vec![BALANCE; ACCOUNTS as usize],
            user_version: 0,
        }
    }

    /// Two different accounts and an amount.
    pub(crate) fn random_transfer(rng: &mut fastrand::Rng) -> (usize, usize, i64) {
        let from = rng.usize(..ACCOUNTS as usize);
        let to = (from + rng.usize(1..ACCOUNTS as usize)) % ACCOUNTS as usize;
        (from, to, rng.i64(1..50))
    }

    pub(crate) fn transfer(&mut self, (from, to, amount): (usize, usize, i64)) {
        self.balances[from] -= amount;
        self.balances[to] += amount;
        self.user_version += 1;
    }
}

/// A new bank in a folder of its own, and its model.
pub(crate) fn new_bank(page_size: u32) -> (TempDir, PathBuf, Model) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bank.db");
    bank::create(&path, ACCOUNTS, page_size, BALANCE).unwrap();
    (folder, path, Model::new())
}

/// Without automatic checkpoints, so that every step is the test's.
pub(crate) fn options() -> Options {
    Options::new()
        .create(false)
        .auto_checkpoint(0)
        .read_lock_delay(Duration::ZERO)
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::from_secs(20))
}

/// Carries out a transfer with the library, and counts it on page 1.
pub(crate) fn transfer<B: wal::Backend>(
    database: &Database<B>,
    model: &mut Model,
    transfer: (usize, usize, i64),
) {
    let mut write = database.begin_write().unwrap();
    transfer_in(&mut write, model, transfer);
    write.commit().unwrap();
}

/// As [`transfer`], within a transaction.
pub(crate) fn transfer_in<B: wal::Backend>(
    write: &mut WriteTx<B>,
    model: &mut Model,
    transfer: (usize, usize, i64),
) {
    let layout = Layout::load(|page| Ok(write.page(PageNo::new(page)?)?.to_vec())).unwrap();
    let (from, to, amount) = transfer;
    for (account, change) in [(from, -amount), (to, amount)] {
        let location = layout.accounts()[account];
        let page = write.page_mut(PageNo::new(location.page).unwrap()).unwrap();
        let balance = layout.read_balance(page, location).unwrap();
        layout
            .write_balance(page, location, balance + change)
            .unwrap();
    }
    model.transfer(transfer);
    let page_one = write.page_mut(PageNo::ONE).unwrap();
    page_one[USER_VERSION].copy_from_slice(&model.user_version.to_be_bytes());
}

/// The bank as the library reads it.
pub(crate) fn read<B: wal::Backend>(database: &Database<B>) -> Model {
    let read = database.begin_read().unwrap();
    let page = |number| {
        let page = read
            .page(PageNo::new(number)?)
            .context("a page of the bank")?;
        Ok(page.to_vec())
    };
    let layout = Layout::load(page).unwrap();
    let balance = |location: &bank::Location| {
        let page = read.page(PageNo::new(location.page).unwrap()).unwrap();
        layout.read_balance(&page, *location).unwrap()
    };
    let page_one = read.page(PageNo::ONE).unwrap();
    Model {
        balances: layout.accounts().iter().map(balance).collect(),
        user_version: u32::from_be_bytes(page_one[USER_VERSION].try_into().unwrap()),
    }
}

/// The bank as stock SQLite reads it, which must find it sound.
pub(crate) fn read_by_stock(stock: &mut StockSqlite) -> Model {
    let check = stock.run("PRAGMA integrity_check").unwrap().unwrap();
    assert_eq!(check.text().unwrap(), "ok", "{stock}");
    let sql = format!("SELECT balance - {OFFSET} FROM account ORDER BY id");
    let rows = stock.run(&sql).unwrap().unwrap();
    let balance = |row: &Vec<Value>| match row.as_slice() {
        [Value::Integer(balance)] => *balance,
        other => panic!("a row of one balance was expected, not {other:?}"),
    };
    let user_version = stock.run("PRAGMA user_version").unwrap().unwrap();
    Model {
        balances: rows.0.iter().map(balance).collect(),
        user_version: u32::try_from(user_version.integer().unwrap()).unwrap(),
    }
}

/// As [`read_by_stock`], by a process that comes and goes.
pub(crate) fn read_by_new_stock(kind: StockKind, path: &Path) -> Model {
    let mut stock = StockSqlite::spawn(kind, path, None).unwrap();
    let model = read_by_stock(&mut stock);
    stock.close().unwrap();
    model
}

/// The digests of all pages, by a stock SQLite that moves the whole log into
/// the database file. Nobody else has the database open afterwards.
pub(crate) fn digests_by_new_stock(kind: StockKind, path: &Path, page_size: u32) -> Vec<String> {
    let mut stock = StockSqlite::spawn(kind, path, None).unwrap();
    checkpoint_by_stock(&mut stock, "TRUNCATE");
    stock.close().unwrap();
    file_digests(path, page_size as usize).unwrap()
}

/// A checkpoint by stock SQLite that nobody hinders.
pub(crate) fn checkpoint_by_stock(stock: &mut StockSqlite, mode: &str) {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let rows = stock.run(&sql).unwrap().unwrap();
    let [Value::Integer(busy), log, copied] = &rows.0[0][..] else {
        panic!("{stock}: {rows:?}");
    };
    assert_eq!((*busy, log), (0, copied), "{stock}: {mode}");
}
