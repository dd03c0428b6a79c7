//! The rows.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wal_libsql::{Connection, Value};

use crate::engine::Log;

/// One round: a figure.
pub(crate) type Bench = Box<dyn FnMut() -> Result<f64>>;

/// A row of the report.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more: bool,
    pub(crate) build: fn(Log, &Path, u32) -> Result<Bench>,
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "point reads",
        unit: "µs",
        more: false,
        build: point_reads,
    },
    Row {
        name: "one-row commits, NORMAL",
        unit: "µs",
        more: false,
        build: |log, path, divide| commits(log, path, "NORMAL", 10_000 / divide),
    },
    Row {
        name: "one-row commits, FULL",
        unit: "µs",
        more: false,
        build: |log, path, divide| commits(log, path, "FULL", 500 / divide),
    },
    Row {
        name: "bulk load, 1,000 rows a transaction",
        unit: "thousand rows/s",
        more: true,
        build: bulk_load,
    },
    Row {
        name: "8 processes that commit a row, NORMAL",
        unit: "commits/s",
        more: true,
        build: processes,
    },
    Row {
        name: "checkpoint",
        unit: "MB/s",
        more: true,
        build: checkpoint,
    },
    Row {
        name: "point reads in one transaction, log of 500,000 frames",
        unit: "µs",
        more: false,
        build: reads_with_a_long_log,
    },
];

const ROW_COUNT: i64 = 10_000;

/// A table of rows of which each fills a good part of a page.
fn table(log: Log, path: &Path, settings: &str) -> Result<Connection> {
    let db = log.open(path)?;
    db.execute(&format!(
        "{settings}; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROW_COUNT})
         INSERT INTO t SELECT i, zeroblob(2000) FROM n;"
    ))?;
    db.query("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(db)
}

fn micros(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}

fn read(db: &Connection, count: u32) -> Result<f64> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut select = db.prepare("SELECT length(x) FROM t WHERE id = ?")?;
    let started = Instant::now();
    for _ in 0..count {
        select.bind(1, &Value::Integer(random.i64(1..=ROW_COUNT)))?;
        ensure!(select.step()?, "no row");
        select.reset();
    }
    Ok(micros(started.elapsed(), count))
}

fn point_reads(log: Log, path: &Path, divide: u32) -> Result<Bench> {
    let db = table(log, path, "")?;
    // Hardly any page stays in the engine's cache.
    db.execute("PRAGMA cache_size=10")?;
    let count = 50_000 / divide;
    Ok(Box::new(move || read(&db, count)))
}

fn update(db: &Connection, count: u32, random: &mut fastrand::Rng) -> Result<()> {
    let mut update = db.prepare("UPDATE t SET x = randomblob(2000) WHERE id = ?")?;
    for _ in 0..count {
        update.bind(1, &Value::Integer(random.i64(1..=ROW_COUNT)))?;
        update.step()?;
        update.reset();
    }
    Ok(())
}

fn commits(log: Log, path: &Path, synchronous: &str, count: u32) -> Result<Bench> {
    let db = table(log, path, &format!("PRAGMA synchronous={synchronous}"))?;
    let mut random = fastrand::Rng::with_seed(7);
    Ok(Box::new(move || {
        let started = Instant::now();
        update(&db, count, &mut random)?;
        Ok(micros(started.elapsed(), count))
    }))
}

fn bulk_load(log: Log, path: &Path, divide: u32) -> Result<Bench> {
    let db = table(log, path, "PRAGMA synchronous=NORMAL")?;
    let transactions = (50 / divide).max(1);
    Ok(Box::new(move || {
        db.execute("DROP TABLE IF EXISTS u; CREATE TABLE u(a INTEGER PRIMARY KEY, b, c)")?;
        let mut insert = db.prepare("INSERT INTO u(b, c) VALUES (?, zeroblob(100))")?;
        let started = Instant::now();
        for transaction in 0..transactions {
            db.execute("BEGIN")?;
            for row in 0..1000 {
                insert.bind(1, &Value::Integer(i64::from(transaction) * 1000 + row))?;
                insert.step()?;
                insert.reset();
            }
            db.execute("COMMIT")?;
        }
        Ok(f64::from(transactions) / started.elapsed().as_secs_f64())
    }))
}

fn checkpoint(log: Log, path: &Path, divide: u32) -> Result<Bench> {
    let db = table(
        log,
        path,
        "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0",
    )?;
    let rows = ROW_COUNT / i64::from(divide);
    Ok(Box::new(move || {
        db.execute(&format!(
            "UPDATE t SET x = randomblob(2000) WHERE id <= {rows}"
        ))?;
        let started = Instant::now();
        let row = db.query("PRAGMA wal_checkpoint(PASSIVE)")?;
        let time = started.elapsed();
        let frames = match row[0][2] {
            Value::Integer(frames) => frames,
            _ => anyhow::bail!("{row:?}"),
        };
        let pages = f64::from(u32::try_from(frames)?);
        Ok(pages * 4096.0 / 1e6 / time.as_secs_f64())
    }))
}

fn reads_with_a_long_log(log: Log, path: &Path, divide: u32) -> Result<Bench> {
    let db = table(
        log,
        path,
        "PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0",
    )?;
    // Somebody reads an old state, so the log does not begin anew.
    db.execute("CREATE TABLE other(id INTEGER PRIMARY KEY, x BLOB)")?;
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO other SELECT i, zeroblob(3500) FROM n",
    )?;
    for _ in 0..500 / divide {
        db.execute("UPDATE other SET x = randomblob(3500)")?;
    }
    db.execute("PRAGMA cache_size=10")?;
    let count = 50_000 / divide;
    Ok(Box::new(move || {
        db.execute("BEGIN")?;
        let taken = read(&db, count)?;
        db.execute("COMMIT")?;
        Ok(taken)
    }))
}

fn processes(log: Log, path: &Path, divide: u32) -> Result<Bench> {
    let _keeper = table(log, path, "")?;
    let path = path.to_owned();
    let milliseconds = (2000 / divide).max(100).to_string();
    Ok(Box::new(move || {
        let _open = &_keeper;
        let mut workers = Vec::new();
        for _ in 0..8 {
            let mut worker = Command::new(std::env::current_exe()?)
                .args(["worker", log.name()])
                .arg(&path)
                .arg(&milliseconds)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut output = BufReader::new(worker.stdout.take().context("no output")?);
            let mut line = String::new();
            output.read_line(&mut line)?;
            ensure!(line == "ready\n", "a process did not start");
            workers.push((worker, output));
        }
        for (worker, _) in &mut workers {
            writeln!(worker.stdin.take().context("no input")?)?;
        }
        let mut total = 0.0;
        for (mut worker, mut output) in workers {
            let mut line = String::new();
            output.read_line(&mut line)?;
            total += line.trim().parse::<f64>()?;
            ensure!(worker.wait()?.success(), "a process failed");
        }
        Ok(total)
    }))
}

/// One of these processes: tells how many commits it makes in a second.
pub(crate) fn work(log: Log, path: &Path, milliseconds: u64) -> Result<()> {
    let db = log.open(path)?;
    db.execute("PRAGMA synchronous=NORMAL")?;
    let mut random = fastrand::Rng::with_seed(u64::from(std::process::id()));
    update(&db, 1, &mut random)?;
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let (started, duration) = (Instant::now(), Duration::from_millis(milliseconds));
    let mut commits = 0_u32;
    while started.elapsed() < duration {
        update(&db, 10, &mut random)?;
        commits += 10;
    }
    println!("{}", f64::from(commits) / started.elapsed().as_secs_f64());
    Ok(())
}
