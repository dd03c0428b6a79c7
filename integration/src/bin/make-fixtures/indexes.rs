//! Fixtures that come with a `-shm` file, because it is their point.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration::fixtures::facts::{FixtureFacts, RowFacts};
use integration::fixtures::{DATABASE, INDEX};
use rusqlite::Connection;

use crate::catalogue::read_log;
use crate::facts::integer;
use crate::files::copy_files;
use crate::index::salts;
use crate::stock::Stock;

pub(crate) fn write_live(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::wal(1024)?;
    stock.add_items(0..100)?;
    let reader = Connection::open(stock.folder().join(DATABASE))?;
    reader.execute_batch("BEGIN; SELECT count(*) FROM item;")?;
    stock.add_document(0, 3000)?;
    stock.change_items(10)?;
    integer(&stock.connection, "PRAGMA wal_checkpoint(PASSIVE)", 2)?;
    stock.copy_to(folder)?;
    copy_files(stock.folder(), folder, &[INDEX])?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_live(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = facts.log.as_ref().context("no log")?;
    let index = facts.index.as_ref().context("no wal-index")?;
    ensure!(
        salts_of_index(folder)? == read_log(folder)?.salts,
        "an index of another generation"
    );
    ensure!(
        usize::try_from(index.max_frame)? == log.frames_committed,
        "{index:?}"
    );
    ensure!(
        usize::try_from(index.page_count)? == facts.page_count,
        "{index:?}"
    );
    ensure!(
        0 < index.backfilled && index.backfilled < index.max_frame,
        "{index:?}"
    );
    ensure!(
        index.read_marks[1..].contains(&index.backfilled),
        "no reader's mark: {index:?}"
    );
    Ok(())
}

pub(crate) fn write_stale(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::wal(1024)?;
    stock.add_items(0..100)?;
    copy_files(stock.folder(), folder, &[INDEX])?;
    stock.checkpoint("PASSIVE")?;
    stock.add_documents(0..4, 4000)?;
    stock.change_items(10)?;
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_stale(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = facts.log.as_ref().context("no log")?;
    let index = facts.index.as_ref().context("no wal-index")?;
    ensure!(
        salts_of_index(folder)? != read_log(folder)?.salts,
        "an index of the log's own generation"
    );
    ensure!(
        usize::try_from(index.max_frame)? < log.frames_committed,
        "{index:?}"
    );
    Ok(())
}

fn salts_of_index(folder: &Path) -> Result<[u32; 2]> {
    salts(&fs::read(folder.join(INDEX))?)
}
