//! A writer of `make bench-queue`: SQL on the log of this library. Its order and its
//! answer are in `bench/src/queue/order.rs`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wal_libsql::{BackendKind, OpenOptions, SqlError};

/// The result code of a lock that another connection holds.
const BUSY: i32 = 5;

#[derive(Deserialize)]
struct Order {
    database: PathBuf,
    synchronous: String,
    pause_ms: u64,
    busy_timeout_ms: u64,
    seconds: f64,
    row: u32,
}

#[derive(Default, Serialize)]
struct Outcome {
    commits: u64,
    locked: u64,
    seconds: f64,
    waits_us: Vec<u64>,
}

/// Carries out `order`, after a line on standard input.
pub(crate) fn run(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)?;
    let connection = OpenOptions::new(BackendKind::Shared)
        .busy_timeout(Duration::from_millis(order.busy_timeout_ms))
        .open(&order.database)?;
    connection.execute(&format!("PRAGMA synchronous={}", order.synchronous))?;
    let update = format!(
        "UPDATE t SET n = n + 1, x = randomblob(100) WHERE id = {}",
        order.row
    );
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < order.seconds {
        let asked = Instant::now();
        let began = connection.execute("BEGIN IMMEDIATE");
        let wait = asked.elapsed().as_micros();
        outcome.waits_us.push(u64::try_from(wait)?);
        let transaction = || -> Result<(), SqlError> {
            began?;
            connection.execute(&update)?;
            std::thread::sleep(Duration::from_millis(order.pause_ms));
            connection.execute("COMMIT")
        };
        match transaction() {
            Ok(()) => outcome.commits += 1,
            Err(error) if error.code & 0xff == BUSY => {
                outcome.locked += 1;
                // Fails where no transaction has begun.
                let _ = connection.execute("ROLLBACK");
            }
            Err(error) => return Err(error.into()),
        }
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
