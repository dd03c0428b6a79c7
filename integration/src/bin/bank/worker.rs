//! The life of one process, whatever its role: open the bank, tell that it is
//! ready, wait for the others, work until told to stop, close the bank.

use std::fmt;
use std::io::{
    BufRead, BufReader, Write, {self},
};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::access::{Access, is_busy};
use crate::arguments::{Assignment, Setup};
use crate::pages::PageBank;
use crate::post::Post;
use crate::sql::SqlBank;
use crate::wire::{Progress, Report};
use crate::{checkpointer, reader, writer};

/// What a process does all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Moves money.
    Writer,
    /// Checks snapshots.
    Reader,
    /// Moves pages from the log into the database file.
    Checkpointer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Writer => "writer",
            Role::Reader => "reader",
            Role::Checkpointer => "checkpointer",
        })
    }
}

/// What a process reaches the bank through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// This library.
    Ours,
    /// Stock SQLite. The process is a genuine peer: nothing in it touches the
    /// bank through this library.
    Stock,
}

impl Engine {
    fn open(self, setup: &Setup) -> Result<Box<dyn Access>> {
        Ok(match self {
            Engine::Ours => Box::new(PageBank::new(setup.options().open_shm(&setup.path)?)?),
            Engine::Stock => Box::new(SqlBank::open(setup)?),
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Ours => f.write_str("this library"),
            Engine::Stock => write!(f, "stock SQLite {}", rusqlite::version()),
        }
    }
}

/// Works as a process of its own, which is told on stdin and tells on stdout.
pub(crate) fn serve_as_process(assignment: Assignment) -> Result<()> {
    serve(
        &assignment,
        || assignment.engine.open(&assignment.setup),
        BufReader::new(io::stdin()),
        io::stdout(),
    )
}

/// Works on the bank that `open` gives.
pub(crate) fn serve(
    assignment: &Assignment,
    open: impl FnMut() -> Result<Box<dyn Access>>,
    orders: impl BufRead + Send + 'static,
    reports: impl Write + Send + 'static,
) -> Result<()> {
    let mut post = Post::new(orders, reports);
    match work(assignment, open, &mut post) {
        Ok(()) => post.send(&Report::Finished),
        Err(error) => post.send(&Report::Failed {
            reason: format!("{error:#}"),
        }),
    }
}

fn work(
    assignment: &Assignment,
    open: impl FnMut() -> Result<Box<dyn Access>>,
    post: &mut Post,
) -> Result<()> {
    let patience = assignment.setup.patience;
    let idle = Progress::default();
    let mut bank = patiently(patience, post, &idle, open)
        .context("opening the bank")?
        .context("told to stop while the bank was busy")?;
    let Some(audit) = patiently(patience, post, &idle, || bank.audit())? else {
        return bank.close();
    };
    let writers = assignment.setup.writers as usize;
    let rows = audit.journal.iter().take(writers);
    post.send(&Report::Ready {
        journal: rows.map(|row| (*row).into()).collect(),
    })?;
    if post.wait_for_start() {
        match assignment.role {
            Role::Writer => writer::run(assignment, &mut *bank, post)?,
            Role::Reader => reader::run(assignment, &mut *bank, post)?,
            Role::Checkpointer => checkpointer::run(assignment, &mut *bank, post)?,
        }
    }
    bank.close().context("closing the bank")
}

/// Tries again while the bank is busy, with signs of life, and takes it for an
/// error after `patience`. `None` if told to stop meanwhile.
pub(crate) fn patiently<T>(
    patience: Duration,
    post: &mut Post,
    progress: &Progress,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && begun.elapsed() < patience => {
                if post.is_stopped() {
                    return Ok(None);
                }
                post.progress(progress)?;
                std::thread::yield_now();
            }
            Err(error) if is_busy(&error) => {
                return Err(error.context(format!("still busy after {patience:?}")));
            }
            done => return done.map(Some),
        }
    }
}
