//! redb, in one process: a record is a value.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use redb::{Database, ReadableDatabase, TableDefinition};

use super::{Durability, Settings, Store};

const RECORDS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("t");

pub(crate) struct Redb {
    database: Arc<Database>,
    durability: redb::Durability,
    record: usize,
}

impl Redb {
    pub(crate) fn open(directory: &Path, settings: Settings) -> Result<Self> {
        Ok(Redb {
            database: Arc::new(Database::create(directory.join("redb"))?),
            durability: match settings.durability {
                Durability::Normal => redb::Durability::None,
                Durability::Full => redb::Durability::Immediate,
            },
            record: settings.record(),
        })
    }
}

impl Store for Redb {
    /// Threads share the database.
    fn another(&self) -> Result<Box<dyn Store>> {
        Ok(Box::new(Redb {
            database: self.database.clone(),
            ..*self
        }))
    }

    fn read(&mut self, key: u32) -> Result<u64> {
        self.read_many(&[key])
    }

    fn read_many(&mut self, keys: &[u32]) -> Result<u64> {
        let read = self.database.begin_read()?;
        let records = read.open_table(RECORDS)?;
        let mut sum = 0;
        for &key in keys {
            let record = records.get(key)?.context("no record")?;
            sum += u64::from(record.value()[self.record / 2]);
        }
        Ok(sum)
    }

    fn write(&mut self, keys: &[u32], value: u8) -> Result<()> {
        let record = vec![value; self.record];
        let mut write = self.database.begin_write()?;
        write.set_durability(self.durability)?;
        {
            let mut records = write.open_table(RECORDS)?;
            for &key in keys {
                records.insert(key, &*record)?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
}
