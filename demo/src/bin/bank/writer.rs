//! A writer moves money. It announces each transfer before it commits it, and
//! acknowledges it when the commit has returned.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::access::{Access, is_busy};
use crate::assignment::{Assignment, Engine};
use crate::patience::patiently;
use crate::post::Post;
use crate::wire::{Progress, Report, Transfer};

/// After so many transfers the writer looks at the length of the log.
const LOOK_AT_LOG_EVERY: u64 = 64;
/// How long a writer lets the checkpointer catch up; it may be dead.
const GIVE_WAY: Duration = Duration::from_millis(100);
/// How long readers of the log have to end, when all of it is backfilled.
const LET_READERS_END: Duration = Duration::from_millis(10);

pub(crate) fn run(assignment: &Assignment, bank: &mut dyn Access, post: &mut Post) -> Result<()> {
    let Assignment { setup, number, .. } = assignment;
    let patience = match assignment.engine {
        Engine::Ours => setup.patience,
        // SQLite promises nobody a turn; what it gets is shown instead.
        Engine::Stock => Duration::MAX,
    };
    let row = *number as usize;
    let mut progress = Progress::default();
    let Some(audit) = patiently(setup.patience, post, &progress, || bank.audit())? else {
        return Ok(());
    };
    let mut journal = *audit.journal.get(row).context("no journal row")?;
    while !post.is_stopped() {
        let transfer = Transfer::next(setup.seed, *number, journal.transfers, setup.accounts);
        post.send(&Report::Announce(transfer))?;
        let announced = Instant::now();
        let mut refusals = 0;
        let committed = patiently(patience, post, &progress, || {
            bank.transfer(*number, transfer, journal)
                .inspect_err(|error| refusals += u64::from(is_busy(error)))
        })?;
        progress.refusals += refusals;
        let Some(committed) = committed else {
            break;
        };
        journal = committed.journal;
        post.send(&Report::Acknowledge {
            transfers: journal.transfers,
        })?;
        progress.done += 1;
        let waited = committed.began.duration_since(announced);
        progress.waited += waited;
        progress.longest_wait = progress.longest_wait.max(waited);
        let over_limit = |progress: &Progress| {
            progress
                .log
                .is_some_and(|log| log.frames >= setup.log_limit)
        };
        if progress.done.is_multiple_of(LOOK_AT_LOG_EVERY) || over_limit(&progress) {
            give_way(setup.log_limit, bank, post, &mut progress)?;
        }
        post.progress(&progress)?;
    }
    post.send(&Report::Progress(progress))
}

/// A log is begun anew only when all of it is in the database file and nobody
/// reads it. Under writers that never pause that may never be so; so beyond a
/// limit they pause before each transfer, until it is or the time is up.
fn give_way(
    log_limit: u32,
    bank: &mut dyn Access,
    post: &mut Post,
    progress: &mut Progress,
) -> Result<()> {
    let begun = Instant::now();
    while !post.is_stopped() {
        let Some(log) = patiently(GIVE_WAY, post, progress, || bank.log())?.flatten() else {
            return Ok(());
        };
        progress.log = Some(log);
        if log.frames < log_limit || begun.elapsed() > GIVE_WAY {
            return Ok(());
        }
        if log.is_backfilled() {
            std::thread::sleep(LET_READERS_END);
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
