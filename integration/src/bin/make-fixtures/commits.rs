//! Fixtures of committed transactions: page sizes, generations, sizes of the
//! database, forms that a commit takes in the log.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration::fixtures::facts::{FixtureFacts, RowFacts};
use integration::fixtures::{DATABASE, LOG};

use crate::catalogue::read_log;
use crate::facts::recover;
use crate::files::copy_files;
use crate::log::{Log, transcode};
use crate::stock::Stock;

/// Items and documents over a few commits, all of it still in the log.
pub(crate) fn write_pages(folder: &Path, page_size: usize) -> Result<RowFacts> {
    let stock = Stock::wal(page_size)?;
    let document = page_size * 5 / 2;
    stock.add_items(0..200)?;
    stock.add_documents(0..3, document)?;
    stock.change_items(3)?;
    stock.run("BEGIN")?;
    stock.add_items(200..240)?;
    stock.run(
        "DELETE FROM document WHERE id = 1; UPDATE item SET name = name || '!' WHERE id < 9",
    )?;
    stock.run("COMMIT")?;
    stock.add_document(7, document)?;
    stock.change_items(40)?;
    ensure!(
        stock.overflow_pages()? >= 3,
        "no documents with overflow pages"
    );
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

/// As [`write_pages`], with as few pages as the same things take.
pub(crate) fn write_largest_pages(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::without_tables(65536)?;
    stock.run("BEGIN")?;
    stock.create_tables()?;
    stock.add_items(0..100)?;
    stock.add_document(0, 70_000)?;
    stock.run("COMMIT")?;
    stock.change_items(3)?;
    stock.change_items(40)?;
    ensure!(
        stock.overflow_pages()? == 1,
        "no document with an overflow page"
    );
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_pages(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = read_log(folder)?;
    let mut versions = BTreeMap::new();
    for frame in &log.frames {
        *versions.entry(frame.page_number).or_insert(0) += 1;
    }
    ensure!(
        versions.values().any(|count| *count >= 3),
        "no page is in three frames"
    );
    let log = facts.log.as_ref().context("no log")?;
    ensure!(log.commits.len() >= 3, "{} commits", log.commits.len());
    ensure!(log.frames_beyond == 0 && log.trailing_bytes == 0, "a tail");
    Ok(())
}

/// Three generations, each shorter than the one before.
pub(crate) fn write_generations(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::wal(1024)?;
    stock.add_items(0..200)?;
    stock.add_documents(0..4, 4000)?;
    stock.checkpoint("PASSIVE")?;
    stock.add_documents(4..6, 4000)?;
    stock.checkpoint("PASSIVE")?;
    stock.add_document(6, 2000)?;
    stock.change_items(50)?;
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_generations(folder: &Path, _: &FixtureFacts) -> Result<()> {
    let log = read_log(folder)?;
    let mut generations: Vec<_> = log.frames.iter().map(|frame| frame.salts).collect();
    generations.dedup();
    ensure!(
        generations.len() == 3,
        "{} generations in file order",
        generations.len()
    );
    ensure!(
        generations[0] == log.salts,
        "the first frame is not of this generation"
    );
    ensure!(log.valid == log.committed(), "uncommitted frames");
    Ok(())
}

/// Grows in the log, then gives most of it back in two commits.
pub(crate) fn write_shrunk(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::auto_vacuum(1024)?;
    stock.add_items(0..100)?;
    stock.add_documents(0..8, 4000)?;
    stock.checkpoint("TRUNCATE")?;
    stock.add_documents(8..10, 4000)?;
    stock.run("DELETE FROM document WHERE id BETWEEN 1 AND 4")?;
    stock.run("DELETE FROM document WHERE id >= 6")?;
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_shrunk(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = facts.log.as_ref().context("no log")?;
    let sizes: Vec<_> = log.commits.iter().map(|commit| commit.page_count).collect();
    ensure!(
        sizes
            .windows(3)
            .next_back()
            .is_some_and(|last| last[0] > last[1] && last[1] > last[2]),
        "database sizes {sizes:?}"
    );
    ensure!(
        facts.database_bytes > facts.page_count * facts.page_size,
        "a short database file"
    );
    let end = u32::try_from(facts.page_count)?;
    ensure!(
        read_log(folder)?
            .frames
            .iter()
            .any(|frame| frame.page_number > end),
        "no frame beyond the end of the database"
    );
    Ok(())
}

/// Spills twice, and undoes the second time.
pub(crate) fn write_spilled(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::wal(1024)?;
    stock.add_items(0..300)?;
    stock.checkpoint("TRUNCATE")?;
    let log_bytes = || Ok::<_, anyhow::Error>(fs::metadata(stock.folder().join(LOG))?.len());
    stock.begin_spilling()?;
    stock.add_documents(0..2, 8000)?;
    let at_savepoint = log_bytes()?;
    ensure!(at_savepoint > 0, "nothing spilled before the savepoint");
    stock.run("SAVEPOINT middle")?;
    stock.add_documents(2..5, 8000)?;
    stock.change_items(1)?;
    let before_undo = log_bytes()?;
    ensure!(
        before_undo > at_savepoint,
        "nothing spilled after the savepoint"
    );
    stock.run("ROLLBACK TO middle; RELEASE middle")?;
    stock.change_items(2)?;
    stock.change_items(1)?;
    stock.run("COMMIT")?;
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_spilled(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let commits = &facts.log.as_ref().context("no log")?.commits;
    ensure!(
        commits.len() == 1,
        "{} commits instead of the spilled one",
        commits.len()
    );
    let log = read_log(folder)?;
    ensure!(
        log.committed() == log.valid && log.committed() > 8,
        "{} frames",
        log.committed()
    );
    // The savepoint's rollback gave frames back without cutting the file.
    ensure!(
        log.frames.len() > log.committed(),
        "no leftovers of the savepoint"
    );
    Ok(())
}

/// Small commits, each padded.
pub(crate) fn write_padded(folder: &Path) -> Result<RowFacts> {
    let stock = Stock::padded(512)?;
    stock.add_items(0..20)?;
    stock.change_items(5)?;
    stock.change_items(3)?;
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_padded(folder: &Path, _: &FixtureFacts) -> Result<()> {
    let log = read_log(folder)?;
    let repeats = log
        .frames
        .windows(2)
        .filter(|pair| {
            pair[0].commit_size != 0
                && pair[0].commit_size == pair[1].commit_size
                && pair[0].page_number == pair[1].page_number
                && pair[0].page == pair[1].page
        })
        .count();
    ensure!(repeats >= 2, "{repeats} repeated commit frames");
    ensure!(log.committed() == log.frames.len(), "a tail");
    Ok(())
}

/// Needs the fixture `pages-4096` in the folder beside its own.
pub(crate) fn write_other_byte_order(folder: &Path) -> Result<RowFacts> {
    let original = folder.with_file_name("pages-4096");
    copy_files(&original, folder, &[DATABASE])?;
    let bytes = fs::read(original.join(LOG))?;
    let transcoded = transcode(&bytes)?;
    ensure!(
        transcode(&transcoded)? == bytes,
        "transcoding twice gives another log"
    );
    fs::write(folder.join(LOG), transcoded)?;
    Ok(recover(&original)?.rows)
}

pub(crate) fn check_other_byte_order(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let original = folder.with_file_name("pages-4096");
    let orders = [read_log(&original)?, read_log(folder)?].map(|log: Log| log.byte_order);
    ensure!(orders[0] != orders[1], "both logs are {:?}", orders[0]);
    ensure!(
        recover(&original)?.pages == facts.pages,
        "SQLite recovers other pages"
    );
    Ok(())
}
