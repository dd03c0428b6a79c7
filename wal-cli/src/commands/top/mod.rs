//! `walctl top`
//!
//! | file | what it owns |
//! |---|---|
//! | `lines` | a look as one line of text |
//! | `screen` | the terminal: keys, resizes, the checkpoint that a key starts |
//! | `state` | what the screen shows, apart from how |
//! | `view` | how the screen is drawn |

mod lines;
mod screen;
mod state;
mod view;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::exit::Exit;
use crate::exporter::wait;
use crate::interrupt;
use crate::output::Output;
use crate::sampler::Sampler;

/// Shows the readers, the writers and the log of a database, live.
///
/// It acquires no lock and writes nothing, unless the key `c` is pressed and confirmed: then it
/// opens the database and runs a passive checkpoint. Without a terminal, and with `--json`, it
/// prints a line for each look.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl top app.db
  walctl top app.db --interval 200ms
  walctl top app.db --count 3 | cat
  walctl top --json app.db | jq .rates.commits

Keys: q quit, c checkpoint, s sort, p pause, ? help")]
pub(crate) struct Top {
    /// The database.
    database: PathBuf,
    /// The time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: humantime::Duration,
    /// Prints lines, and ends after so many looks.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
}

impl Top {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let interval: Duration = self.interval.into();
        // Shorter ones would show the looks of this command more than the database.
        let interval = interval.max(Duration::from_millis(20));
        let mut sampler = Sampler::new(&self.database);
        if output.is_terminal() && self.count.is_none() {
            // A wrong path is an error; a database that vanishes later is shown.
            sampler.look()?;
            screen::run(sampler, interval)?;
            return Ok(Exit::Done);
        }
        let interrupt = interrupt::catch()?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut is_seen = false;
        let mut due = Instant::now();
        while left > 0 && !interrupt.is_set() {
            match sampler.look() {
                Ok(sample) => output.print(&sample)?,
                Err(error) if !is_seen => return Err(error),
                // It may come back.
                Err(error) => output.error(&error),
            }
            is_seen = true;
            left -= 1;
            due = Instant::now().max(due + interval);
            if left > 0 && wait(interrupt, due) {
                break;
            }
        }
        Ok(Exit::Done)
    }
}
