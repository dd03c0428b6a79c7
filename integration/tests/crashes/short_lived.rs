//! Processes that live for one commit: every commit is there, whoever was
//! first opener or last closer of the moment.

use std::collections::BTreeSet;

use integration::worker::{Command, Settings, Stamp, WATCHDOG, Worker};
use tempfile::TempDir;

const PROCESSES: u64 = 20;

fn stamp(writer: u64) -> Stamp {
    Stamp {
        writer,
        sequence: 1,
    }
}

/// All that a process does in its life.
fn life(settings: &Settings, writer: u64) -> [Command; 5] {
    [
        Command::Open(settings.clone()),
        Command::BeginWrite,
        Command::AddPage {
            stamp: stamp(writer),
        },
        Command::Commit,
        Command::Close,
    ]
}

fn expect_all_there(settings: &Settings) {
    let mut worker = Worker::open(settings).unwrap();
    let snapshot = worker.begin_read("all").unwrap();
    assert_eq!(u64::from(snapshot.page_count), 1 + PROCESSES);
    let stamps = worker.stamps("all", 2..snapshot.page_count + 1).unwrap();
    let found: BTreeSet<_> = stamps.into_iter().flatten().collect();
    assert_eq!(found, (1..=PROCESSES).map(stamp).collect());
    worker.end().unwrap();
}

#[test]
fn twenty_processes_at_a_time_each_add_a_page_and_all_are_there() {
    let directory = TempDir::new().unwrap();
    let mut settings = Settings::new(&directory.path().join("pages"));
    settings.busy_timeout = WATCHDOG;
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| Worker::spawn().unwrap()).collect();
    for (worker, id) in workers.iter_mut().zip(1..) {
        for command in life(&settings, id) {
            worker.send(&command).unwrap();
        }
    }
    for mut worker in workers {
        for _ in life(&settings, 0) {
            let _answer: serde_json::Value = worker.finish(WATCHDOG).unwrap();
        }
        worker.end().unwrap();
    }
    expect_all_there(&settings);
}

#[test]
fn twenty_processes_one_after_the_other_each_add_a_page_and_all_are_there() {
    let directory = TempDir::new().unwrap();
    let settings = Settings::new(&directory.path().join("pages"));
    for id in 1..=PROCESSES {
        let mut worker = Worker::spawn().unwrap();
        for command in life(&settings, id) {
            worker.run(command).unwrap();
        }
        worker.end().unwrap();
    }
    expect_all_there(&settings);
}
