//! Keeps a second database the same as one that other processes write, frame by
//! frame, and decides itself when the log is emptied. The replica can be read
//! meanwhile, by any process.
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

use wal::{CheckpointMode, Database, Options, PageNo};
use wal_core::{WalCoordination, protocol};

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

    // The tail keeps the log from beginning anew, so the copy lacks nothing.
    let copy = directory.join("replica");
    database.backup(&copy, |_| Ok(()))?;
    let replica = options().persistent_log(true).open(&copy)?;

    let mut writer = Command::new(env::current_exe()?).arg(&path).spawn()?;
    let mut generations = 1;
    // Where the generation before ended, if a new one has begun.
    let mut ended = None;
    while first_byte(&replica)? != LAST {
        let seen = *tail.state().snapshot();
        assert!(database.wait_for_change(&seen, Duration::from_secs(30))?);
        let mut apply = replica.begin_apply()?;
        apply.apply_frames(tail.advance()?, ended)?;
        let position = apply.commit()?;
        if position.frame > LONG {
            // All of it is in both database files, so both logs may begin anew.
            replica.checkpoint(CheckpointMode::Passive)?;
            database.checkpoint(CheckpointMode::Passive)?;
            // False if the writer was faster; then the next time.
            if tail.restart_log(Duration::from_secs(5))? {
                ended = Some(position);
                generations += 1;
            }
        }
    }
    assert!(writer.wait()?.success());
    let pages = pages_of(tail.state())?;
    assert!(
        pages_of(&replica.begin_read()?)? == pages,
        "the replica is the database"
    );
    println!(
        "{} pages, {generations} generations of the log",
        pages.len()
    );
    drop(tail);
    replica.close()?;
    database.close()?;
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// Nobody but the replicator empties the log.
fn options() -> Options {
    Options::new().auto_checkpoint(0).auto_restart(false)
}

fn first_byte(database: &Database) -> Result<u8> {
    Ok(database.begin_read()?.page(PageNo::ONE)?[0])
}

fn pages_of<C: WalCoordination>(state: &protocol::ReadTx<C>) -> Result<Vec<Vec<u8>>> {
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
