//! Whether what a power failure left keeps what was promised.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use rusqlite::Connection;
use tempfile::TempDir;
use wal_core::protocol::{CheckpointMode, DatabaseKind, ReadTx, Synchronous, Wal, WalConfig};
use wal_core::storage::beside;
use wal_core::{PageNo, WalCoordination};
use wal_inproc::InProcessWalCoordination;

use super::{Crash, Disk, History, Image};

/// A number in page 1 that SQLite does not use.
const USER_VERSION: Range<usize> = 60..64;

/// What was found.
#[derive(Debug)]
pub struct Verdict {
    /// The state.
    pub state: usize,
    /// When the power may have failed again meanwhile; the states that may be
    /// found then.
    pub crashes: Vec<Crash>,
}

/// Recovers `image` with this library, which must find a state from `floor` to
/// `ceiling`; commits the next one, checkpoints it, and finds it again.
///
/// # Errors
///
/// When another state is found, or a mixture, or the library refuses.
pub fn judge_by_ours(
    history: &History,
    image: &Image,
    floor: usize,
    ceiling: usize,
) -> Result<Verdict> {
    let disk = Disk::new(image, floor);
    let mut config = WalConfig::new(DatabaseKind::Sqlite, history.page_size);
    config.synchronous = Synchronous::Full;
    let coordination = InProcessWalCoordination::in_memory("recovered".as_ref());
    let wal = Wal::new(coordination, Box::new(disk.clone()), config);
    let state = find(history, &wal.begin_read()?, floor, ceiling)?;
    disk.acknowledge(state, true);
    if state < history.last() {
        disk.attempt(state + 1);
        commit_next(&wal, history, state)?;
        disk.acknowledge(state + 1, true);
    }
    let next = (state + 1).min(history.last());
    let report = wal.checkpoint(CheckpointMode::Truncate)?;
    ensure!(report.held_back_by.is_none(), "{report:?}");
    find(history, &wal.begin_read()?, next, next).context("after a checkpoint")?;
    wal.close()?;
    let mut crashes = disk.take_crashes();
    // What is found once is on the disk, and is found again.
    for crash in &mut crashes {
        crash.floor = crash.floor.max(state);
        crash.ceiling = crash.ceiling.max(state);
    }
    ensure!(
        is_state(history, next, history_pages(history, &disk.now())),
        "the database file alone is not state {next}"
    );
    Ok(Verdict { state, crashes })
}

fn history_pages<'i>(history: &History, image: &'i Image) -> Vec<&'i [u8]> {
    image.database.chunks(history.page_size.len()).collect()
}

fn commit_next(
    wal: &Arc<Wal<InProcessWalCoordination>>,
    history: &History,
    state: usize,
) -> Result<()> {
    let mut tx = wal.begin_write(Duration::ZERO)?;
    tx.set_page_count(history.page_count(state + 1))?;
    for (page, content) in history.changed(state, state + 1) {
        tx.page_mut(page)?.copy_from_slice(content);
    }
    // Another transaction than the one that may have been lost here: the same
    // frames once more would make those behind them a part of the log again.
    tx.page_mut(PageNo::ONE)?[USER_VERSION].copy_from_slice(b"MARK");
    tx.commit()?;
    Ok(())
}

/// The state that `read` sees.
fn find<C: WalCoordination>(
    history: &History,
    read: &ReadTx<C>,
    floor: usize,
    ceiling: usize,
) -> Result<usize> {
    let numbers = (1..=read.page_count()).map(PageNo::new);
    let pages: Vec<_> = numbers
        .map(|page| read.page(page?))
        .collect::<wal_core::Result<_>>()?;
    find_pages(history, &pages, floor, ceiling)
}

/// The state of which `pages` are the pages.
fn find_pages(
    history: &History,
    pages: &[impl std::ops::Deref<Target = [u8]>],
    floor: usize,
    ceiling: usize,
) -> Result<usize> {
    let found = |state: &usize| is_state(history, *state, pages.iter().map(|page| &**page));
    if let Some(state) = (floor..=ceiling).rev().find(found) {
        return Ok(state);
    }
    match (0..=history.last()).find(found) {
        Some(state) => bail!("found state {state}, promised was {floor} to {ceiling}"),
        None => bail!(
            "found {} pages of no single state, promised was {floor} to {ceiling}",
            pages.len()
        ),
    }
}

/// True if `pages` are those of state `state`. In page 1 the counters of
/// changes are ours, not the history's, and so is the user version.
fn is_state<'p>(
    history: &History,
    state: usize,
    pages: impl IntoIterator<Item = &'p [u8]>,
) -> bool {
    let counters =
        |at: usize| (24..28).contains(&at) || (92..100).contains(&at) || USER_VERSION.contains(&at);
    let same = |(number, (one, other)): (usize, (&[u8], &[u8]))| {
        let differs = |(at, (a, b)): (usize, (&u8, &u8))| a != b && !(number == 0 && counters(at));
        one.len() == other.len() && !one.iter().zip(other).enumerate().any(differs)
    };
    let pages: Vec<&[u8]> = pages.into_iter().collect();
    pages.len() == history.page_count(state) as usize
        && history.pages(state).zip(pages).enumerate().all(same)
}

