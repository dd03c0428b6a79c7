//! The demo: a bank in one SQLite file, and processes that are killed while
//! they share it, some over this library and some over stock SQLite.
//!
//! | file | what it does |
//! |---|---|
//! | `arguments` | the command line |
//! | `assignment` | the assignment of each process of a run |
//! | `supervisor` | starts, watches, kills and stops the processes |
//! | `member` | one process, or thread, as the supervisor sees it |
//! | `ledger` | the transfers that were acknowledged to the supervisor |
//! | `table`, `summary` | what is shown meanwhile and at the end |
//! | `story` | what happened, engine by engine |
//! | `verdict` | the checks after the last process has gone |
//! | `sabotage` | breaks a bank, to show that it is noticed |
//! | `wire`, `post` | the lines between supervisor and process |
//! | `patience` | how long a process tries again while the bank is busy |
//! | `worker` | the life of one process, whatever its role |
//! | `writer`, `reader`, `checkpointer` | the roles |
//! | `access` | what a role does to a bank |
//! | `pages`, `sql` | how, through this library and through stock SQLite |

mod access;
mod arguments;
mod assignment;
mod checkpointer;
mod ledger;
mod member;
mod pages;
mod patience;
mod post;
mod reader;
mod sabotage;
mod sql;
mod story;
mod summary;
mod supervisor;
mod table;
mod verdict;
mod wire;
mod worker;
mod writer;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use arguments::{Arguments, Hidden};
use assignment::Setup;
use story::Story;

/// The name of the bank in its directory.
const FILE_NAME: &str = "bank.db";
/// The name of the bank in the second run, to compare.
const QUEUE_FILE_NAME: &str = "bank-queue.db";

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.hidden {
        Some(Hidden::Work { assignment }) => {
            worker::serve_as_process(serde_json::from_str(assignment)?)?;
            Ok(ExitCode::SUCCESS)
        }
        None => demonstrate(&arguments),
    }
}

/// Runs the demo in its directory, which goes at the end if it is a temporary
/// one and all was well.
fn demonstrate(arguments: &Arguments) -> Result<ExitCode> {
    arguments.refuse_what_cannot_be();
    let place = Place::prepare(arguments.dir.clone())?;
    let shown = run(arguments, &place).map(|lines| lines.join("\n"));
    let mut out = io::stdout().lock();
    match shown {
        Ok(lines) => {
            writeln!(out, "{lines}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            let path = place.keep();
            writeln!(out, "FAILED: {reason:#}")?;
            writeln!(out, "The bank is kept in {}", path.display())?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn run(arguments: &Arguments, place: &Place) -> Result<Vec<String>> {
    let setup = arguments.setup(place.path().join(FILE_NAME), false);
    let story = run_once(arguments, &setup)?;
    let mut lines = summary::closing(&setup, &story);
    if arguments.compare {
        writeln!(io::stdout(), "{}\n", lines.join("\n"))?;
        let queued = Setup {
            path: place.path().join(QUEUE_FILE_NAME),
            stock_queues: true,
            ..setup
        };
        let second = run_once(arguments, &queued).context("with the extension wal-queue")?;
        lines = summary::closing(&queued, &second);
        let last = lines.pop();
        lines.extend(summary::comparison(&story, &second));
        lines.extend(last);
    }
    Ok(lines)
}

/// Makes a bank and runs the processes on it.
fn run_once(arguments: &Arguments, setup: &Setup) -> Result<Story> {
    demo::bank::create(
        &setup.path,
        setup.accounts,
        arguments.page_size,
        assignment::STARTING_BALANCE,
    )?;
    writeln!(io::stdout(), "{}\n", summary::opening(arguments, setup))?;
    let mut story = supervisor::run(arguments, setup)?;
    if let Some(kind) = arguments.sabotage {
        sabotage::after_the_end(kind, &setup.path)?;
    }
    verdict::check(setup, arguments.backend, &mut story)?;
    Ok(story)
}

/// The directory of the bank.
enum Place {
    Named(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Place {
    fn prepare(dir: Option<PathBuf>) -> Result<Self> {
        match dir {
            Some(dir) => {
                std::fs::create_dir_all(&dir)
                    .with_context(|| format!("making the directory {}", dir.display()))?;
                Ok(Place::Named(dir))
            }
            None => Ok(Place::Temporary(
                tempfile::Builder::new().prefix("bank-").tempdir()?,
            )),
        }
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Place::Named(dir) => dir,
            Place::Temporary(dir) => dir.path(),
        }
    }

    /// The directory, which stays.
    fn keep(self) -> PathBuf {
        match self {
            Place::Named(dir) => dir,
            Place::Temporary(dir) => dir.keep(),
        }
    }
}
