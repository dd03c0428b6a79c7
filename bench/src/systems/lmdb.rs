//! LMDB: a record is a value on a page of its own.
#![allow(unsafe_code)] // Opening an environment is: the file must not be changed by others.

use std::path::Path;

use anyhow::{Context, Result};
use heed::byteorder::BigEndian;
use heed::types::{Bytes, U32};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::{Durability, Settings, Store};

/// Room for the largest database here; nothing is written for it.
const MAP: usize = 64 << 30;

pub(crate) struct Lmdb {
    environment: Env,
    records: Database<'static, U32<BigEndian>, Bytes>,
    record: usize,
}

impl Lmdb {
    pub(crate) fn open(directory: &Path, settings: Settings) -> Result<Self> {
        let path = directory.join("lmdb");
        std::fs::create_dir_all(&path)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP).max_readers(200);
        if settings.durability == Durability::Normal {
            // SAFETY: the power does not fail in a benchmark.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the files are in a directory of this run alone.
        let environment = unsafe { options.open(path)? };
        let write = environment.write_txn()?;
        let created = environment.create_databases_and_commit(write, |opener, write| {
            let made = opener.create_database(write, None);
            made.map(CommitOrAbort::<_, ()>::Commit)
        });
        let records = created?.unwrap_commit();
        Ok(Lmdb {
            environment,
            records,
            record: settings.record(),
        })
    }
}

fn middle(record: &[u8]) -> u64 {
    u64::from(record[record.len() / 2])
}

impl Store for Lmdb {
    /// Threads share the environment.
    fn another(&self) -> Result<Box<dyn Store>> {
        Ok(Box::new(Lmdb {
            environment: self.environment.clone(),
            ..*self
        }))
    }

    fn read(&mut self, key: u32) -> Result<u64> {
        self.read_many(&[key])
    }

    fn read_many(&mut self, keys: &[u32]) -> Result<u64> {
        let read = self.environment.read_txn()?;
        let mut sum = 0;
        for key in keys {
            sum += middle(self.records.get(&read, key)?.context("no record")?);
        }
        Ok(sum)
    }

    fn write(&mut self, keys: &[u32], value: u8) -> Result<()> {
        let record = vec![value; self.record];
        let mut write = self.environment.write_txn()?;
        for key in keys {
            self.records.put(&mut write, key, &record)?;
        }
        write.commit()?;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        Ok(())
    }
}
