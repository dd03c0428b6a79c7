//! Copies a database while another process writes it: the copy is one state,
//! and the writer is never kept waiting.
//!
//! ```sh
//! cargo run -p wal --example online_backup
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use wal::{Database, DatabaseKind, Options, PAGE_STORE_HEADER_LEN, PageNo, Synchronous};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PAGES: u32 = 2000;
const COMMITS: u8 = 100;
/// The byte of each page that a commit changes; page 1 has the header of the store before it.
const BYTE: usize = PAGE_STORE_HEADER_LEN;

fn main() -> Result<()> {
    if let Some(path) = env::args().nth(1) {
        return write(Path::new(&path));
    }
    let directory = env::temp_dir().join(format!("wal-backup-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let path = directory.join("pages");
    let database = open(&path)?;
    let mut write = database.begin_write()?;
    write.set_page_count(PAGES)?;
    write.commit()?;
    let empty = *database.begin_read()?.snapshot();

    let mut writer = Command::new(env::current_exe()?).arg(&path).spawn()?;
    // A log that begins anew is a change too, so look what it was.
    let mut seen = empty;
    while database.begin_read()?.page(PageNo::ONE)?[BYTE] == 0 {
        assert!(database.wait_for_change(&seen, Duration::from_secs(30))?);
        seen = *database.begin_read()?.snapshot();
    }
    let copy = directory.join("copy");
    let mut steps = 0;
    database.backup(&copy, |progress| {
        steps += 1;
        assert!(progress.copied <= progress.pages);
        Ok(())
    })?;
    assert!(writer.wait()?.success());

    let copy = open(&copy)?;
    let read = copy.begin_read()?;
    let state = read.page(PageNo::ONE)?[BYTE];
    for number in 1..=read.page_count() {
        let page = read.page(PageNo::new(number)?)?;
        assert_eq!(page[BYTE], state, "page {number} is of another state");
    }
    println!("{PAGES} pages of state {state} of {COMMITS}, in {steps} steps");
    drop(read);
    copy.close()?;
    database.close()?;
    fs::remove_dir_all(directory)?;
    Ok(())
}

fn open(path: &Path) -> Result<Database> {
    let options = Options::new().kind(DatabaseKind::PageStore);
    Ok(options.synchronous(Synchronous::Normal).open(path)?)
}

/// Each commit writes all pages.
fn write(path: &Path) -> Result<()> {
    let database = open(path)?;
    for commit in 1..=COMMITS {
        let mut write = database.begin_write()?;
        for number in 1..=PAGES {
            write.page_mut(PageNo::new(number)?)?[BYTE] = commit;
        }
        write.commit()?;
    }
    Ok(database.close()?)
}
