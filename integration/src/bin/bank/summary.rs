//! What was about to be shown, and what was shown, in words and numbers.

use indicatif::HumanCount;

use crate::arguments::{Arguments, BackendName, STARTING_BALANCE, Setup, SynchronousName};
use crate::supervisor::Story;

/// The line before the table.
pub(crate) fn opening(arguments: &Arguments, setup: &Setup) -> String {
    let what = match arguments.backend {
        BackendName::Shm if arguments.kill_every.is_zero() => "processes, none of them killed",
        BackendName::Shm => "processes, killed at random",
        BackendName::Inproc => "threads of one process, so nobody is killed",
    };
    format!(
        "{} writers, {} readers and a checkpointer ({what}) share {} accounts of {} each, \
         synchronous={}, seed {}",
        arguments.writers,
        arguments.readers,
        setup.accounts,
        STARTING_BALANCE,
        match setup.synchronous {
            SynchronousName::Full => "full",
            SynchronousName::Normal => "normal",
        },
        setup.seed
    )
}

/// The lines after it, when every check has held.
pub(crate) fn closing(setup: &Setup, story: &Story) -> Vec<String> {
    let who = match story.backend {
        BackendName::Shm => "processes",
        BackendName::Inproc => "threads of one process",
    };
    vec![
        String::new(),
        format!(
            "{} {who} shared one SQLite file for {:.1} s: {} writers, {} readers, 1 checkpointer.",
            story.members,
            story.worked.as_secs_f64(),
            story.ledgers.len(),
            story.readers,
        ),
        transfers(story),
        format!(
            "{} snapshots were checked: each held {} in all, and none was older than the one before.",
            HumanCount(story.snapshots),
            setup.total()
        ),
        kills(story),
        format!(
            "{} checkpoints ran; after the last close, -wal, -shm and -coord are gone.",
            HumanCount(story.checkpoints)
        ),
        "Read by this library and by stock SQLite the bank is the same, \
         and PRAGMA integrity_check says ok."
            .to_owned(),
        "Nothing is missing.".to_owned(),
    ]
}

fn transfers(story: &Story) -> String {
    let counts = || story.ledgers.iter().map(|ledger| ledger.transfers());
    let fastest = counts().max().unwrap_or(0);
    let slowest = counts().min().unwrap_or(0);
    let all: i64 = counts().sum();
    format!(
        "{} transfers were acknowledged, and all of them are there; \
         fastest writer : slowest = {} : {} ({:.2}), longest wait for Write {:.0} ms.",
        HumanCount(all.cast_unsigned()),
        HumanCount(fastest.cast_unsigned()),
        HumanCount(slowest.cast_unsigned()),
        fastest as f64 / slowest.max(1) as f64,
        story.longest_wait.as_secs_f64() * 1e3,
    )
}

fn kills(story: &Story) -> String {
    if story.backend == BackendName::Inproc {
        return "Nobody was killed: threads of one process cannot be, one by one.".to_owned();
    }
    let kills = story.kills;
    format!(
        "{} times SIGKILL; transfers that it hit between announcement and acknowledgement: {}, \
         of which {} were committed whole and {} not at all.",
        kills.all,
        kills.committed + kills.rolled_back,
        kills.committed,
        kills.rolled_back,
    )
}