/// Judges images in files, beside a `-shm` of which the power failure left
/// some pages as they were, some as they had been, and some as zeros.
#[derive(Debug)]
pub struct FileJudge {
    directory: TempDir,
    /// What indices of this database were like in earlier states.
    indices: Vec<Vec<u8>>,
}

impl FileJudge {
    /// A judge without a past.
    ///
    /// # Errors
    ///
    /// When there is no room for a directory.
    pub fn new() -> Result<Self> {
        Ok(FileJudge {
            directory: tempfile::tempdir()?,
            indices: Vec::new(),
        })
    }

    /// Lets ours recover `image`, and then stock SQLite, which must find a
    /// sound database. Both must find the state `expected`.
    ///
    /// # Errors
    ///
    /// When another state is found, or damage.
    pub fn judge(
        &mut self,
        history: &History,
        image: &Image,
        expected: usize,
        rng: &mut Rng,
    ) -> Result<()> {
        let path = self.write(image, rng)?;
        let ours = wal::Options::new().create(false).open_shm(&path)?;
        let read = ours.begin_read()?;
        let numbers = (1..=read.page_count()).map(PageNo::new);
        let pages: Vec<_> = numbers
            .map(|page| read.page(page?))
            .collect::<wal::Result<_>>()?;
        find_pages(history, &pages, expected, expected).context("ours, in files")?;
        drop(pages);
        drop(read);
        self.remember(&path)?;
        ours.close()?;

        let path = self.write(image, rng)?;
        let stock = Connection::open(&path)?;
        let sound: String = stock.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(sound == "ok", "{sound}");
        let state: i64 = stock.query_row("SELECT number FROM state", [], |row| row.get(0))?;
        ensure!(
            usize::try_from(state)? == expected,
            "stock SQLite found {state}, ours {expected}"
        );
        self.remember(&path)
    }

    /// The image in files.
    fn write(&self, image: &Image, rng: &mut Rng) -> Result<PathBuf> {
        let path = self.directory.path().join("image");
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&path, suffix));
        }
        std::fs::write(&path, &image.database)?;
        if let Some(log) = &image.log {
            std::fs::write(beside(&path, "-wal"), log)?;
        }
        if let Some(mut index) = rng.choice(&self.indices).cloned() {
            for (at, page) in index.chunks_mut(4096).enumerate() {
                let other = rng.choice(&self.indices).and_then(|other| {
                    let same = at * 4096..at * 4096 + page.len();
                    other.get(same)
                });
                match rng.u8(..4) {
                    0 => page.fill(0),
                    1 => {}
                    _ => page.copy_from_slice(other.unwrap_or(&vec![0; page.len()])),
                }
            }
            std::fs::write(beside(&path, "-shm"), index)?;
        }
        Ok(path)
    }

    /// Keeps the index that is in use now.
    fn remember(&mut self, path: &Path) -> Result<()> {
        self.indices.push(std::fs::read(beside(path, "-shm"))?);
        if self.indices.len() > 8 {
            self.indices.remove(0);
        }
        Ok(())
    }
}

/// Recovers `image`, of which nothing was promised. It may be found damaged;
/// nothing else may happen.
///
/// # Errors
///
/// When something else than [`wal_core::Error::Corrupt`] is found.
pub fn judge_without_promise(history: &History, image: &Image) -> Result<()> {
    let config = WalConfig::new(DatabaseKind::Sqlite, history.page_size);
    let coordination = InProcessWalCoordination::in_memory("recovered".as_ref());
    let wal = Wal::new(coordination, Box::new(Disk::new(image, 0)), config);
    match use_database(&wal) {
        Ok(()) | Err(wal_core::Error::Corrupt { .. }) => Ok(()),
        // The header of page 1 is lost.
        Err(wal_core::Error::Refused { .. }) => Ok(()),
        Err(e) => bail!("{e}"),
    }
}

fn use_database(wal: &Arc<Wal<InProcessWalCoordination>>) -> wal_core::Result<()> {
    let read = wal.begin_read()?;
    for page in 1..=read.page_count() {
        drop(read.page(PageNo::new(page)?)?);
    }
    drop(read);
    let mut tx = wal.begin_write(Duration::ZERO)?;
    tx.page_mut(PageNo::ONE)?[100..].fill(1);
    tx.commit()?;
    wal.checkpoint(CheckpointMode::Truncate)?;
    wal.close()
}
