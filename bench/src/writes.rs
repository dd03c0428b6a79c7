//! W1 to W3, and S-tx: commits of one process.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::measure::{Bench, Scale, latencies, megabytes_a_second, nanos};
use crate::report::Sample;
use crate::systems::{self, Durability, Settings, Store, System};

/// How many records there are.
const RECORDS: u32 = 1000;

/// W1, W1c and W2.
pub(crate) fn single(
    system: System,
    directory: &Path,
    settings: Settings,
    (count, tail): (u32, usize),
) -> Result<Box<dyn Bench>> {
    let mut store = systems::open(system, directory, settings)?;
    systems::fill(&mut *store, RECORDS)?;
    let mut random = fastrand::Rng::with_seed(7);
    Ok(Box::new(move || {
        if !settings.auto_checkpoint {
            store.checkpoint()?;
        }
        latencies(count, tail, |_| {
            store.write(&[random.u32(1..=RECORDS)], random.u8(..))
        })
    }))
}

/// W3.
pub(crate) fn large(system: System, directory: &Path, scale: Scale) -> Result<Box<dyn Bench>> {
    let settings = Settings::new(Durability::Normal, false);
    let mut store = systems::open(system, directory, settings)?;
    systems::fill(&mut *store, RECORDS)?;
    let all: Vec<u32> = (1..=RECORDS).collect();
    let count = scale.choose(30, 10, 1);
    Ok(Box::new(move || {
        store.checkpoint()?;
        let time = timed(&mut *store, &all, count)?;
        Ok(megabytes_a_second(
            u64::from(count) * u64::from(RECORDS) * 4096,
            time,
        ))
    }))
}

/// S-tx: per page.
pub(crate) fn of_pages(
    system: System,
    directory: &Path,
    scale: Scale,
    pages: u32,
) -> Result<Box<dyn Bench>> {
    let settings = Settings::new(Durability::Normal, false);
    let mut store = systems::open(system, directory, settings)?;
    systems::fill(&mut *store, pages.max(RECORDS))?;
    let all: Vec<u32> = (1..=pages).collect();
    let count = (scale.choose(20_000, 5_000, 100_u32) / pages).max(1);
    Ok(Box::new(move || {
        store.checkpoint()?;
        let time = timed(&mut *store, &all, count)?;
        Ok(Sample {
            value: nanos(time) / 1000.0 / f64::from(count) / f64::from(pages),
            ..Sample::default()
        })
    }))
}

fn timed(store: &mut dyn Store, keys: &[u32], count: u32) -> Result<std::time::Duration> {
    let started = Instant::now();
    for turn in 0..count {
        store.write(keys, turn.to_le_bytes()[0])?;
    }
    Ok(started.elapsed())
}
