//! Watches a SQLite database that other programs write, without polling it by SQL: each
//! commit ends the wait, and the pages that it changed are named.
//!
//! ```sh
//! cargo run -p wal --example watch                # Python writes, and what is seen is checked
//! cargo run -p wal --example watch -- /data/app.db   # any database, until Ctrl-C
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use std::{env, fs};

use wal::{Options, PageNo, ReadTx};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long the watcher waits for a change before it tells that there was none.
const QUIET: Duration = Duration::from_secs(60);

const MAKE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('PRAGMA journal_mode=WAL')
db.execute('CREATE TABLE rows(n INTEGER PRIMARY KEY, data TEXT)')
";
const WRITE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute('PRAGMA synchronous=OFF')
for n in range(2000):
    db.execute('INSERT INTO rows(data) VALUES(?)', ('%05d' % n + 'x' * 500,))
db.execute('INSERT INTO rows(data) VALUES(?)', ('this is the last row',))
";
const LAST: &[u8] = b"this is the last row";

fn main() -> Result<()> {
    if let Some(path) = env::args().nth(1) {
        return watch(Path::new(&path), |state, pages| {
            println!(
                "{} pages of {} have changed",
                pages.len(),
                state.page_count()
            );
            Ok(true)
        });
    }
    let directory = env::temp_dir().join(format!("wal-watch-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let path = directory.join("app.db");
    let made = python(MAKE, &path).status();
    if made.is_ok_and(|status| status.success()) {
        watch_python(&path)?;
    } else {
        println!("not checked: what Python writes: there is no python3 on PATH");
    }
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// Calls `changed` with each state that is seen and the pages in which it differs from
/// the one before, until that answers `false`.
fn watch(path: &Path, mut changed: impl FnMut(&ReadTx, &[PageNo]) -> Result<bool>) -> Result<()> {
    let database = Options::new().create(false).open(path)?;
    let mut seen = *database.begin_read()?.snapshot();
    let mut goes_on = changed(&database.begin_read()?, &[])?;
    while goes_on {
        if !database.wait_for_change(&seen, QUIET)? {
            println!("nothing was committed for {QUIET:?}");
            continue;
        }
        let state = database.begin_read()?;
        let pages = match state.pages_changed_since(&seen.save()) {
            // The log was restarted since: any page may be another one.
            Err(e) if e.must_begin_again() => all_pages(&state)?,
            pages => pages?,
        };
        seen = *state.snapshot();
        // A restart of the log is a change without a page.
        goes_on = pages.is_empty() || changed(&state, &pages)?;
    }
    Ok(database.close()?)
}

fn all_pages(state: &ReadTx) -> Result<Vec<PageNo>> {
    let numbers = (1..=state.page_count()).map(PageNo::new);
    Ok(numbers.collect::<wal::Result<_>>()?)
}

/// Starts a program that writes, and watches until its last row is there.
fn watch_python(path: &Path) -> Result<()> {
    let (mut writer, mut states, mut named) = (None, 0, 0);
    watch(path, |state, pages| {
        if writer.is_none() {
            writer = Some(Running(python(WRITE, path).spawn()?));
        }
        states += 1;
        named += pages.len();
        for page in pages {
            let page = state.page(*page)?;
            if page.windows(LAST.len()).any(|bytes| bytes == LAST) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let mut writer = writer.ok_or("it was not started")?;
    assert!(writer.0.wait()?.success());
    assert!(states > 1, "the last row alone");
    println!("{states} states of 2001, {named} changed pages; the last row was seen");
    Ok(())
}

/// A process that does not outlive an error here.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python(script: &str, path: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(path);
    command
}
