//! `walctl verify`

mod checks;
mod database;
mod index;
mod log;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use checks::{Checks, State, pages_in_file};
pub(crate) use database::check_database;

use crate::exit::Exit;
use crate::files::Files;
use crate::output::units::counted;
use crate::output::{BAD, DIM, GOOD, Output, Report, STRONG, WARN, escape, paint};

/// How often the files are read again because they changed.
const ATTEMPTS: u32 = 5;

/// Checks the log, the index and the database file, and says what a recovery would give.
///
/// It compares each frame of the log with its checksum, the index with the log, and reads page 1
/// and the list of free pages. It reads no tables: for those run `PRAGMA integrity_check`. It
/// acquires no lock and writes nothing; while the database is in use it checks the state of one
/// commit. It exits with 5 if it finds damage.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl verify app.db
  walctl verify --json app.db | jq '.checks[] | select(.state == \"damage\")'
  walctl verify app.db && echo sound")]
pub(crate) struct Verify {
    /// The database.
    database: PathBuf,
}

/// What was checked, and what was found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VerifyReport {
    /// The path of the database, without symbolic links.
    path: String,
    /// The worst of the states of all checks: `ok`, `note` or `damage`.
    state: State,
    /// The checks.
    checks: Vec<CheckReport>,
    /// What the next user finds that rebuilds the index from the log.
    recovery: RecoveryFigures,
}

/// One check.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckReport {
    /// What was checked: `log`, `leftovers`, `index`, `page 1`, `size`, `free pages`,
    /// `journal` or `recovery`.
    pub(crate) check: &'static str,
    /// `ok`; `note` for what is unusual and harmless; or `damage`.
    pub(crate) state: State,
    /// What was found.
    pub(crate) text: String,
    /// What to do, if something is to be done.
    pub(crate) advice: Option<String>,
}

/// What a recovery would give.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct RecoveryFigures {
    /// The frames of the log that it would take.
    pub(crate) frames: u32,
    /// The transactions in them.
    pub(crate) commits: u64,
    /// The pages of the database after it; null if that is not known.
    pub(crate) pages: Option<u32>,
    /// The generation of the log, by its salts in hexadecimal digits; null if there is no log.
    pub(crate) generation: Option<String>,
    /// The whole frames behind those, which it would drop.
    pub(crate) dropped_frames: u64,
    /// The commits of this generation that it would drop.
    pub(crate) lost_commits: u64,
    /// Whether it would give the state that the index publishes, or a later one that is being
    /// committed; null if no index tells.
    pub(crate) equals_index: Option<bool>,
}

impl Verify {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let report = verify(&self.database, output)?;
        output.print(&report)?;
        Ok(match report.state {
            State::Damage => Exit::Damage,
            State::Ok | State::Note => Exit::Done,
        })
    }
}

/// Checks the files of the database at `path` in one committed state.
fn verify(path: &Path, output: &Output) -> anyhow::Result<VerifyReport> {
    let mut changed = "its files were replaced";
    for _ in 0..ATTEMPTS {
        let files = Files::at(path)?;
        let watch = files.watch()?;
        let checks = Checks::of(&files, &watch, output)?;
        if !watch.holds()? {
            changed = "its log was restarted, or a checkpoint moved newer pages";
        } else if files.are_in_place()? {
            return Ok(checks.report(&files.path));
        }
    }
    let advice = "`walctl backup` copies one state of it, which can be verified";
    let error = wal::Error::Protocol {
        path: path.to_owned(),
        attempts: ATTEMPTS,
    };
    let text = format!("{}: {changed} during each look; {advice}", path.display());
    Err(anyhow::Error::from(error).context(text))
}

impl Report for VerifyReport {
    const KIND: &'static str = "verify";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", paint(STRONG, escape(&self.path)))?;
        for check in &self.checks {
            check.write(out)?;
        }
        Ok(())
    }
}

impl CheckReport {
    /// Writes a line with the outcome, and one with what to do.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (style, word) = match self.state {
            State::Ok => (GOOD, "ok"),
            State::Note => (WARN, "note"),
            State::Damage => (BAD, "DAMAGE"),
        };
        let state = paint(style, format!("{word:<6}"));
        let check = paint(DIM, format!("{:<10}", self.check));
        writeln!(out, "  {state} {check} {}", escape(&self.text))?;
        match &self.advice {
            Some(advice) => writeln!(out, "{:20}{}", "", escape(advice)),
            None => Ok(()),
        }
    }
}

impl RecoveryFigures {
    /// It in one sentence.
    fn text(&self) -> String {
        let pages = self.pages.map_or(String::new(), |pages| {
            format!(" and gives {}", counted(pages, "page"))
        });
        let equals = match self.equals_index {
            Some(true) => ", which is what the index publishes",
            Some(false) => ", which is not what the index publishes",
            None => "",
        };
        match (self.frames, self.commits) {
            (0, _) => format!("it takes no frame of the log{pages}{equals}"),
            (frames, commits) => {
                let frames = counted(frames, "frame");
                let commits = counted(commits, "commit");
                format!("it takes {frames} with {commits}{pages}{equals}")
            }
        }
    }
}
