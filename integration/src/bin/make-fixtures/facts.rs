//! What stock SQLite says about a fixture, written to `facts.json`.
//!
//! # Protocol
//!
//! The fixture is copied, and the copy is opened, recovered and checkpointed by
//! stock SQLite; the pages are digested from the database file that is left.
//! So a fact is never what the program that wrote the fixture meant, but what
//! SQLite made of it. The counts that SQLite does not tell (frames beyond the
//! last commit) come from `log.rs`, which must agree with SQLite on the last
//! commit.
//!
//! No fact depends on the salts, which are random: `facts.json` is the same at
//! every run, and a difference is news.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use integration::fixtures::facts::{CommitFacts, FixtureFacts, LogFacts, RowFacts};
use integration::fixtures::{DATABASE, INDEX, JOURNAL, LOG, copy_folder, file_digests};
use rusqlite::Connection;

use crate::index;
use crate::log::Log;

/// What stock SQLite made of a folder's files.
pub(crate) struct Recovered {
    integrity_check: String,
    journal_mode: String,
    pub(crate) rows: RowFacts,
    page_size: usize,
    committed: usize,
    pub(crate) pages: Vec<String>,
}

/// Has stock SQLite recover and checkpoint a copy of `folder`.
pub(crate) fn recover(folder: &Path) -> Result<Recovered> {
    let scratch = tempfile::tempdir()?;
    copy_folder(folder, scratch.path())?;
    let database = scratch.path().join(DATABASE);
    let connection = Connection::open(&database)?;
    let integrity_check = text(&connection, "PRAGMA integrity_check")?;
    let journal_mode = text(&connection, "PRAGMA journal_mode")?;
    let rows = RowFacts::query(&connection)?;
    let page_size = usize::try_from(integer(&connection, "PRAGMA page_size", 0)?)?;
    let page_count = usize::try_from(integer(&connection, "PRAGMA page_count", 0)?)?;
    // Without a log, SQLite reports -1 frames.
    let committed = usize::try_from(integer(&connection, "PRAGMA wal_checkpoint", 1)?.max(0))?;
    let busy = integer(&connection, "PRAGMA wal_checkpoint(TRUNCATE)", 0)?;
    ensure!(busy == 0, "a checkpoint that nobody can hinder was busy");
    connection.close().map_err(|(_, error)| error)?;

    let pages = file_digests(&database, page_size)?;
    ensure!(
        pages.len() == page_count,
        "{} pages after the checkpoint, {page_count} before",
        pages.len()
    );
    Ok(Recovered {
        integrity_check,
        journal_mode,
        rows,
        page_size,
        committed,
        pages,
    })
}

/// The facts of the fixture in `folder`.
pub(crate) fn measure(name: &str, shows: &str, folder: &Path) -> Result<FixtureFacts> {
    let recovered = recover(folder)?;
    let log = optional_bytes(&folder.join(LOG))?
        .map(|bytes| log_facts(&bytes, recovered.committed))
        .transpose()?;
    let index = optional_bytes(&folder.join(INDEX))?
        .map(|bytes| index::parse(&bytes))
        .transpose()?;
    Ok(FixtureFacts {
        name: name.to_owned(),
        shows: shows.to_owned(),
        page_size: recovered.page_size,
        journal_mode: recovered.journal_mode,
        database_bytes: fs::read(folder.join(DATABASE))?.len(),
        journal_bytes: optional_bytes(&folder.join(JOURNAL))?.map(|bytes| bytes.len()),
        log,
        index,
        page_count: recovered.pages.len(),
        pages: recovered.pages,
        integrity_check: recovered.integrity_check,
        rows: recovered.rows,
    })
}

/// The first column of a statement's only row.
pub(crate) fn text(connection: &Connection, sql: &str) -> Result<String> {
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// One column of a statement's only row.
pub(crate) fn integer(connection: &Connection, sql: &str, column: usize) -> Result<i64> {
    Ok(connection.query_row(sql, [], |row| row.get(column))?)
}

fn log_facts(bytes: &[u8], committed: usize) -> Result<LogFacts> {
    let Some(log) = Log::parse(bytes)? else {
        ensure!(committed == 0, "{committed} frames in an empty log");
        return Ok(LogFacts {
            bytes: 0,
            checksum_order: None,
            frames_committed: 0,
            frames_valid: 0,
            frames_beyond: 0,
            trailing_bytes: 0,
            commits: Vec::new(),
        });
    };
    ensure!(
        log.committed() == committed,
        "the last commit is frame {} by its checksums, {committed} for SQLite",
        log.committed()
    );
    let commits = log.frames[..log.valid]
        .iter()
        .enumerate()
        .filter(|(_, frame)| frame.commit_size != 0)
        .map(|(index, frame)| CommitFacts {
            frame: index + 1,
            page_count: frame.commit_size,
        })
        .collect();
    Ok(LogFacts {
        bytes: bytes.len(),
        checksum_order: Some(log.byte_order.into()),
        frames_committed: committed,
        frames_valid: log.valid,
        frames_beyond: log.frames.len() - committed,
        trailing_bytes: log.trailing_bytes,
        commits,
    })
}

fn optional_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
