//! C1 and C2: checkpoints and recovery.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use rusqlite::Connection;

use crate::measure::{Bench, Scale, megabytes_a_second};
use crate::systems::{self, Durability, Settings, System};

/// C1. Without syncs by SQLite's OFF, and ours.
pub(crate) fn checkpoint(
    system: System,
    directory: &Path,
    scale: Scale,
    synced: bool,
) -> Result<Box<dyn Bench>> {
    let pages = scale.choose(100_000, 25_000, 500);
    let all: Vec<u32> = (1..=pages).collect();
    let directory = directory.to_owned();
    let mut value = 0_u8;
    Ok(Box::new(move || {
        // Filled without syncs, so that the disk is as idle for the one as for
        // the other.
        let mut store =
            systems::open(system, &directory, Settings::new(Durability::Normal, false))?;
        value = value.wrapping_add(1);
        for keys in all.chunks(1000) {
            store.write(keys, value)?;
        }
        let mut checkpointer = Checkpointer::open(system, &directory, synced)?;
        let started = Instant::now();
        checkpointer.run()?;
        Ok(megabytes_a_second(
            u64::from(pages) * 4096,
            started.elapsed(),
        ))
    }))
}

/// A connection at the level that the row asks for.
enum Checkpointer {
    Ours(wal::shm::Database),
    Sqlite(Connection),
}

impl Checkpointer {
    fn open(system: System, directory: &Path, synced: bool) -> Result<Self> {
        if system == System::Sqlite {
            let connection = Connection::open(directory.join("sqlite"))?;
            let level = if synced { "NORMAL" } else { "OFF" };
            connection.execute_batch(&format!(
                "PRAGMA synchronous={level}; SELECT count(*) FROM sqlite_schema"
            ))?;
            return Ok(Checkpointer::Sqlite(connection));
        }
        let level = if synced {
            wal::Synchronous::Normal
        } else {
            wal::Synchronous::Off
        };
        let options = wal::Options::new()
            .kind(wal::DatabaseKind::RawPages)
            .auto_checkpoint(0)
            .synchronous(level);
        Ok(Checkpointer::Ours(options.open_shm(directory.join("wal"))?))
    }

    fn run(&mut self) -> Result<()> {
        match self {
            Checkpointer::Ours(database) => {
                let report = database.checkpoint(wal::CheckpointMode::Passive)?;
                anyhow::ensure!(report.is_complete(), "{report:?}");
            }
            Checkpointer::Sqlite(connection) => {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            }
        }
        Ok(())
    }
}

/// C2: a log is copied while it is in use, and the copy opened.
pub(crate) fn recovery(
    system: System,
    directory: &Path,
    scale: Scale,
    frames: u32,
) -> Result<Box<dyn Bench>> {
    let frames = scale.choose(frames, frames / 10, 1000);
    let settings = Settings::new(Durability::Normal, false);
    let name = if system == System::Sqlite {
        "sqlite"
    } else {
        "wal"
    };
    let copy = directory.join("copy");
    {
        let mut store = systems::open(system, directory, settings)?;
        systems::fill(&mut *store, 1000)?;
        let all: Vec<u32> = (1..=1000).collect();
        for _ in 0..frames / 1000 {
            store.write(&all, 2)?;
        }
        std::fs::create_dir_all(&copy)?;
        for suffix in ["", "-wal"] {
            let file = format!("{name}{suffix}");
            std::fs::copy(directory.join(&file), copy.join(&file))?;
        }
    }
    let log = copy.join(format!("{name}-wal"));
    let bytes = std::fs::metadata(&log)?.len();
    Ok(Box::new(move || {
        let started = Instant::now();
        let mut store = systems::open(system, &copy, settings)?;
        store.read(1)?;
        let mut sample = megabytes_a_second(bytes, started.elapsed());
        sample.value /= 1000.0;
        // A close would move the log away.
        let kept = copy.join("kept");
        std::fs::rename(&log, &kept)?;
        drop(store);
        std::fs::rename(&kept, &log)?;
        let _ = std::fs::remove_file(copy.join(format!("{name}-shm")));
        Ok(sample)
    }))
}
