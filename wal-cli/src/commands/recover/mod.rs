//! `walctl recover`
//!
//! # Which database is read
//! A database that no process uses is read as it lies there. One that is in use is refused:
//! `walctl backup` copies it in one snapshot. With `--from-pid` the files are those that the
//! process has open, and what is read is one committed state of them, or the command fails
//! (`wal_core::inspect::Watch`).

mod copy;
mod plan;
mod sources;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal_core::protocol::refuse_leftovers;
use wal_core::storage::OsFile;

use self::copy::Job;
use self::sources::sources;
use super::verify::CheckReport;
use crate::exit::Exit;
use crate::files::Files;
use crate::interrupt::{self, Interrupt};
use crate::output::units::{bytes, counted};
use crate::output::{Output, Report, STRONG, WARN, escape, paint};

/// How often the files of a process are read again because it changed them.
const ATTEMPTS: u32 = 5;
/// Copies the newest committed state out of damaged files, which it leaves as they are.
///
/// It lays the valid prefix of the log over the database file, as a recovery by SQLite does, and
/// writes that to a new file, which has no log. The new file appears under its name when it is
/// whole and durable. What was dropped is reported, and the new file is checked as by `walctl
/// verify`; it exits with 5 if that finds damage.
///
/// A database that is in use is refused: use `walctl backup`. A log that was removed while a
/// process still has it open is lost when that process ends: take it with `--from-pid` before.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl recover app.db --to new.db
  walctl recover app.db --log copy-of-app.db-wal --to new.db
  walctl recover app.db --from-pid 4711 --to new.db   the files that process 4711 has open
  sqlite3 new.db 'PRAGMA integrity_check'             what to run afterwards")]
pub(crate) struct Recover {
    /// The database. With --from-pid it may have been removed.
    database: PathBuf,
    /// The file to write, which does not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The log, if it is not the one beside the database.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Takes the database and the log from the files that this process has open.
    #[arg(long, value_name = "PID", conflicts_with = "log")]
    from_pid: Option<u32>,
    /// How long to search for the processes that use the database.
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    budget: humantime::Duration,
}

/// What was recovered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RecoverReport {
    /// The database file that was read.
    database: String,
    /// The log that was read; null if there is none.
    log: Option<String>,
    /// The new file.
    to: String,
    /// Its length in bytes.
    bytes: u64,
    /// Its pages.
    pages: u32,
    /// Those of them that are from the log.
    pages_from_log: u32,
    /// The pages that neither file has: zeros, or left out at the end.
    missing_pages: u32,
    /// The frames of the log that were taken.
    frames: u32,
    /// The transactions in them.
    commits: u64,
    /// The frames behind those, which were dropped: leftovers, or lost with what follows.
    dropped_frames: u64,
    /// The commits of this generation of the log among the dropped frames.
    lost_commits: u64,
    /// What was wrong with the files or is worth knowing, a sentence each.
    notes: Vec<String>,
    /// Whether the checks of the new file found no damage.
    is_consistent: bool,
    /// The checks of the new file.
    checks: Vec<CheckReport>,
}

impl Recover {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        if self.to.symlink_metadata().is_ok() {
            bail!(
                "{}: it exists; choose a name for a new file",
                self.to.display()
            );
        }
        refuse_leftovers(&self.to)?;
        let interrupt = interrupt::catch()?;
        let report = self.recover(output, interrupt)?;
        let is_consistent = report.is_consistent;
        output.print(&report)?;
        Ok(if is_consistent {
            Exit::Done
        } else {
            Exit::Damage
        })
    }

    fn recover(&self, output: &Output, interrupt: Interrupt) -> anyhow::Result<RecoverReport> {
        for _ in 0..ATTEMPTS {
            let (files, notes) = sources(self)?;
            let watch = files.watch()?;
            let job = Job {
                recover: self,
                files: &files,
                output,
                interrupt,
            };
            let (mut new, mut report) = job.copy(&watch)?;
            if !watch.holds()? || !self.are_unused(&files)? {
                continue;
            }
            report.notes.extend(notes);
            new.close();
            new.name_new(&self.to)?;
            return Ok(report);
        }
        let error = wal::Error::Protocol {
            path: self.database.clone(),
            attempts: ATTEMPTS,
        };
        let text = format!(
            "{}: it changed during each attempt; stop its writers (`kill -STOP`) and try again",
            self.database.display()
        );
        Err(anyhow::Error::from(error).context(text))
    }

    /// Whether no process has begun to use the files since they were opened. A user may move
    /// pages of new commits without a change of what is sampled, and removes the log at its end.
    fn are_unused(&self, files: &Files) -> anyhow::Result<bool> {
        if self.from_pid.is_some() {
            return Ok(true);
        }
        let is_in_place = |log: &OsFile| log.is_still_at_its_path();
        let log = files.log.as_ref().map_or(Ok(true), is_in_place)?;
        Ok(log && files.database.is_still_at_its_path()? && !files.are_in_use()?)
    }
}

impl Report for RecoverReport {
    const KIND: &'static str = "recover";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let to = paint(STRONG, escape(&self.to));
        let (pages, size) = (counted(self.pages, "page"), bytes(self.bytes));
        writeln!(out, "{to}: {pages}, {size}")?;
        let database = escape(&self.database);
        match &self.log {
            Some(log) => {
                let frames = counted(self.frames, "frame");
                let commits = counted(self.commits, "commit");
                let log = escape(log);
                writeln!(
                    out,
                    "  from   {database} and {frames} with {commits} of {log}"
                )?;
            }
            None => writeln!(out, "  from   {database}, which has no log")?,
        }
        if self.dropped_frames > 0 {
            let dropped = counted(self.dropped_frames, "frame");
            let lost = match self.lost_commits {
                0 => "no commit is in them".to_owned(),
                lost => paint(WARN, format!("{} lost", counted(lost, "commit"))),
            };
            writeln!(out, "  left   {dropped} behind those: {lost}")?;
        }
        for note in &self.notes {
            writeln!(out, "  {} {}", paint(WARN, "note  "), escape(note))?;
        }
        for check in &self.checks {
            check.write(out)?;
        }
        Ok(())
    }
}
