//! `walctl wait`

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::follow::{Follower, State};
use crate::exit::Exit;
use crate::figures::hexadecimal;
use crate::interrupt;
use crate::output::units::{self, count};
use crate::output::{Output, Report, escape};

/// Returns at the next commit of any process.
///
/// It acquires no lock and writes nothing, and sleeps until the log is written. Where the database has
/// a `-coord` file it looks every 20 ms, too: the Rust library `wal` may write the log through a
/// mapping. A database in EXCLUSIVE locking mode has no index to look at.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl wait app.db && ./rebuild-cache
  while walctl wait app.db --timeout 1h; do ./upload app.db; done

It ends with 3 if nothing is committed in time.")]
pub(crate) struct Wait {
    /// The database.
    database: PathBuf,
    /// How long to wait; for ever unless told otherwise.
    #[arg(long, value_name = "TIME")]
    timeout: Option<humantime::Duration>,
}

/// A commit.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WaitReport {
    /// The path of the database, without symbolic links.
    path: String,
    /// When the commit was seen, RFC 3339.
    time: String,
    /// The generation of the log, by its salts in hexadecimal digits.
    generation: String,
    /// The last committed frame of the log.
    frame: u32,
    /// The size of the database in pages.
    pages: u32,
}

impl Wait {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let mut follower = Follower::of(&self.database, interrupt::catch()?)?;
        let timeout = self.timeout.map(Duration::from);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while let Some(state) = follower.next(deadline)? {
            if state.is_commit_after(follower.seen.as_ref()) {
                output.print(&WaitReport::of(&follower, &state))?;
                return Ok(Exit::Done);
            }
            follower.seen = Some(state);
        }
        Ok(Exit::Busy)
    }
}

impl WaitReport {
    fn of(follower: &Follower, state: &State) -> Self {
        WaitReport {
            path: follower.path.display().to_string(),
            time: units::time(SystemTime::now()),
            generation: hexadecimal(state.salts),
            frame: state.max_frame,
            pages: state.pages,
        }
    }
}

impl Report for WaitReport {
    const KIND: &'static str = "wait";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (path, generation) = (escape(&self.path), &self.generation);
        let (frame, pages) = (count(self.frame), count(self.pages));
        writeln!(
            out,
            "{path}: committed up to frame {frame} of generation {generation}, {pages} pages"
        )
    }
}
