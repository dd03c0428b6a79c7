//! A process that is stopped, at each step of what it does and after it, as by `docker
//! pause`. Checkpoints beside it do as much as beside one whose release is never delayed.

use std::time::Duration;

use integration::stock::StockSqlite;
use integration::worker::{Checkpoint, Command, Stamp, WATCHDOG, Worker};

use super::seldom::{proceed, stop};
use super::{DELAY, Scene, update};

/// What a process does when it is stopped, if it seldom reads.
const OPERATIONS: [Command; 4] = [
    Command::ReadTimes {
        times: 3,
        pause: Duration::ZERO,
    },
    Command::BeginWrite,
    Command::Commit,
    Command::Checkpoint(Checkpoint::Passive),
];
const STAMP: Stamp = Stamp {
    writer: 2,
    sequence: 2,
};

/// A process that is about to do an operation, with something in the log, and its peers.
struct Prepared {
    scene: Scene,
    frozen: Worker,
    ours: Worker,
    stock: StockSqlite,
}

impl Prepared {
    fn new(delay: Duration, operation: &Command) -> Self {
        let mut scene = Scene::new(delay);
        scene.settings.checkpoint_patience = Duration::ZERO;
        let (mut frozen, mut ours, mut stock) = (scene.worker(), scene.worker(), scene.stock());
        ours.read_times(1, Duration::ZERO).unwrap();
        update(&mut stock);
        frozen.read_times(2, Duration::ZERO).unwrap();
        if matches!(operation, Command::Commit) {
            let (pages, stamp) = (scene.pages.clone(), STAMP);
            frozen.run(Command::BeginWrite).unwrap();
            frozen.run(Command::Write { pages, stamp }).unwrap();
        }
        Prepared {
            scene,
            frozen,
            ours,
            stock,
        }
    }
}

/// The steps of `operation`, each with the number of the pass.
fn steps(operation: &Command) -> Vec<(String, u32)> {
    let mut prepared = Prepared::new(Duration::ZERO, operation);
    let frozen = &mut prepared.frozen;
    frozen.run(Command::Record).unwrap();
    frozen.send(operation).unwrap();
    let _: serde_json::Value = frozen.finish(WATCHDOG).unwrap();
    let passed: Vec<String> = frozen.ask(Command::Passed).unwrap();
    let pass_at = |at: usize| {
        let same = passed[..=at].iter().filter(|step| **step == passed[at]);
        u32::try_from(same.count()).unwrap()
    };
    let numbers = (0..passed.len()).map(pass_at);
    let numbered = passed.iter().cloned().zip(numbers);
    // Between the two stores of a header stock SQLite waits for ten seconds.
    numbered
        .filter(|(step, _)| step != "header-store-first")
        .collect()
}

/// What others can do while the process is stopped at `step`, or after the operation.
fn done_beside(delay: Duration, operation: &Command, step: Option<&(String, u32)>) -> Vec<String> {
    let mut prepared = Prepared::new(delay, operation);
    let Prepared {
        scene,
        frozen,
        ours,
        stock,
    } = &mut prepared;
    if let Some((point, pass)) = step {
        frozen.stop_at(point, *pass).unwrap();
    }
    frozen.send(operation).unwrap();
    match step {
        Some(_) => frozen.wait_stopped(WATCHDOG).unwrap(),
        None => {
            let _: serde_json::Value = frozen.finish(WATCHDOG).unwrap();
            stop(frozen);
        }
    }
    let mut done = Vec::new();
    for sql in [
        "UPDATE t SET n = n + 1",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ] {
        done.push(format!("{sql}: {:?}", stock.run(sql).unwrap()));
    }
    for mode in [Checkpoint::Passive, Checkpoint::Truncate] {
        let whole: Option<bool> = ours.ask(Command::Checkpoint(mode)).ok();
        done.push(format!("{mode:?} of ours: {whole:?}"));
    }
    let frames = scene.log_frames();
    done.push(format!("{frames} frames in the log"));
    match step {
        Some(_) => {
            frozen.go().unwrap();
            let _: Result<serde_json::Value, _> = frozen.finish(WATCHDOG);
        }
        None => proceed(frozen),
    }
    done
}

#[test]
fn stopped_process_holds_up_no_more_than_without_delay() {
    for operation in &OPERATIONS {
        let steps = steps(operation);
        assert!(!steps.is_empty(), "{operation:?} has no steps");
        for step in steps.iter().map(Some).chain([None]) {
            let done = |delay| done_beside(delay, operation, step);
            let [with, without] = [DELAY, Duration::ZERO].map(done);
            assert_eq!(with, without, "{operation:?}, stopped at {step:?}");
        }
    }
}
