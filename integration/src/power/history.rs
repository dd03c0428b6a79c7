//! The committed states of a SQLite database, as stock SQLite made them.

use std::fs;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rusqlite::Connection;
use wal_core::{PageNo, PageSize};

/// One state after the other; state 0 is what the database began with.
#[derive(Debug)]
pub struct History {
    /// The page size of all of them.
    pub page_size: PageSize,
    states: Vec<Vec<u8>>,
}

impl History {
    /// `transactions` random ones, vacuums among them.
    ///
    /// # Errors
    ///
    /// When SQLite refuses something, or a file cannot be read.
    pub fn new(page_size: PageSize, transactions: usize, rng: &mut Rng) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("history");
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "page_size", page_size.bytes())?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE state(number); INSERT INTO state VALUES(0);
             CREATE TABLE rows(n INTEGER PRIMARY KEY, data); CREATE INDEX sizes ON rows(length(data))",
        )?;
        let mut states = Vec::new();
        for number in 0..=transactions {
            if number > 0 {
                transact(&connection, number, rng).context("a transaction of the history")?;
            }
            // All of it into the database file, which then is the state.
            let busy: i64 =
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            ensure!(busy == 0, "the history is not checkpointed");
            states.push(fs::read(&path)?);
        }
        Ok(History { page_size, states })
    }

    /// The number of the last state.
    pub fn last(&self) -> usize {
        self.states.len() - 1
    }

    /// The whole file in state `number`.
    pub fn bytes(&self, number: usize) -> &[u8] {
        &self.states[number]
    }

    /// The size of state `number` in pages.
    pub fn page_count(&self, number: usize) -> u32 {
        u32::try_from(self.states[number].len() / self.page_size.len()).unwrap_or(u32::MAX)
    }

    /// The pages of state `number`.
    pub fn pages(&self, number: usize) -> impl Iterator<Item = &[u8]> {
        self.states[number].chunks(self.page_size.len())
    }

    /// The pages that are different in state `to`, or not in state `from`.
    pub fn changed(&self, from: usize, to: usize) -> Vec<(PageNo, &[u8])> {
        let old: Vec<&[u8]> = self.pages(from).collect();
        let different = (1..).zip(self.pages(to)).filter(|(number, page)| {
            let old: Option<&&[u8]> = old.get(*number as usize - 1);
            old != Some(page)
        });
        let numbered = different.map(|(number, page)| Ok((PageNo::new(number)?, page)));
        numbered
            .collect::<wal_core::Result<_>>()
            .unwrap_or_default()
    }
}

fn transact(connection: &Connection, number: usize, rng: &mut Rng) -> rusqlite::Result<()> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    if rng.u8(..10) == 0 {
        // A transaction of its own, of a state that it does not count.
        connection.execute("UPDATE state SET number = ?1", [number])?;
        return connection.execute_batch("VACUUM");
    }
    let transaction = connection.unchecked_transaction()?;
    transaction.execute("UPDATE state SET number = ?1", [number])?;
    match rng.u8(..6) {
        0 => drop(transaction.execute("DELETE FROM rows WHERE n % 2 = ?1", [number % 2])?),
        1 => drop(transaction.execute("UPDATE rows SET data = zeroblob(?1)", [rng.i64(1..3000)])?),
        _ => {
            for _ in 0..rng.u8(1..5) {
                let size = rng.i64(10..4000);
                transaction.execute("INSERT INTO rows(data) VALUES(randomblob(?1))", [size])?;
            }
        }
    }
    transaction.commit()
}
