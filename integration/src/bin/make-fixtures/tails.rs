//! Fixtures of logs that do not end with their last commit, or hold none.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration::fixtures::LOG;
use integration::fixtures::facts::{FixtureFacts, LogFacts, RowFacts};

use crate::catalogue::read_log;
use crate::log::Log;
use crate::stock::Stock;

/// A committed database, half of it backfilled, that transactions can follow.
fn committed() -> Result<Stock> {
    let stock = Stock::wal(1024)?;
    stock.add_items(0..200)?;
    stock.checkpoint("TRUNCATE")?;
    stock.add_document(0, 3000)?;
    stock.change_items(20)?;
    Ok(stock)
}

pub(crate) fn write_uncommitted(folder: &Path) -> Result<RowFacts> {
    let stock = committed()?;
    let rows = RowFacts::query(&stock.connection)?;
    stock.begin_spilling()?;
    stock.add_documents(1..6, 6000)?;
    stock.copy_to(folder)?;
    stock.run("ROLLBACK")?;
    Ok(rows)
}

pub(crate) fn check_uncommitted(_: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = log_of(facts)?;
    ensure!(log.frames_committed > 0, "nothing is committed");
    ensure!(
        log.frames_valid >= log.frames_committed + 10,
        "{} sound frames, {} committed",
        log.frames_valid,
        log.frames_committed
    );
    Ok(())
}

pub(crate) fn write_rewritten(folder: &Path) -> Result<RowFacts> {
    let stock = committed()?;
    let rows = RowFacts::query(&stock.connection)?;
    stock.begin_spilling()?;
    stock.change_items(1)?;
    stock.add_documents(1..4, 6000)?;
    stock.change_items(1)?;
    stock.add_documents(4..6, 6000)?;
    stock.copy_to(folder)?;
    stock.run("ROLLBACK")?;
    Ok(rows)
}

pub(crate) fn check_rewritten(folder: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = read_log(folder)?;
    ensure!(log_of(facts)?.frames_committed > 0, "nothing is committed");
    // Once a page was rewritten in place, SQLite writes zeros for the salts and
    // checksum of the frames that follow, and computes them at the commit.
    let unfinished = log.frames[log.valid..]
        .iter()
        .filter(|frame| frame.salts == [0, 0]);
    ensure!(unfinished.count() > 0, "every frame has its salts");
    Ok(())
}

/// The log after a last commit of several frames, and the rows before it.
fn last_commit_of_several_frames(folder: &Path) -> Result<(Vec<u8>, Log, RowFacts)> {
    let stock = committed()?;
    let rows = RowFacts::query(&stock.connection)?;
    stock.add_document(1, 3000)?;
    stock.copy_to(folder)?;
    let bytes = fs::read(folder.join(LOG))?;
    let log = read_log(folder)?;
    let frames = log.committed() - log.committed_before_last();
    ensure!(frames >= 3, "{frames} frames in the last commit");
    Ok((bytes, log, rows))
}

pub(crate) fn write_torn(folder: &Path) -> Result<RowFacts> {
    let (bytes, log, rows) = last_commit_of_several_frames(folder)?;
    let end = log.offset_of(log.committed_before_last() + 2) + 500;
    fs::write(folder.join(LOG), &bytes[..end])?;
    Ok(rows)
}

pub(crate) fn check_torn(_: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = log_of(facts)?;
    ensure!(
        log.trailing_bytes == 500,
        "{} trailing bytes",
        log.trailing_bytes
    );
    ensure!(
        log.frames_beyond == 1,
        "{} frames beyond",
        log.frames_beyond
    );
    ensure!(
        log.frames_valid == log.frames_committed + 1,
        "the whole frame is not sound"
    );
    ensure!(log.frames_committed > 0, "nothing is committed");
    Ok(())
}

pub(crate) fn write_flipped(folder: &Path) -> Result<RowFacts> {
    let (mut bytes, log, rows) = last_commit_of_several_frames(folder)?;
    let byte = log.offset_of(log.committed_before_last() + 1) + 200;
    bytes[byte] ^= 1;
    fs::write(folder.join(LOG), bytes)?;
    Ok(rows)
}

pub(crate) fn check_flipped(_: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = log_of(facts)?;
    ensure!(
        log.frames_beyond >= 3,
        "{} frames beyond",
        log.frames_beyond
    );
    ensure!(
        log.frames_valid == log.frames_committed,
        "the damaged frame is sound"
    );
    ensure!(log.frames_committed > 0, "nothing is committed");
    Ok(())
}

pub(crate) fn write_no_commit(folder: &Path) -> Result<RowFacts> {
    let stock = committed()?;
    stock.checkpoint("TRUNCATE")?;
    let rows = RowFacts::query(&stock.connection)?;
    stock.begin_spilling()?;
    stock.add_documents(1..4, 6000)?;
    stock.copy_to(folder)?;
    stock.run("ROLLBACK")?;
    Ok(rows)
}

pub(crate) fn check_no_commit(_: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = log_of(facts)?;
    ensure!(
        log.frames_committed == 0,
        "{} committed frames",
        log.frames_committed
    );
    ensure!(log.frames_valid >= 5, "{} sound frames", log.frames_valid);
    ensure!(
        facts.database_bytes == facts.page_count * facts.page_size,
        "not the database file"
    );
    Ok(())
}

pub(crate) fn write_empty(folder: &Path) -> Result<RowFacts> {
    let stock = committed()?;
    stock.checkpoint("TRUNCATE")?;
    stock.copy_to(folder)?;
    RowFacts::query(&stock.connection)
}

pub(crate) fn check_empty(_: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = log_of(facts)?;
    ensure!(log.bytes == 0, "a log of {} bytes", log.bytes);
    ensure!(
        facts.journal_mode == "wal",
        "journal mode {}",
        facts.journal_mode
    );
    Ok(())
}

pub(crate) fn write_header_only(folder: &Path) -> Result<RowFacts> {
    let rows = write_no_commit(folder)?;
    let bytes = fs::read(folder.join(LOG))?;
    fs::write(folder.join(LOG), &bytes[..32])?;
    Ok(rows)
}

pub(crate) fn check_header_only(_: &Path, facts: &FixtureFacts) -> Result<()> {
    let log = log_of(facts)?;
    ensure!(
        log.bytes == 32 && log.checksum_order.is_some(),
        "a log of {} bytes",
        log.bytes
    );
    Ok(())
}

fn log_of(facts: &FixtureFacts) -> Result<&LogFacts> {
    facts.log.as_ref().context("no log")
}
