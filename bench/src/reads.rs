//! R1 to R3, and S-db: reads of one process.

use std::path::Path;

use anyhow::Result;

use crate::measure::{Bench, Scale, mean};
use crate::systems::{self, Durability, Settings, System};

/// How many records there are.
const RECORDS: u32 = 10_000;

fn settings() -> Settings {
    Settings::new(Durability::Normal, false)
}

/// R1.
pub(crate) fn single(system: System, directory: &Path, scale: Scale) -> Result<Box<dyn Bench>> {
    let mut store = systems::open(system, directory, settings())?;
    systems::fill(&mut *store, 1000)?;
    let count = scale.count(200_000);
    Ok(Box::new(move || {
        mean(count, |turn| store.read(1 + turn % 1000).map(drop))
    }))
}

/// R2: of the database file, or of the log.
pub(crate) fn many(
    system: System,
    directory: &Path,
    scale: Scale,
    in_log: bool,
) -> Result<Box<dyn Bench>> {
    let mut store = systems::open(system, directory, settings())?;
    systems::fill(&mut *store, RECORDS)?;
    if in_log {
        let all: Vec<u32> = (1..=RECORDS).collect();
        store.write(&all, 2)?;
    }
    let mut random = fastrand::Rng::with_seed(7);
    let keys: Vec<u32> = (0..scale.count(200_000))
        .map(|_| random.u32(1..=RECORDS))
        .collect();
    Ok(Box::new(move || per_key(&mut *store, &keys)))
}

fn per_key(store: &mut dyn systems::Store, keys: &[u32]) -> Result<crate::report::Sample> {
    let mut sample = mean(1, |_| store.read_many(keys).map(drop))?;
    #[allow(clippy::cast_precision_loss)] // Far below what a number can tell.
    let count = keys.len() as f64;
    sample.value /= count;
    Ok(sample)
}

/// R3: the pages that are read are not in the log, which holds other ones.
pub(crate) fn beside_the_log(
    system: System,
    directory: &Path,
    scale: Scale,
    frames: u32,
) -> Result<Box<dyn Bench>> {
    // Small pages, so that a million frames find room.
    let settings = Settings {
        page_size: 512,
        ..settings()
    };
    let mut store = systems::open(system, directory, settings)?;
    systems::fill(&mut *store, 2000)?;
    let others: Vec<u32> = (1001..=2000).collect();
    for _ in 0..frames / 1000 {
        store.write(&others, 2)?;
    }
    // The system is not to write a large log back while look-ups are timed.
    for file in std::fs::read_dir(directory)? {
        std::fs::File::open(file?.path())?.sync_all()?;
    }
    let mut random = fastrand::Rng::with_seed(7);
    let keys: Vec<u32> = (0..scale.count(100_000))
        .map(|_| random.u32(1..=1000))
        .collect();
    Ok(Box::new(move || per_key(&mut *store, &keys)))
}

/// S-db: a database of `bytes`, in which hardly anything was ever written.
pub(crate) fn sparse(directory: &Path, scale: Scale, bytes: u64) -> Result<Box<dyn Bench>> {
    let file = std::fs::File::create(directory.join("wal"))?;
    file.set_len(bytes)?;
    let mut store = systems::open(System::Shm, directory, settings())?;
    let pages = u32::try_from(bytes / 4096)?;
    store.write(&[1, pages], 1)?;
    store.checkpoint()?;
    let mut random = fastrand::Rng::with_seed(7);
    let count = scale.count(200_000);
    // The same thousand pages: what is measured is ours, not page faults.
    let keys: Vec<u32> = (0..1000).map(|_| random.u32(1..=pages)).collect();
    Ok(Box::new(move || {
        mean(count, |turn| {
            store.read(keys[turn as usize % keys.len()]).map(drop)
        })
    }))
}
