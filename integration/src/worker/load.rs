//! Writers, readers and checkpointers that run by themselves for a while.
//!
//! # Protocol
//! All writers share one sequence: a write transaction reads the sequence that
//! is on the pages, adds one, and stamps every page with it. So at any time
//! all pages carry the same stamp, no reader ever sees the sequence go back,
//! and at the end it is the number of all acknowledged commits together.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use wal::generic::{Database, WriteTx};
use wal::{CheckpointMode, Error, PageNo};

use super::Stamp;

/// What to run, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// As what.
    pub role: Role,
    /// The pages that all writers stamp.
    pub pages: Range<u32>,
    /// What the choices of the run come from.
    pub seed: u64,
    /// For how long.
    pub duration: Duration,
    /// How many threads of the process play the same part.
    pub threads: u64,
}

/// The part that a process or thread plays in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Stamps all pages again and again, and sometimes rolls back.
    Writer {
        /// The writer on its stamps.
        id: u64,
    },
    /// The same without a pause and without a rollback.
    BusyWriter {
        /// The writer on its stamps.
        id: u64,
    },
    /// Looks at all pages again and again.
    Reader,
    /// Checkpoints again and again.
    Checkpointer,
}

/// What came of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The acknowledged commits, the snapshots seen, or the checkpoints done.
    pub rounds: u64,
    /// The last sequence that was written or seen.
    pub last_sequence: u64,
}

/// Runs `load` on `database`, on all its threads.
///
/// # Errors
///
/// When a page is torn, pages of one snapshot are from different commits, the
/// sequence goes back, or the library fails.
pub fn run_load<B: wal::Backend>(database: &Database<B>, load: &Load) -> Result<LoadReport> {
    let reports: Result<Vec<LoadReport>> = thread::scope(|scope| {
        let start = |number| scope.spawn(move || run_on_one(database, load, load.seed + number));
        let threads: Vec<_> = (0..load.threads).map(start).collect();
        let end = |thread: thread::ScopedJoinHandle<'_, _>| {
            let joined = thread.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(end).collect()
    });
    let both = |sum: LoadReport, report: LoadReport| LoadReport {
        rounds: sum.rounds + report.rounds,
        last_sequence: sum.last_sequence.max(report.last_sequence),
    };
    Ok(reports?.into_iter().fold(LoadReport::default(), both))
}

fn run_on_one<B: wal::Backend>(
    database: &Database<B>,
    load: &Load,
    seed: u64,
) -> Result<LoadReport> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut report = LoadReport::default();
    let end = Instant::now() + load.duration;
    while Instant::now() < end {
        let seen = report.last_sequence;
        match load.role {
            Role::Writer { id } => {
                let roll_back = rng.u8(..8) == 0;
                let written = write_once(database, load, id, roll_back, &mut report);
                pause(&mut rng);
                written
            }
            Role::BusyWriter { id } => write_once(database, load, id, false, &mut report),
            Role::Reader => read_once(database, load, &mut rng, &mut report),
            Role::Checkpointer => checkpoint_once(database, &mut report),
        }
        .with_context(|| format!("{:?} with seed {seed}, after {report:?}", load.role))?;
        ensure!(
            report.last_sequence >= seen,
            "{:?} with seed {seed}: the sequence went back from {seen} to {}",
            load.role,
            report.last_sequence
        );
    }
    Ok(report)
}

fn write_once<B: wal::Backend>(
    database: &Database<B>,
    load: &Load,
    id: u64,
    roll_back: bool,
    report: &mut LoadReport,
) -> Result<()> {
    let mut write = database.begin_write()?;
    let before = sequence_of(&load.pages, |page| {
        Stamp::read(page, &write.page(PageNo::new(page)?)?)
    })?;
    let stamp = Stamp {
        writer: id,
        sequence: before + 1,
    };
    stamp_pages(&mut write, &load.pages, stamp)?;
    if roll_back {
        write.rollback();
        report.last_sequence = before;
    } else {
        write.commit()?;
        report.rounds += 1;
        report.last_sequence = stamp.sequence;
    }
    Ok(())
}

fn stamp_pages<B: wal::Backend>(
    write: &mut WriteTx<B>,
    pages: &Range<u32>,
    stamp: Stamp,
) -> Result<()> {
    for page in pages.clone() {
        stamp.write(page, write.page_mut(PageNo::new(page)?)?);
    }
    Ok(())
}

/// Looks at the pages twice: within a snapshot nothing changes.
fn read_once<B: wal::Backend>(
    database: &Database<B>,
    load: &Load,
    rng: &mut fastrand::Rng,
    report: &mut LoadReport,
) -> Result<()> {
    let read = database.begin_read()?;
    let look = || {
        sequence_of(&load.pages, |page| {
            Stamp::read(page, &read.page(PageNo::new(page)?)?)
        })
    };
    let first = look()?;
    pause(rng);
    let second = look()?;
    ensure!(
        first == second,
        "a snapshot changed from sequence {first} to {second}"
    );
    drop(read);
    pause(rng);
    report.rounds += 1;
    report.last_sequence = first;
    Ok(())
}

fn checkpoint_once<B: wal::Backend>(database: &Database<B>, report: &mut LoadReport) -> Result<()> {
    match database.checkpoint(CheckpointMode::Passive) {
        Ok(_) => report.rounds += 1,
        // A restarting writer holds Checkpoint for a moment.
        Err(Error::Busy { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    thread::sleep(Duration::from_millis(1));
    Ok(())
}

/// The sequence that all pages carry.
fn sequence_of(pages: &Range<u32>, stamp_of: impl Fn(u32) -> Result<Option<Stamp>>) -> Result<u64> {
    let first = stamp_of(pages.start)?;
    for page in pages.clone().skip(1) {
        let stamp = stamp_of(page)?;
        ensure!(
            stamp == first,
            "pages of different commits: {} has {first:?}, {page} has {stamp:?}",
            pages.start
        );
    }
    Ok(first.map_or(0, |stamp| stamp.sequence))
}

/// Lets others come between, now and then for long enough that nobody reads
/// the log and it can be restarted.
fn pause(rng: &mut fastrand::Rng) {
    match rng.u8(..16) {
        0..=7 => {}
        8..=13 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(rng.u64(..2000))),
    }
}
