//! A SQLite database of which stock SQLite changes the rows and ours stamp
//! overflow pages, so that both can vouch for all of it.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::Connection;

/// Makes a database in WAL mode at `path` and runs `tables` on it. Gives
/// `count` pages that are all overflow of one row, so that SQLite neither
/// looks at them nor moves them. On return nobody has the file open and no log
/// lies beside it.
pub fn create(path: &Path, page_size: u32, count: u32, tables: &str) -> Result<Range<u32>> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "page_size", page_size)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite chose journal mode {mode}");
    connection.execute_batch("CREATE TABLE stamped(a)")?;
    connection.execute_batch(tables)?;
    let before = page_count(&connection)?;
    // Each overflow page begins with the number of the next.
    let bytes = i64::from(count) * i64::from(page_size - 4);
    connection.execute("INSERT INTO stamped VALUES(zeroblob(?1))", [bytes])?;
    let pages = before + 1..page_count(&connection)? + 1;
    ensure!(
        pages.len() == count as usize,
        "{count} pages were asked for, and {pages:?} are there"
    );
    connection.close().map_err(|(_, error)| error)?;
    Ok(pages)
}

fn page_count(connection: &Connection) -> Result<u32> {
    Ok(connection.query_row("PRAGMA page_count", [], |row| row.get(0))?)
}
