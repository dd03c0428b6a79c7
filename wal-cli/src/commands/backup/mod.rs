//! `walctl backup`: one snapshot, copied while other processes write.
//!
//! | file | what it owns |
//! |---|---|
//! | `source` | how the database is opened: as a reader, or as a file without users |
//! | `pace` | the rate of the copy, and Ctrl-C |

mod pace;
mod source;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use bytesize::ByteSize;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal::{BackupProgress, Error};

use self::pace::Pace;
use self::source::Source;
use crate::exit::Exit;
use crate::figures::hexadecimal;
use crate::interrupt;
use crate::look;
use crate::output::{GOOD, Output, Progress, Report, escape, paint, units};

/// Copies one snapshot of a database while other processes write.
///
/// The copy is the state of one commit, as a file of its own without a log. It appears at its
/// name once it is whole and on the disk, so an unfinished backup is never taken for one. The
/// database is only read: no file is made beside it, and nothing in it changes.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl backup app.db /backup/app.db              a new file
  walctl backup app.db /backup/app.db --replace    in place of the last backup
  walctl backup app.db /backup/app.db --rate 50M   no faster than 50 MB/s

The snapshot is held until the copy is done. Until then the log of the database cannot be
restarted and grows with each commit, so a low --rate costs space beside the database.")]
pub(crate) struct Backup {
    /// The database.
    database: PathBuf,
    /// The file to write, which must not exist.
    destination: PathBuf,
    /// The most bytes to copy in a second: 500K, 50M, 1GiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Replaces the file at DESTINATION, if there is one.
    #[arg(long)]
    replace: bool,
}

/// A backup that is done.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BackupReport {
    /// The path of the database, without symbolic links.
    database: String,
    /// The path of the copy.
    destination: String,
    /// The pages of the copy.
    pages: u32,
    /// The length of the copy in bytes.
    bytes: u64,
    /// The generation of the log that the copy is of, by its salts in hexadecimal digits;
    /// null if no commit was in a log.
    generation: Option<String>,
    /// The frame of the commit that the copy is the state of, counted in that generation;
    /// null if no commit was in a log.
    frame: Option<u32>,
    /// How long it took, in seconds.
    elapsed_s: f64,
}

impl Backup {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let interrupt = interrupt::catch()?;
        let database = look::resolve(&self.database)?;
        self.refuse_destination()?;
        let mut pace = Pace::new(self.rate, interrupt);
        let last = loop {
            let source = Source::open(&database).map_err(advise)?;
            match self.copy(&source, &mut pace, output) {
                Ok(last) => break last,
                // The next attempt attaches to what the new user of the database has made.
                Err(_) if pace.source_changed() => pace = Pace::new(self.rate, interrupt),
                Err(Error::Cancelled) if interrupt.is_set() => {
                    let destination = self.destination.display();
                    bail!("{destination}: the backup was interrupted; no file was left")
                }
                Err(error) => return Err(error.into()),
            }
        };
        // Without a committed frame there is no log header that would have the salts.
        let has_log = last.frame > 0;
        let bytes = std::fs::metadata(&self.destination).map(|file| file.len());
        output.print(&BackupReport {
            database: database.display().to_string(),
            destination: self.destination.display().to_string(),
            pages: last.pages,
            bytes: bytes.with_context(|| format!("{}: cannot stat", self.destination.display()))?,
            generation: has_log.then(|| hexadecimal(last.salts)),
            frame: has_log.then_some(last.frame),
            elapsed_s: started.elapsed().as_secs_f64(),
        })?;
        Ok(Exit::Done)
    }

    /// Copies `source`, and returns what was copied.
    fn copy(
        &self,
        source: &Source,
        pace: &mut Pace,
        output: &Output,
    ) -> wal::Result<BackupProgress> {
        let mut bar: Option<Progress> = None;
        let mut last = None;
        let page_size = u64::from(source.database().page_size().bytes());
        let progress = |progress: BackupProgress| {
            let pages = u64::from(progress.pages);
            let bar = bar.get_or_insert_with(|| output.progress("copying pages", pages));
            bar.set(u64::from(progress.copied), pages);
            last = Some(progress);
            pace.copied(u64::from(progress.copied) * page_size)?;
            // The last moment before the copy gets its name.
            match progress.copied == progress.pages && !source.is_unchanged() {
                true => Err(pace.set_source_changed()),
                false => Ok(()),
            }
        };
        match self.replace {
            true => source
                .database()
                .replace_backup(&self.destination, progress)?,
            false => source.database().backup(&self.destination, progress)?,
        }
        last.ok_or_else(|| Error::corrupt(source.database().path(), "it has no pages"))
    }

    fn refuse_destination(&self) -> anyhow::Result<()> {
        let there = self.destination.symlink_metadata();
        let destination = self.destination.display();
        match there {
            Ok(there) if there.is_dir() => {
                bail!("{destination}: it is a directory; name the file to write")
            }
            Ok(_) if !self.replace => {
                bail!("{destination}: it exists; choose another name, or add --replace")
            }
            _ => Ok(()),
        }
    }
}

impl Report for BackupReport {
    const KIND: &'static str = "backup";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let elapsed = std::time::Duration::try_from_secs_f64(self.elapsed_s).unwrap_or_default();
        writeln!(
            out,
            "{} {} pages, {}, in {}",
            paint(GOOD, "copied"),
            units::count(self.pages),
            units::bytes(self.bytes),
            units::duration(elapsed),
        )?;
        writeln!(out, "to      {}", escape(&self.destination))?;
        match (&self.generation, self.frame) {
            (Some(generation), Some(frame)) => {
                let frame = units::count(frame);
                writeln!(out, "commit  frame {frame} of log generation {generation}")
            }
            _ => writeln!(out, "commit  the last one: no commit was in a log"),
        }
    }
}

/// Adds what an operator can do.
fn advise(error: Error) -> anyhow::Error {
    match error {
        Error::NotWalMode { path } => anyhow::anyhow!(
            "{}: in rollback-journal mode, which walctl does not copy; use `.backup` of sqlite3",
            path.display()
        ),
        error => error.into(),
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>()? {
        ByteSize(0) => Err("a backup at this rate never ends".into()),
        ByteSize(rate) => Ok(rate),
    }
}

/// Whether there is a file at `path` that has a byte.
fn has_bytes(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}
