//! Whether the database is what it must be, once everybody is gone.
//!
//! The files are looked at in two copies, so that the original goes on from
//! just what was left. One is read by ours through the log and then closed by
//! ours, which checkpoints it; the other is checked and checkpointed by stock
//! SQLite. All three must agree in every byte of every page.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration::worker::Stamp;
use rusqlite::Connection;
use wal::{Options, PageNo};
use wal_core::storage::beside;

use crate::scene::{SUM, Scene};

/// Checks the whole database and lets the ledgers take what it says.
pub(crate) fn judge(scene: &mut Scene) -> Result<()> {
    let read = read_by_ours(scene)?;
    let written = read_by_stock(scene)?;
    ensure_same(
        "read by ours, written back by stock SQLite",
        scene,
        &read,
        &written,
    )?;
    judge_stamps(scene, &read).context("the stamps")
}

/// A copy of the database and of what lies beside it.
fn copy(scene: &Scene, name: &str) -> Result<PathBuf> {
    let directory = scene.directory().join(name);
    fs::create_dir(&directory)?;
    let database = directory.join("app.db");
    fs::copy(&scene.path, &database)?;
    for suffix in ["-wal", "-shm", "-coord"] {
        let file = beside(&scene.path, suffix);
        if file.exists() {
            fs::copy(file, beside(&database, suffix))?;
        }
    }
    Ok(database)
}

fn remove(copy: &Path) -> Result<()> {
    let directory = copy.parent().context("a copy is in a directory")?;
    Ok(fs::remove_dir_all(directory)?)
}

/// All pages of the newest snapshot.
fn read_by_ours(scene: &Scene) -> Result<Vec<u8>> {
    let path = copy(scene, "ours")?;
    let database = Options::new().create(false).open(&path)?;
    let read = database.begin_read()?;
    let mut image = Vec::new();
    for page in 1..=read.snapshot().page_count() {
        image.extend_from_slice(&read.page(PageNo::new(page)?)?);
    }
    drop(read);
    database.close()?;
    for suffix in ["-wal", "-shm", "-coord"] {
        ensure!(!beside(&path, suffix).exists(), "{suffix} is left");
    }
    let written = fs::read(&path)?;
    ensure_same("read and written back by ours", scene, &image, &written)?;
    remove(&path)?;
    Ok(image)
}

/// The database file after a checkpoint of all of the log.
fn read_by_stock(scene: &mut Scene) -> Result<Vec<u8>> {
    let path = copy(scene, "stock")?;
    let connection = Connection::open(&path)?;
    let number = |sql: &str| -> Result<i64> {
        connection
            .query_row(sql, [], |row| row.get(0))
            .with_context(|| sql.to_owned())
    };
    let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(integrity == "ok", "stock SQLite says: {integrity}");
    let sum = number("SELECT sum(balance) FROM account")?;
    ensure!(sum == SUM, "the balances add up to {sum}");
    for (writer, ledger) in scene.stock.iter_mut().enumerate() {
        let count = number(&format!("SELECT count FROM journal WHERE writer={writer}"))?;
        ledger
            .settle(u64::try_from(count)?)
            .with_context(|| format!("the journal of process {writer} of stock SQLite"))?;
    }
    let busy = number("PRAGMA wal_checkpoint(TRUNCATE)")?;
    ensure!(busy == 0, "the checkpoint of a copy was busy");
    connection.close().map_err(|(_, error)| error)?;
    let image = fs::read(&path)?;
    remove(&path)?;
    Ok(image)
}

fn ensure_same(what: &str, scene: &Scene, one: &[u8], other: &[u8]) -> Result<()> {
    if one == other {
        return Ok(());
    }
    let pages = |image| <[u8]>::chunks(image, scene.page_size as usize);
    let differ: Vec<u32> = (1..)
        .zip(pages(one).zip(pages(other)))
        .filter(|(_, (one, other))| one != other)
        .map(|(number, _)| number)
        .collect();
    anyhow::bail!(
        "{what}: {} and {} pages, of which these differ: {differ:?}",
        pages(one).len(),
        pages(other).len()
    )
}

fn judge_stamps(scene: &mut Scene, image: &[u8]) -> Result<()> {
    let size = scene.page_size as usize;
    let ranges = scene.ranges();
    let stamps: Vec<_> = ranges
        .all()
        .map(|number| {
            let page = image.chunks(size).nth(number as usize - 1);
            Stamp::read(number, page.context("the database is too short")?)
        })
        .collect::<Result<_>>()?;
    let seen = ranges.judge(&stamps)?;
    ensure!(
        seen.shared >= scene.shared(),
        "{} commits to the shared pages were acknowledged: {seen:?}",
        scene.shared()
    );
    // Those whose writers were killed before they told are there as well.
    *scene.shared.get_mut() = seen.shared;
    for (number, (ledger, found)) in scene.ours.iter_mut().zip(seen.own).enumerate() {
        ledger
            .settle(found)
            .with_context(|| format!("process {number} of ours"))?;
    }
    Ok(())
}
