//! Two processes share one file: one writes, the other reads snapshots of it.
//!
//! ```sh
//! cargo run -p wal --example two_processes
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wal::{Database, PageNo};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const COMMITS: u8 = 100;

fn main() -> Result<()> {
    if let Some(path) = env::args().nth(1) {
        return write(Path::new(&path));
    }
    let directory = env::temp_dir().join(format!("wal-two-processes-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let path = directory.join("pages");
    let database = Database::open_pages(&path)?;
    let mut write = database.begin_write()?;
    let number = write.allocate()?;
    write.commit()?;
    let before = database.begin_read()?;
    let mut seen = *before.snapshot();
    let mut writer = Command::new(env::current_exe()?).arg(&path).spawn()?;
    let mut states = 0;
    loop {
        assert!(database.wait_for_change(&seen, Duration::from_secs(30))?);
        let read = database.begin_read()?;
        seen = *read.snapshot();
        let page = read.page(number)?; // a slice of the mapped file
        assert!(page.iter().all(|&byte| byte == page[0]), "a torn snapshot");
        states += 1;
        if page[0] == COMMITS {
            break;
        }
    }
    assert!(writer.wait()?.success());
    assert_eq!(before.page(number)?[0], 0, "a snapshot does not change");
    println!("{states} states of {COMMITS} were seen, each of them whole");
    drop(before);
    database.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn write(path: &Path) -> Result<()> {
    let database = Database::open_pages(path)?;
    for commit in 1..=COMMITS {
        let mut write = database.begin_write()?;
        // Page 1 begins with the header of the store.
        write.page_mut(PageNo::new(2)?)?.fill(commit);
        write.commit()?;
    }
    Ok(database.close()?)
}
