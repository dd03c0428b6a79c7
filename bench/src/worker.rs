//! A process that does one thing for a while, as it was told on its command
//! line, and says how it went.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::measure::of_latencies;
use crate::systems::{self, Settings, Store, System};

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Reads one record at a time.
    Read,
    /// Commits one record at a time.
    Write,
    /// Waits for changes, and tells when it saw each.
    Wait,
    /// So many reads, as fast as it can, for who counts system calls.
    Reads(u32),
    /// So many commits.
    Writes(u32),
}

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The system.
    pub(crate) system: System,
    /// Where its files are.
    pub(crate) directory: PathBuf,
    /// How it is opened.
    pub(crate) settings: Settings,
    /// How many records there are.
    pub(crate) records: u32,
    /// What to do.
    pub(crate) role: Role,
    /// For how long.
    pub(crate) duration: Duration,
    /// Where its random numbers begin.
    pub(crate) seed: u64,
}

/// How it went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// How often it was done.
    pub(crate) count: u64,
    /// How long it took in all, in seconds.
    pub(crate) seconds: f64,
    /// The latency in microseconds that one in a thousand exceeds.
    pub(crate) tail: f64,
    /// The longest one.
    pub(crate) worst: f64,
    /// When a waiter saw each change, in nanoseconds of the monotonic clock.
    pub(crate) seen: Vec<u64>,
}

/// Does what `order` says, once a line comes in.
pub(crate) fn run(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)?;
    let told = match order.role {
        Role::Wait => wait(&order)?,
        _ => work(&order)?,
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&told)?)?;
    Ok(())
}

/// Prints that the process is ready, and waits for the start.
pub(crate) fn line_up() -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(())
}

fn work(order: &Order) -> Result<Told> {
    let mut store = systems::open(order.system, &order.directory, order.settings)?;
    repeat(&mut *store, order, line_up)
}

/// Does on `store` what `order` says, again and again, once `line_up` returns.
pub(crate) fn repeat(
    store: &mut dyn Store,
    order: &Order,
    line_up: impl FnOnce() -> Result<()>,
) -> Result<Told> {
    let mut random = fastrand::Rng::with_seed(order.seed);
    let mut act = |reads: bool| -> Result<()> {
        let key = random.u32(1..=order.records);
        match reads {
            true => store.read(key).map(drop),
            false => store.write(&[key], random.u8(..)),
        }
    };
    let reads = matches!(order.role, Role::Read | Role::Reads(_));
    let first = act(reads);
    // Also if it has failed: others wait for this one.
    line_up()?;
    first?;
    let limit = match order.role {
        Role::Reads(count) | Role::Writes(count) => u64::from(count),
        _ => u64::MAX,
    };
    let (mut count, mut taken) = (0_u64, Vec::new());
    let started = Instant::now();
    // A look at the clock costs a fifth of the shortest read.
    let batch = if reads { 64 } else { 1 };
    while count < limit && started.elapsed() < order.duration {
        let before = Instant::now();
        for _ in 0..batch {
            act(reads)?;
        }
        count += batch;
        if !reads {
            taken.push(before.elapsed());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let sample = of_latencies(taken, 1000);
    Ok(Told {
        count,
        seconds,
        tail: sample.tail.unwrap_or(0.0),
        worst: sample.worst.unwrap_or(0.0),
        seen: Vec::new(),
    })
}

fn wait(order: &Order) -> Result<Told> {
    let database = wal::Options::new()
        .kind(wal::DatabaseKind::RawPages)
        .open_shm(order.directory.join("wal"))?;
    let mut snapshot = *database.begin_read()?.snapshot();
    line_up()?;
    let mut seen = Vec::new();
    let started = Instant::now();
    while started.elapsed() < order.duration {
        if database.wait_for_change(&snapshot, Duration::from_millis(100))? {
            seen.push(now()?);
            snapshot = *database.begin_read()?.snapshot();
        }
    }
    Ok(Told {
        seen,
        ..Told::default()
    })
}

/// The clock that all processes share.
pub(crate) fn now() -> Result<u64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let nanos = Duration::from(time).as_nanos();
    u64::try_from(nanos).context("the clock is too far")
}
