//! What was about to be shown, and what was shown, in words and numbers.

use indicatif::HumanCount;

use crate::arguments::{Arguments, BackendName};
use crate::assignment::{Engine, STARTING_BALANCE, Setup, SynchronousName};
use crate::story::{Share, Story};

/// The line before the table.
pub(crate) fn opening(arguments: &Arguments, setup: &Setup) -> String {
    let what = match arguments.backend {
        BackendName::Shm if arguments.kill_every.is_zero() => "processes, none of them killed",
        BackendName::Shm => "processes, killed at random",
        BackendName::Inproc => "threads of one process, so nobody is killed",
    };
    let over_stock = match (arguments.stock_writers, arguments.stock_readers) {
        (0, 0) => String::new(),
        (writers, readers) => {
            let queue = if setup.stock_queues {
                " with the extension wal-queue"
            } else {
                ""
            };
            format!(
                "; {} over {}{queue}",
                listed(writers, readers),
                Engine::Stock
            )
        }
    };
    format!(
        "{} and a checkpointer{over_stock} ({what}) share {} accounts of {} each, \
         synchronous={}, seed {}",
        listed(arguments.writers, arguments.readers),
        setup.accounts,
        STARTING_BALANCE,
        match setup.synchronous {
            SynchronousName::Full => "full",
            SynchronousName::Group => "full with group commit",
            SynchronousName::Normal => "normal",
        },
        setup.seed
    )
}

/// "1 writer, 2 readers".
fn listed(writers: impl Into<u64>, readers: impl Into<u64>) -> String {
    let counted = |count: u64, what| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}, {}",
        counted(writers.into(), "writer"),
        counted(readers.into(), "reader")
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
    let members = |share: &Share| share.ledgers.len() + share.readers;
    let listed = |share: &Share| listed(share.ledgers.len() as u64, share.readers as u64);
    let over_stock = match members(&story.stock) {
        0 => String::new(),
        _ => format!("; {} over {}", listed(&story.stock), Engine::Stock),
    };
    format!(
        "{} {who} shared one SQLite file for {:.1} s: {} and a checkpointer{over_stock}.",
        members(&story.ours) + members(&story.stock) + 1,
        story.worked.as_secs_f64(),
        listed(&story.ours),
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
    [(Engine::Ours, &story.ours), (Engine::Stock, &story.stock)]
        .into_iter()
        .filter(|(_, share)| !share.ledgers.is_empty())
        .map(|(engine, share)| share_of(engine, share, story))
        .collect()
}

fn share_of(engine: Engine, share: &Share, story: &Story) -> String {
    let transfers = story.ours.transfers() + story.stock.transfers();
    let writers = story.ours.ledgers.len() + story.stock.ledgers.len();
    let counts = || share.ledgers.iter().map(|ledger| ledger.transfers());
    let fastest = counts().max().unwrap_or(0);
    let slowest = counts().min().unwrap_or(0);
    format!(
        "{engine}: {} of them, {:.1} % by {:.0} % of the writers; \
         fastest writer : slowest = {} : {} ({:.2}), \
         longest wait for Write {} ms, longest time without a commit {} ms{}.",
        HumanCount(share.transfers()),
        percent(share.transfers() as f64, transfers as f64),
        percent(share.ledgers.len() as f64, writers as f64),
        HumanCount(fastest.cast_unsigned()),
        HumanCount(slowest.cast_unsigned()),
        fastest as f64 / slowest.max(1) as f64,
        share.longest_wait.as_millis(),
        share.longest_without_commit.as_millis(),
        match share.refusals {
            0 => String::new(),
            times => format!(", busy timeouts passed: {}", HumanCount(times)),
        },
    )
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

/// Both runs side by side: what the writers of each engine got without the
/// extension, and with it.
pub(crate) fn comparison(without: &Story, with: &Story) -> Vec<String> {
    let of_all = |story: &Story| {
        let ledgers = story.ours.ledgers.iter().chain(&story.stock.ledgers);
        let counts: Vec<i64> = ledgers.map(|ledger| ledger.transfers()).collect();
        let slowest = counts.iter().min().copied().unwrap_or(0);
        let fastest = counts.iter().max().copied().unwrap_or(0);
        format!("{:.2}", slowest as f64 / fastest.max(1) as f64)
    };
    let share = |story: &Story| {
        let stock = story.stock.transfers() as f64;
        format!(
            "{:.1} %",
            percent(stock, stock + story.ours.transfers() as f64)
        )
    };
    let transfers = |share: &Share| HumanCount(share.transfers()).to_string();
    let wait = |share: &Share| format!("{} ms", share.longest_wait.as_millis());
    let pause = |share: &Share| format!("{} ms", share.longest_without_commit.as_millis());
    let row = |what: &str, of: &dyn Fn(&Story) -> String| {
        format!("{what:<44} {:>14} {:>14}", of(without), of(with))
    };
    vec![
        String::new(),
        format!(
            "{:<44} {:>14} {:>14}",
            "wal-queue in stock SQLite", "without", "with"
        ),
        row("transfers by this library", &|story| transfers(&story.ours)),
        row("transfers by stock SQLite", &|story| {
            transfers(&story.stock)
        }),
        row("share of stock SQLite", &share),
        row("slowest writer : fastest, of all", &of_all),
        row("longest wait for WRITE, this library", &|story| {
            wait(&story.ours)
        }),
        row("longest wait for WRITE, stock SQLite", &|story| {
            wait(&story.stock)
        }),
        row("longest without a commit, stock SQLite", &|story| {
            pause(&story.stock)
        }),
        row("busy timeouts passed, stock SQLite", &|story| {
            HumanCount(story.stock.refusals).to_string()
        }),
        String::new(),
    ]
}
