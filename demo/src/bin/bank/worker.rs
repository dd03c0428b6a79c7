//! The life of one process, whatever its role: open the bank, tell that it is
//! ready, wait for the others, work until told to stop, close the bank.

use std::io::{self, BufRead, BufReader, Write};

use anyhow::{Context, Result};

use crate::access::Access;
use crate::assignment::{Assignment, Engine, Role, Setup};
use crate::pages::PageBank;
use crate::patience::patiently;
use crate::post::Post;
use crate::sql::SqlBank;
use crate::wire::{Progress, Report};
use crate::{checkpointer, reader, writer};

/// Works as a process of its own, which reads its assignment from stdin and reports on stdout.
pub(crate) fn serve_as_process(assignment: Assignment) -> Result<()> {
    die_with_supervisor()?;
    serve(
        &assignment,
        || open(assignment.engine, &assignment.setup),
        BufReader::new(io::stdin()),
        io::stdout(),
    )
}

/// Has the system kill this process when the supervisor ends, also while it is stopped. A
/// supervisor that has ended before has closed the orders, which ends the process too.
fn die_with_supervisor() -> Result<()> {
    // The system regards the thread that forked as the parent: the supervisor has one.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

/// Opens the bank through `engine`.
fn open(engine: Engine, setup: &Setup) -> Result<Box<dyn Access>> {
    Ok(match engine {
        Engine::Ours => Box::new(PageBank::new(setup.options().open_shm(&setup.path)?)?),
        Engine::Stock => {
            if setup.stock_queues {
                // What SQLite calls when a program loads the extension.
                wal_queue::register()?;
            }
            Box::new(SqlBank::open(setup)?)
        }
    })
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
