//! What was about to be shown, and what was shown, in words and numbers.

use indicatif::HumanCount;

use crate::arguments::{Arguments, BackendName, STARTING_BALANCE, Setup, SynchronousName};
use crate::story::{Share, Story};
use crate::worker::Engine;

/// The line before the table.
pub(crate) fn opening(arguments: &Arguments, setup: &Setup) -> String {
    let what = match arguments.backend {
        BackendName::Shm if arguments.kill_every.is_zero() => "processes, none of them killed",
        BackendName::Shm => "processes, killed at random",
        BackendName::Inproc => "threads of one process, so nobody is killed",
    };
    format!(
        "{} writers, {} readers and a checkpointer{} ({what}) share {} accounts of {} each, \
         synchronous={}, seed {}",
        arguments.writers,
        arguments.readers,
        match (arguments.stock_writers, arguments.stock_readers) {
            (0, 0) => String::new(),
            (writers, readers) => format!(
                ", with {writers} writers and {readers} readers over {}",
                Engine::Stock
            ),
        },
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
    let mut lines = vec![String::new(), cast(story), transfers(story)];
    lines.extend(shares(story));
    lines.extend([
        format!(
            "{} snapshots were checked{}: each held {} in all, and none was older than the one \
             before.",
            HumanCount(story.ours.snapshots + story.stock.snapshots),
            match story.stock.readers {
                0 => String::new(),
                _ => format!(
                    ", {} of them by stock SQLite",
                    HumanCount(story.stock.snapshots)
                ),
            },
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
    ]);
    lines
}

fn cast(story: &Story) -> String {
    let who = match story.backend {
        BackendName::Shm => "processes",
        BackendName::Inproc => "threads of one process",
    };
    let of = |share: &Share| {
        let (writers, readers) = (share.ledgers.len(), share.readers);
        (
            writers + readers,
            format!("{writers} writers, {readers} readers"),
        )
    };
    let (ours, ours_listed) = of(&story.ours);
    let (stock, stock_listed) = of(&story.stock);
    let over_stock = match stock {
        0 => String::new(),
        _ => format!("; over {}: {stock_listed}", Engine::Stock),
    };
    format!(
        "{} {who} shared one SQLite file for {:.1} s: {ours_listed}, 1 checkpointer{over_stock}.",
        ours + stock + 1,
        story.worked.as_secs_f64(),
    )
}

fn transfers(story: &Story) -> String {
    format!(
        "{} transfers were acknowledged, and all of them are there.",
        HumanCount(story.ours.transfers() + story.stock.transfers()),
    )
}

/// What the writers of each engine got.
fn shares(story: &Story) -> Vec<String> {
    let all = story.ours.transfers() + story.stock.transfers();
    let writers = story.ours.ledgers.len() + story.stock.ledgers.len();
    let line = |engine: Engine, share: &Share| {
        let counts = || share.ledgers.iter().map(|ledger| ledger.transfers());
        let fastest = counts().max().unwrap_or(0);
        let slowest = counts().min().unwrap_or(0);
        format!(
            "{engine}: {} of them, {:.1} % by {:.0} % of the writers; \
             fastest writer : slowest = {} : {} ({:.2}), \
             longest wait for Write {} ms, longest time without a commit {} ms{}.",
            HumanCount(share.transfers()),
            percent(share.transfers() as f64, all as f64),
            percent(share.ledgers.len() as f64, writers as f64),
            HumanCount(fastest.cast_unsigned()),
            HumanCount(slowest.cast_unsigned()),
            fastest as f64 / slowest.max(1) as f64,
            share.longest_wait.as_millis(),
            share.longest_without_commit.as_millis(),
            match share.refusals {
                0 => String::new(),
                times => format!(", busy timeout passed {} times", HumanCount(times)),
            },
        )
    };
    [(Engine::Ours, &story.ours), (Engine::Stock, &story.stock)]
        .into_iter()
        .filter(|(_, share)| !share.ledgers.is_empty())
        .map(|(engine, share)| line(engine, share))
        .collect()
}

fn percent(part: f64, whole: f64) -> f64 {
    100.0 * part / whole.max(1.0)
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
