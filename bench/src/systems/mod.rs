//! The systems that are compared, behind one trait: records of [`LEN`] bytes
//! under the numbers 1 to *n*, each of which fills a page.

mod lmdb;
mod redb;
mod sqlite;
mod wal;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The length of a record: as much as fits on a page of SQLite's B-tree beside
/// its own bookkeeping.
pub(crate) const LEN: usize = 4000;

/// A system and, for this library, its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// This library, between processes.
    Shm,
    /// The same, where commits share their syncs.
    ShmGroup,
    /// This library, in one process.
    Inproc,
    /// SQLite with `pread`.
    Sqlite,
    /// SQLite with `mmap_size`.
    SqliteMmap,
    /// LMDB.
    Lmdb,
    /// redb.
    Redb,
    /// What the machine gives.
    Limit,
}

impl System {
    /// The name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Shm | System::ShmGroup | System::Inproc => "wal",
            System::Sqlite => "sqlite",
            System::SqliteMmap => "sqlite-mmap",
            System::Lmdb => "lmdb",
            System::Redb => "redb",
            System::Limit => "limit",
        }
    }

    /// The backend in the report.
    pub(crate) fn backend(self) -> Option<&'static str> {
        match self {
            System::Shm => Some("shm"),
            System::ShmGroup => Some("shm, group commit"),
            System::Inproc => Some("inproc"),
            _ => None,
        }
    }
}

/// What survives a power failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Durability {
    /// Nothing is torn, and the last commits may be gone. SQLite's NORMAL; LMDB
    /// without a sync, which is less; redb without.
    Normal,
    /// Every commit.
    Full,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What survives a power failure.
    pub(crate) durability: Durability,
    /// Whether the log is checkpointed every 1000 frames, as SQLite does.
    pub(crate) auto_checkpoint: bool,
    /// The page size of what has one.
    pub(crate) page_size: u32,
    /// `Options::read_lock_delay` of this library; its default if that is `None`.
    pub(crate) read_lock_delay: Option<Duration>,
}

impl Settings {
    /// Pages of 4096 bytes.
    pub(crate) fn new(durability: Durability, auto_checkpoint: bool) -> Self {
        Settings {
            durability,
            auto_checkpoint,
            page_size: 4096,
            read_lock_delay: None,
        }
    }

    /// The length of a record.
    pub(crate) fn record(&self) -> usize {
        LEN * self.page_size as usize / 4096
    }
}

/// An open store, for one thread at a time.
pub(crate) trait Store: Send {
    /// The same for another thread of this process, as a program would do it.
    fn another(&self) -> Result<Box<dyn Store>>;

    /// A read transaction for one record.
    fn read(&mut self, key: u32) -> Result<u64>;

    /// A read transaction for many records.
    fn read_many(&mut self, keys: &[u32]) -> Result<u64>;

    /// A write transaction that fills these records with `value`, and makes
    /// those that are not there.
    fn write(&mut self, keys: &[u32], value: u8) -> Result<()>;

    /// Moves the log to the database, if there is one.
    fn checkpoint(&mut self) -> Result<()>;
}

/// Opens the store of `system` in `directory`.
pub(crate) fn open(system: System, directory: &Path, settings: Settings) -> Result<Box<dyn Store>> {
    Ok(match system {
        System::Shm => Box::new(wal::shm(directory, settings, false)?),
        System::ShmGroup => Box::new(wal::shm(directory, settings, true)?),
        System::Inproc => Box::new(wal::inproc(directory, settings)?),
        System::Sqlite => Box::new(sqlite::Sqlite::open(directory, settings, false)?),
        System::SqliteMmap => Box::new(sqlite::Sqlite::open(directory, settings, true)?),
        System::Lmdb => Box::new(lmdb::Lmdb::open(directory, settings)?),
        System::Redb => Box::new(redb::Redb::open(directory, settings)?),
        System::Limit => anyhow::bail!("the machine is no store"),
    })
}

/// Makes the records 1 to `records`, in the database and not in its log.
pub(crate) fn fill(store: &mut dyn Store, records: u32) -> Result<()> {
    let all: Vec<u32> = (1..=records).collect();
    for keys in all.chunks(1000) {
        store.write(keys, 1)?;
    }
    store.checkpoint()
}
