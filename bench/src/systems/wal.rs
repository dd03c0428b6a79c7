//! This library: a record is a page of a page store, at its number.

use std::path::Path;

use anyhow::Result;
use wal::generic::Database;
use wal::{Backend, CheckpointMode, DatabaseKind, Options, PageNo, PageSize, Synchronous};

use super::{Durability, Settings, Store};

pub(crate) struct Wal<B: Backend> {
    database: Database<B>,
    record: usize,
}

pub(crate) fn options(settings: Settings) -> Result<Options> {
    let mut options = Options::new().kind(DatabaseKind::RawPages);
    if let Some(delay) = settings.read_lock_delay {
        options = options.read_lock_delay(delay);
    }
    Ok(options
        .page_size(PageSize::new(settings.page_size)?)
        .busy_timeout(std::time::Duration::from_secs(30))
        .synchronous(match settings.durability {
            Durability::Normal => Synchronous::Normal,
            Durability::Full => Synchronous::Full,
        })
        .auto_checkpoint(if settings.auto_checkpoint { 1000 } else { 0 }))
}

pub(crate) fn shm(
    directory: &Path,
    settings: Settings,
    group_commit: bool,
) -> Result<Wal<impl Backend + use<>>> {
    let options = options(settings)?.group_commit(group_commit);
    let database = options.open_shm(directory.join("wal"))?;
    let record = settings.record();
    Ok(Wal { database, record })
}

pub(crate) fn inproc(directory: &Path, settings: Settings) -> Result<Wal<impl Backend + use<>>> {
    let database = options(settings)?.open_inproc(directory.join("wal-inproc"))?;
    let record = settings.record();
    Ok(Wal { database, record })
}

impl<B: Backend> Store for Wal<B> {
    /// Threads share the handle.
    fn another(&self) -> Result<Box<dyn Store>> {
        Ok(Box::new(Wal {
            database: self.database.clone(),
            record: self.record,
        }))
    }

    fn read(&mut self, key: u32) -> Result<u64> {
        let read = self.database.begin_read()?;
        let page = read.page(PageNo::new(key)?)?;
        Ok(u64::from(page[self.record / 2]))
    }

    fn read_many(&mut self, keys: &[u32]) -> Result<u64> {
        let read = self.database.begin_read()?;
        let mut sum = 0;
        for &key in keys {
            sum += u64::from(read.page(PageNo::new(key)?)?[self.record / 2]);
        }
        Ok(sum)
    }

    fn write(&mut self, keys: &[u32], value: u8) -> Result<()> {
        let mut write = self.database.begin_write()?;
        for &key in keys {
            if key > write.page_count() {
                write.set_page_count(key)?;
            }
            write.page_mut(PageNo::new(key)?)?[..self.record].fill(value);
        }
        write.commit()?;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.database.checkpoint(CheckpointMode::Passive)?;
        Ok(())
    }
}
