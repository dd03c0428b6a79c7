//! Fixtures without a log: databases that keep a rollback journal.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use integration::fixtures::facts::{FixtureFacts, RowFacts};
use integration::fixtures::{DATABASE, JOURNAL, file_digests};

use crate::facts::recover;
use crate::files::copy_files;
use crate::stock::Stock;

const PAGE_SIZE: usize = 1024;

/// The bytes that open every segment of a rollback journal.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

fn committed() -> Result<Stock> {
    let stock = Stock::rollback(PAGE_SIZE)?;
    stock.add_items(0..200)?;
    stock.add_documents(0..3, 4000)?;
    Ok(stock)
}

pub(crate) fn write_rollback_mode(folder: &Path) -> Result<RowFacts> {
    let stock = committed()?;
    let rows = RowFacts::query(&stock.connection)?;
    let live = stock.close()?;
    copy_files(live.path(), folder, &[DATABASE])?;
    Ok(rows)
}

pub(crate) fn check_rollback_mode(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    ensure!(
        facts.journal_mode == "delete",
        "journal mode {}",
        facts.journal_mode
    );
    let database = fs::read(folder.join(DATABASE))?;
    ensure!(
        database[18..20] == [1, 1],
        "format versions {:?}",
        &database[18..20]
    );
    Ok(())
}

pub(crate) fn write_hot_journal(folder: &Path) -> Result<RowFacts> {
    let stock = committed()?;
    let rows = RowFacts::query(&stock.connection)?;
    let before = file_digests(&stock.folder().join(DATABASE), PAGE_SIZE)?;
    stock.begin_spilling()?;
    stock.change_items(1)?;
    stock.add_documents(3..6, 6000)?;
    copy_files(stock.folder(), folder, &[DATABASE, JOURNAL])?;
    stock.run("ROLLBACK")?;

    let spilled = file_digests(&folder.join(DATABASE), PAGE_SIZE)?;
    let changed = before
        .iter()
        .zip(&spilled)
        .filter(|(before, after)| before != after)
        .count();
    ensure!(changed > 0, "no page of the database file has changed");
    ensure!(
        spilled.len() > before.len(),
        "the database file has not grown"
    );
    ensure!(
        recover(folder)?.pages == before,
        "rolling back gives other pages"
    );
    Ok(rows)
}

pub(crate) fn check_hot_journal(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let journal = fs::read(folder.join(JOURNAL))?;
    ensure!(
        journal.starts_with(&JOURNAL_MAGIC),
        "the journal has no header"
    );
    ensure!(
        facts.journal_mode == "delete",
        "journal mode {}",
        facts.journal_mode
    );
    Ok(())
}
