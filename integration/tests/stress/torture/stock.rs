//! One process of stock SQLite after the other, each told what to do by a
//! thread of the test.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use integration::stock::{Rows, StockKind, StockSqlite};
use rusqlite::types::Value;

use crate::count::Count;
use crate::scene::{ACCOUNTS, Ledger, SUM, Scene, choose};

/// How long stock SQLite waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one of its checkpoints does, which may hold WRITE meanwhile.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
enum Act {
    Transfer,
    Grow,
    Shrink,
    RollBack,
    Look,
    Checkpoint,
    CloseAndOpen,
    KillInTransfer,
    KillInGrowth,
    KillInCheckpoint,
}

const ACTS: [(u32, Act); 10] = [
    (30, Act::Transfer),
    (6, Act::Grow),
    (6, Act::Shrink),
    (5, Act::RollBack),
    (12, Act::Look),
    (12, Act::Checkpoint),
    (5, Act::CloseAndOpen),
    (4, Act::KillInTransfer),
    (2, Act::KillInGrowth),
    (2, Act::KillInCheckpoint),
];

const GROW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120) \
                    INSERT INTO filler SELECT randomblob(200 + i) FROM n";
const SHRINK: &str = "DELETE FROM filler WHERE rowid IN \
                      (SELECT rowid FROM filler ORDER BY random() LIMIT 120)";

struct Stock<'scene> {
    scene: &'scene Scene,
    number: u32,
    kind: StockKind,
    rng: Rng,
    ledger: Ledger,
    count: Count,
    /// `None` only while one takes the place of another.
    process: Option<StockSqlite>,
}

/// Lets processes of stock SQLite act `acts` times in all; what they know then.
pub(crate) fn act(
    scene: &Scene,
    kind: StockKind,
    number: u32,
    seed: u64,
    acts: u32,
) -> Result<(Ledger, Count)> {
    let mut stock = Stock {
        scene,
        number,
        kind,
        rng: Rng::with_seed(seed),
        ledger: scene.stock[number as usize],
        count: Count::default(),
        process: None,
    };
    stock.start()?;
    for _ in 0..acts {
        let act = choose(&mut stock.rng, &ACTS);
        stock
            .act(act)
            .with_context(|| format!("{act:?} by process {number} of {kind}"))?;
    }
    let process = stock.process.take().context("no process")?;
    if stock.rng.bool() {
        process.close()?;
    } else {
        process.kill()?;
    }
    Ok((stock.ledger, stock.count))
}

impl Stock<'_> {
    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Transfer => self.transfer(),
            Act::Grow => self.commit(GROW),
            Act::Shrink => self.commit(SHRINK),
            Act::RollBack => self.roll_back(),
            Act::Look => self.look(),
            Act::Checkpoint => self.checkpoint(),
            Act::CloseAndOpen => {
                self.process.take().context("no process")?.close()?;
                self.start()
            }
            Act::KillInTransfer => {
                let sql = self.transfer_sql();
                self.kill_in_commit(&sql)
            }
            Act::KillInGrowth => self.kill_in_commit(GROW),
            Act::KillInCheckpoint => {
                let sql = self.checkpoint_sql();
                self.kill_in(&sql)
            }
        }
    }

    /// Starts a process, which finds what those before it were told.
    fn start(&mut self) -> Result<()> {
        let mut process = StockSqlite::spawn(self.kind, &self.scene.path, None)?;
        process.set_busy_timeout(BUSY_TIMEOUT)?;
        let synchronous = choose(&mut self.rng, &[(2, "OFF"), (2, "NORMAL"), (1, "FULL")]);
        let auto = choose(&mut self.rng, &[(1, 0), (1, 100), (1, 1000)]);
        // So few cached pages that a large transaction spills into the log.
        let cache = choose(&mut self.rng, &[(1, 10), (1, 2000)]);
        let mapped = choose(&mut self.rng, &[(1, 0), (1, 1 << 28)]);
        let settings = format!(
            "PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint={auto}; \
             PRAGMA cache_size={cache}; PRAGMA mmap_size={mapped}"
        );
        process.run(&settings)??;
        self.process = Some(process);
        self.look()
    }

    fn run(&mut self, sql: &str) -> Result<Option<Rows>> {
        let process = self.process.as_mut().context("no process")?;
        match process.run(sql)? {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if error.is_busy() => {
                self.count.busy += 1;
                Ok(None)
            }
            Err(error) => Err(error).context(sql.to_owned()),
        }
    }

    /// All of a transaction in which `sql` is done and entered in the journal.
    fn transaction(&self, sql: &str) -> String {
        let (count, number) = (self.ledger.next(), self.number);
        format!(
            "BEGIN IMMEDIATE; {sql}; UPDATE journal SET count={count} WHERE writer={number}; COMMIT"
        )
    }

    fn commit(&mut self, sql: &str) -> Result<()> {
        let sql = self.transaction(sql);
        // Only the first statement can find others at work.
        if self.run(&sql)?.is_some() {
            self.ledger.acknowledge();
            self.count.stock += 1;
        }
        Ok(())
    }

    fn transfer_sql(&mut self) -> String {
        let mut account = || self.rng.u32(..ACCOUNTS);
        let (from, to) = (account(), account());
        let amount = self.rng.u32(1..100);
        format!(
            "UPDATE account SET balance=balance-{amount} WHERE id={from}; \
             UPDATE account SET balance=balance+{amount} WHERE id={to}"
        )
    }

    fn transfer(&mut self) -> Result<()> {
        let sql = self.transfer_sql();
        self.commit(&sql)
    }

    fn roll_back(&mut self) -> Result<()> {
        self.run(&format!("BEGIN IMMEDIATE; {GROW}; ROLLBACK"))
            .map(drop)
    }

    /// The newest snapshot has all that this place knows of.
    fn look(&mut self) -> Result<()> {
        let sql = format!(
            "SELECT sum(balance), (SELECT count FROM journal WHERE writer={}) FROM account",
            self.number
        );
        let Some(rows) = self.run(&sql)? else {
            return Ok(());
        };
        let [[Value::Integer(sum), Value::Integer(count)]] =
            rows.0.iter().map(Vec::as_slice).collect::<Vec<_>>()[..]
        else {
            anyhow::bail!("two numbers were expected, not {rows:?}");
        };
        ensure!(*sum == SUM, "the balances add up to {sum}");
        self.ledger.settle(u64::try_from(*count)?)
    }

    fn checkpoint_sql(&mut self) -> String {
        let modes = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];
        let mode = modes[self.rng.usize(..modes.len())];
        format!(
            "PRAGMA busy_timeout={}; PRAGMA wal_checkpoint({mode}); PRAGMA busy_timeout={}",
            CHECKPOINT_TIMEOUT.as_millis(),
            BUSY_TIMEOUT.as_millis()
        )
    }

    fn checkpoint(&mut self) -> Result<()> {
        let sql = self.checkpoint_sql();
        if self.run(&sql)?.is_some() {
            self.count.checkpoints += 1;
        }
        Ok(())
    }

    fn kill_in_commit(&mut self, sql: &str) -> Result<()> {
        let sql = self.transaction(sql);
        self.ledger.doubt();
        self.kill_in(&sql)
    }

    /// Kills the process at any moment of `sql`, or soon after.
    fn kill_in(&mut self, sql: &str) -> Result<()> {
        let mut process = self.process.take().context("no process")?;
        process.send(sql)?;
        // The moment is what the seed chooses; there is nothing to wait for.
        thread::sleep(Duration::from_micros(self.rng.u64(..3000)));
        process.kill()?;
        self.count.kills += 1;
        self.start()
    }
}
