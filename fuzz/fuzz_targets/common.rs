//! A database in memory, and everything that can be done with it.

use std::sync::Arc;
use std::time::Duration;

use wal_core::PageNo;
use wal_core::storage::{File, MemoryFile, Storage};
use wal_core::protocol::{CheckpointMode, Wal, WalConfig};
use wal_inproc::InProcessWalCoordination;

/// Two files in memory.
#[derive(Debug)]
pub struct Files {
    pub database: MemoryFile,
    pub log: MemoryFile,
}

impl Files {
    pub fn new(database: Vec<u8>, log: Vec<u8>) -> Arc<Self> {
        Arc::new(Files {
            database: MemoryFile::new("fuzzed", database),
            log: MemoryFile::new("fuzzed-wal", log),
        })
    }
}

#[derive(Debug)]
struct Shared(Arc<Files>);

impl Storage for Shared {
    fn database(&self) -> &dyn File {
        &self.0.database
    }

    fn log(&self) -> &dyn File {
        &self.0.log
    }

    fn remove_log(&self) -> wal_core::Result<()> {
        self.0.log.set_len(0)
    }
}

pub type Handle = Arc<Wal<InProcessWalCoordination>>;

pub fn open(files: &Arc<Files>, config: WalConfig) -> Handle {
    let coordination = InProcessWalCoordination::in_memory("fuzzed".as_ref());
    Wal::new(coordination, Box::new(Shared(files.clone())), config)
}

/// Reads, writes and checkpoints; each may be refused.
#[allow(dead_code)]
pub fn use_it(wal: &Handle) {
    if let Ok(read) = wal.begin_read() {
        let last = read.page_count();
        for number in (1..=last.min(40)).chain(last.saturating_sub(3)..=last.saturating_add(1)) {
            let _ = PageNo::new(number).and_then(|page| read.page(page).map(drop));
        }
    }
    if let Ok(mut tail) = wal.tail() {
        let _ = tail.advance().map(|frames| frames.take(40).count());
    }
    if let Ok(mut write) = wal.begin_write(Duration::ZERO) {
        let written = write.page_mut(PageNo::ONE).map(|page| page[100] ^= 1);
        let _ = written.and_then(|()| write.commit());
    }
    for mode in [CheckpointMode::Passive, CheckpointMode::Truncate] {
        let _ = wal.checkpoint(mode);
    }
    let _ = wal.begin_read().map(drop);
}
