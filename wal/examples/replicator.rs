//! Keeps a second database the same as one that another process writes at full speed, frame
//! by frame, and decides itself when the log is restarted. The replica can be read
//! by any process. The writer is this library's, and then, where there is one, Python.
//!
//! ```sh
//! cargo run -p wal --example replicator
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use wal::{
    CheckpointMode, Database, DrainOptions, Drained, Options, PageNo, Pages, Synchronous, Tail,
    TailPosition,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const COMMITS: u16 = 5000;
/// The log is restarted when it has this many frames.
const LONG: u32 = 1000;
/// How long the replicator sleeps at most before it looks whether the writer has ended.
const LOOK: Duration = Duration::from_millis(50);

const PYTHON: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute('PRAGMA synchronous=OFF')
for n in range(5000):
    db.execute('INSERT OR REPLACE INTO rows VALUES(?, randomblob(9000))', (n % 100,))
";
const MAKE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('PRAGMA journal_mode=WAL')
db.execute('CREATE TABLE rows(n INTEGER PRIMARY KEY, data)')
";

fn main() -> Result<()> {
    if let Some(path) = env::args().nth(1) {
        return write(Path::new(&path));
    }
    let directory = env::temp_dir().join(format!("wal-replicator-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let pages = directory.join("pages");
    Database::open_pages(&pages)?.close()?;
    let mut writer = Command::new(env::current_exe()?);
    writer.arg(&pages);
    replicate("this library", &pages, &mut writer)?;

    let made = python(MAKE, &directory.join("app.db")).status();
    if made.is_ok_and(|status| status.success()) {
        let path = directory.join("app.db");
        replicate("Python", &path, &mut python(PYTHON, &path))?;
    } else {
        println!("not checked: a replica of what Python writes: there is no python3 on PATH");
    }
    fs::remove_dir_all(directory)?;
    Ok(())
}

fn python(script: &str, path: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(path).stderr(Stdio::null());
    command
}

/// Follows the database at `path` as long as `writer` runs, and compares then.
fn replicate(name: &str, path: &Path, writer: &mut Command) -> Result<()> {
    let source = options().open(path)?;
    let tail = source.tail()?;
    // The tail keeps the log from being restarted, so the copy lacks nothing.
    let copy = path.with_extension("replica");
    source.backup(&copy, |_| Ok(()))?;
    let replica = options().persistent_log(true).open(&copy)?;
    let mut replicator = Replicator {
        tail,
        replica,
        ended: None,
    };
    replicator.begin()?;
    let mut writer = Running(writer.spawn()?);
    let (mut generations, mut longest) = (1, 0);
    loop {
        let ended = writer.0.try_wait()?;
        replicator.follow()?;
        longest = longest.max(replicator.tail.position().frame);
        generations += u32::from(replicator.restart_log_if_long()?);
        if let Some(status) = ended {
            assert!(status.success(), "the writer has failed");
            break;
        }
        source.wait_for_change(replicator.tail.state().snapshot(), LOOK)?;
    }
    let pages = pages_of(&source.begin_read()?)?;
    assert!(
        pages_of(&replicator.replica.begin_read()?)? == pages,
        "the replica is the database"
    );
    assert!(
        generations > 1,
        "the log was restarted while it was written"
    );
    let pages = pages.len();
    println!("{name}: {pages} pages, {generations} generations, at most {longest} frames");
    drop(replicator.tail);
    replicator.replica.close()?;
    Ok(source.close()?)
}

struct Replicator {
    tail: Tail,
    replica: Database,
    /// Where the generation before ended, if a new one has begun.
    ended: Option<TailPosition>,
}

impl Replicator {
    /// Gives the copy the log of what was copied.
    fn begin(&mut self) -> Result<()> {
        self.tail.advance()?;
        let mut apply = self.replica.begin_apply()?;
        apply.apply_frames(self.tail.log_so_far(), None)?;
        apply.commit()?;
        Ok(())
    }

    /// Applies what was committed.
    fn follow(&mut self) -> Result<()> {
        let mut apply = self.replica.begin_apply()?;
        apply.apply_frames(self.tail.advance()?, self.ended)?;
        apply.commit()?;
        Ok(())
    }

    /// Restarts a long log; false if it is not long, or that was not possible.
    fn restart_log_if_long(&mut self) -> Result<bool> {
        if self.tail.position().frame < LONG {
            return Ok(false);
        }
        // Writers wait for what is applied here, so a replica that is slow slows them down.
        let options = DrainOptions::new().most_frames(u32::MAX);
        let (replica, ended) = (&self.replica, self.ended);
        let drained = self.tail.drain_log(&options, |frames| {
            let mut apply = replica.begin_apply()?;
            apply.apply_frames(frames, ended)?;
            apply.commit().map(drop)
        });
        let Drained::Restarted { end } = drained? else {
            return Ok(false);
        };
        // All of the log has to be in the database file here, too.
        self.replica.checkpoint(CheckpointMode::Passive)?;
        self.ended = Some(end);
        Ok(true)
    }
}

/// A process that does not outlive an error here.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only the replicator restarts the log.
fn options() -> Options {
    let options = Options::new().synchronous(Synchronous::Normal);
    options.auto_checkpoint(0).auto_restart(false)
}

fn pages_of(state: &impl Pages) -> Result<Vec<Vec<u8>>> {
    let page = |number| Ok(state.page(PageNo::new(number)?)?.to_vec());
    (1..=state.page_count()).map(page).collect()
}

fn write(path: &Path) -> Result<()> {
    let database: Database = options().open(path)?;
    let page = database.write(|tx| tx.allocate())?;
    for commit in 1..=COMMITS {
        let mut write = database.begin_write()?;
        write.page_mut(page)?[..2].copy_from_slice(&commit.to_le_bytes());
        if commit.is_multiple_of(100) {
            write.allocate()?;
        }
        write.commit()?;
    }
    Ok(database.close()?)
}
