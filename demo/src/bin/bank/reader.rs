//! A reader checks one snapshot after the other.

use anyhow::{Result, ensure};
use demo::bank::Journal;

use crate::access::{Access, Audit};
use crate::assignment::Assignment;
use crate::patience::patiently;
use crate::post::Post;
use crate::wire::{Progress, Report};

pub(crate) fn run(assignment: &Assignment, bank: &mut dyn Access, post: &mut Post) -> Result<()> {
    let setup = &assignment.setup;
    let mut progress = Progress::default();
    let mut before = Vec::new();
    while !post.is_stopped() {
        let Some(audit) = patiently(setup.patience, post, &progress, || bank.audit())? else {
            break;
        };
        check(&audit, setup.total(), &before)?;
        progress.done += 1;
        progress.log = audit.log;
        progress.transfers_seen = Some(audit.transfers());
        before = audit.journal;
        post.progress(&progress)?;
    }
    post.send(&Report::Progress(progress))
}

/// No money comes or goes, and a later snapshot is never of an older state.
fn check(audit: &Audit, total: i64, before: &[Journal]) -> Result<()> {
    ensure!(
        audit.total == total,
        "a snapshot holds {} in all instead of {total}",
        audit.total
    );
    for (worker, (row, before)) in audit.journal.iter().zip(before).enumerate() {
        ensure!(
            row.transfers > before.transfers || row == before,
            "a snapshot goes back: of writer {worker} it has {row:?} after {before:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(total: i64, journal: Journal) -> Audit {
        Audit {
            total,
            journal: vec![journal],
            log: None,
        }
    }

    #[test]
    fn a_sum_that_is_off_by_one_is_refused() {
        assert!(check(&audit(10, Journal::default()), 10, &[]).is_ok());
        assert!(check(&audit(11, Journal::default()), 10, &[]).is_err());
    }

    #[test]
    fn a_journal_may_stand_still_or_grow_but_not_shrink_or_change() {
        let one = Journal::default().after_transfer(0, 1, 2);
        let two = one.after_transfer(1, 0, 2);
        let other = Journal::default().after_transfer(0, 1, 3);
        assert!(check(&audit(0, one), 0, &[one]).is_ok());
        assert!(check(&audit(0, two), 0, &[one]).is_ok());
        assert!(check(&audit(0, one), 0, &[two]).is_err());
        assert!(check(&audit(0, other), 0, &[one]).is_err());
    }
}
