//! A bank through stock SQLite, which has SQL and knows nothing of this
//! library: what any other program does that has the database open.
//!
//! # Protocol
//! A transfer is `BEGIN IMMEDIATE`, its updates, `COMMIT`. SQLite waits for the
//! lock with a busy timeout: it tries, sleeps, and tries again. Its peers wake it
//! only if it has the extension `wal-queue`. An attempt that fails is rolled back.

use std::time::Instant;

use anyhow::{Result, ensure};
use demo::bank::{Journal, OFFSET};
use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

use crate::access::{Access, Audit, Committed};
use crate::assignment::{Setup, SynchronousName};
use crate::wire::{LogState, Transfer};

/// A bank that is open through stock SQLite.
pub(crate) struct SqlBank {
    connection: Connection,
}

impl SqlBank {
    pub(crate) fn open(setup: &Setup) -> Result<Self> {
        let connection =
            Connection::open_with_flags(&setup.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(setup.busy_timeout())?;
        let synchronous = match setup.synchronous {
            SynchronousName::Full | SynchronousName::Group => "full",
            SynchronousName::Normal => "normal",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        Ok(SqlBank { connection })
    }

    /// Runs a checkpoint in `mode`, and gives the log after it. `None` if
    /// somebody was in the way.
    fn run_checkpoint(&self, mode: &str) -> Result<Option<LogState>> {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        let (busy, frames, backfilled): (bool, i64, i64) =
            self.connection.query_row(&pragma, [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        if busy {
            return Ok(None);
        }
        Ok(Some(LogState {
            frames: u32::try_from(frames)?,
            backfilled: Some(u32::try_from(backfilled)?),
        }))
    }
}

impl Access for SqlBank {
    fn audit(&mut self) -> Result<Audit> {
        let read = self.connection.transaction()?;
        let total = read
            .prepare_cached("SELECT sum(balance - ?1) FROM account")?
            .query_row([OFFSET], |row| row.get(0))?;
        let journal = read
            .prepare_cached("SELECT transfers - ?1, digest - ?1 FROM journal ORDER BY worker")?
            .query_map([OFFSET], journal_of)?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Audit {
            total,
            journal,
            log: None,
        })
    }

    fn transfer(&mut self, worker: u32, transfer: Transfer, before: Journal) -> Result<Committed> {
        let write = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let began = Instant::now();
        let found = write
            .prepare_cached("SELECT transfers - ?1, digest - ?1 FROM journal WHERE worker = ?2")?
            .query_row((OFFSET, worker), journal_of)?;
        ensure!(
            found == before,
            "the journal row of writer {worker} holds {found:?} instead of {before:?}"
        );
        let journal = transfer.entered_in(found);
        for (account, change) in [
            (transfer.from, -transfer.amount),
            (transfer.to, transfer.amount),
        ] {
            update(
                &write,
                "UPDATE account SET balance = balance + ?1 WHERE id = ?2",
                (change, account),
            )?;
        }
        update(
            &write,
            "UPDATE journal SET transfers = ?1 + ?3, digest = ?2 + ?3 WHERE worker = ?4",
            (journal.transfers, journal.digest, OFFSET, worker),
        )?;
        write.commit()?;
        Ok(Committed { journal, began })
    }

    fn checkpoint(&mut self) -> Result<LogState> {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        self.run_checkpoint("PASSIVE")?
            .ok_or_else(|| rusqlite::Error::SqliteFailure(busy, None).into())
    }

    fn log(&mut self) -> Result<Option<LogState>> {
        // This mode does nothing and tells.
        self.run_checkpoint("NOOP")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.connection.close().map_err(|(_, error)| error)?)
    }
}

/// Changes exactly one row.
fn update(write: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<()> {
    let changed = write.prepare_cached(sql)?.execute(values)?;
    ensure!(changed == 1, "{sql}: changed {changed} rows");
    Ok(())
}

fn journal_of(row: &Row<'_>) -> rusqlite::Result<Journal> {
    Ok(Journal {
        transfers: row.get(0)?,
        digest: row.get(1)?,
    })
}
