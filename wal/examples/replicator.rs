//! Keeps a copy of a database that other processes write, frame by frame, and
//! decides itself when the log is emptied.
//!
//! ```sh
//! cargo run -p wal --example replicator
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wal::{CheckpointMode, Database, Options, PageNo, Tail};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const COMMITS: u8 = 200;
const LAST: u8 = COMMITS;
/// The log is emptied when it has this many frames.
const LONG: u32 = 50;

fn main() -> Result<()> {
    if let Some(path) = env::args().nth(1) {
        return write(Path::new(&path));
    }
    let directory = env::temp_dir().join(format!("wal-replicator-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let path = directory.join("pages");
    let database = options().open(&path)?;
    let mut tail = database.tail()?;
    let mut replica = pages_of(&tail)?;

    let mut writer = Command::new(env::current_exe()?).arg(&path).spawn()?;
    let mut generations = 1;
    while replica[0][0] != LAST {
        let seen = *tail.state().snapshot();
        assert!(database.wait_for_change(&seen, Duration::from_secs(30))?);
        for frame in tail.advance()? {
            let frame = frame?;
            let at = frame.page.get() as usize;
            replica.resize(replica.len().max(at), Vec::new());
            replica[at - 1] = frame.content.to_vec();
            if let Some(count) = frame.commit_size {
                replica.truncate(count as usize); // the end of a transaction
            }
        }
        if tail.position().frame > LONG {
            database.checkpoint(CheckpointMode::Passive)?;
            // False if the writer was faster; then the next time.
            generations += u32::from(tail.restart_log(Duration::from_secs(5))?);
        }
    }
    assert!(writer.wait()?.success());
    assert!(pages_of(&tail)? == replica, "the replica is the database");
    println!(
        "{} pages, {generations} generations of the log",
        replica.len()
    );
    drop(tail);
    database.close()?;
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// Nobody but the replicator empties the log.
fn options() -> Options {
    Options::new().auto_checkpoint(0).auto_restart(false)
}

fn pages_of(tail: &Tail) -> Result<Vec<Vec<u8>>> {
    let state = tail.state();
    let page = |number| Ok(state.page(PageNo::new(number)?)?.to_vec());
    (1..=state.page_count()).map(page).collect()
}

fn write(path: &Path) -> Result<()> {
    let database: Database = options().open(path)?;
    for commit in 1..=COMMITS {
        let mut write = database.begin_write()?;
        write.page_mut(PageNo::ONE)?[0] = commit;
        if commit.is_multiple_of(10) {
            write.allocate()?;
        }
        write.commit()?;
    }
    Ok(database.close()?)
}
