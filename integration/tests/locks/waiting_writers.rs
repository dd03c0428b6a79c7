//! A writer that waits for another gets its turn at once when the other
//! commits, rolls back or is killed, and a waiter that is killed is in
//! nobody's way.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use integration::worker::{
    Command, Load, LoadReport, RefusalKind, Role, Settings, Stamp, WATCHDOG, Worker,
};
use tempfile::TempDir;

/// Far above what a wake-up takes on a machine that is busy with much else, and
/// below the busy timeout.
const PROMPTLY: Duration = Duration::from_secs(20);

const STAMP: Stamp = Stamp {
    writer: 1,
    sequence: 1,
};

struct Fixture {
    settings: Settings,
    _directory: TempDir,
}

impl Fixture {
    fn new(side_file: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = Settings::new(&directory.path().join("pages"));
        settings.busy_timeout = WATCHDOG;
        settings.side_file = side_file;
        Fixture {
            settings,
            _directory: directory,
        }
    }

    fn worker(&self) -> Worker {
        Worker::open(&self.settings).unwrap()
    }

    /// A worker that has found Write taken, has lined up, and is about to
    /// sleep.
    fn waiting(&self) -> Worker {
        let mut waiter = self.worker();
        waiter.stop_at("wait-for-write", 1).unwrap();
        waiter.send(&Command::BeginWrite).unwrap();
        waiter.wait_stopped(WATCHDOG).unwrap();
        waiter.go().unwrap();
        waiter
    }
}

/// Both with wake-ups and without.
fn with_and_without_side_file(test: impl Fn(&Fixture)) {
    test(&Fixture::new(true));
    test(&Fixture::new(false));
}

fn write_promptly(mut waiter: Worker) {
    waiter.finish::<serde_json::Value>(PROMPTLY).unwrap();
    let pages = 1..2;
    let stamp = STAMP;
    waiter.run(Command::Write { pages, stamp }).unwrap();
    waiter.run(Command::Commit).unwrap();
}

#[test]
fn a_waiting_writer_goes_on_when_the_writer_commits() {
    with_and_without_side_file(|fixture| {
        let mut writer = fixture.worker();
        writer.run(Command::BeginWrite).unwrap();
        let waiter = fixture.waiting();
        writer.run(Command::Commit).unwrap();
        write_promptly(waiter);
    });
}

#[test]
fn a_waiting_writer_goes_on_when_the_writer_rolls_back() {
    with_and_without_side_file(|fixture| {
        let mut writer = fixture.worker();
        writer.run(Command::BeginWrite).unwrap();
        let waiter = fixture.waiting();
        writer.run(Command::Rollback).unwrap();
        write_promptly(waiter);
    });
}

#[test]
fn a_waiting_writer_goes_on_when_the_writer_is_killed() {
    with_and_without_side_file(|fixture| {
        let mut writer = fixture.worker();
        writer.run(Command::BeginWrite).unwrap();
        let waiter = fixture.waiting();
        writer.kill().unwrap();
        write_promptly(waiter);
    });
}

#[test]
fn a_waiter_that_is_killed_is_in_nobodys_way() {
    with_and_without_side_file(|fixture| {
        let mut writer = fixture.worker();
        writer.run(Command::BeginWrite).unwrap();
        let mut dead = fixture.waiting();
        let alive = fixture.waiting();
        dead.kill().unwrap();
        writer.run(Command::Commit).unwrap();
        write_promptly(alive);
        writer.commit(1..2, STAMP).unwrap();
    });
}

#[test]
fn eight_waiting_writers_all_get_their_turn() {
    with_and_without_side_file(|fixture| {
        let mut writer = fixture.worker();
        writer.run(Command::BeginWrite).unwrap();
        let mut waiters: Vec<Worker> = (0..8).map(|_| fixture.waiting()).collect();
        for waiter in &mut waiters {
            waiter.send(&Command::Commit).unwrap();
        }
        writer.run(Command::Commit).unwrap();
        for waiter in &mut waiters {
            for _begun_and_committed in 0..2 {
                waiter.finish::<serde_json::Value>(WATCHDOG).unwrap();
            }
        }
    });
}

/// Without a line the one that is running gets Write again and again, and
/// others have a hundredth of its commits.
#[test]
fn busy_writers_have_equal_shares() {
    let fixture = Fixture::new(true);
    let mut writers: Vec<Worker> = (0..4).map(|_| fixture.worker()).collect();
    for (id, writer) in (1..).zip(&mut writers) {
        let load = Load {
            threads: 1,
            role: Role::BusyWriter { id },
            pages: 1..2,
            seed: 0,
            duration: Duration::from_secs(2),
        };
        writer.send(&Command::Load(load)).unwrap();
    }
    let finished = |writer: &mut Worker| writer.finish::<LoadReport>(WATCHDOG).unwrap().rounds;
    let commits: Vec<u64> = writers.iter_mut().map(finished).collect();
    let (least, most) = (commits.iter().min().unwrap(), commits.iter().max().unwrap());
    assert!(least * 3 >= *most, "{commits:?}");
}

#[test]
fn a_writer_that_never_gets_its_turn_is_told_busy_after_its_timeout() {
    with_and_without_side_file(|fixture| {
        let mut writer = fixture.worker();
        writer.run(Command::BeginWrite).unwrap();
        let mut settings = fixture.settings.clone();
        settings.busy_timeout = Duration::from_millis(20);
        let mut waiter = Worker::open(&settings).unwrap();
        let refusal = waiter.refused(Command::BeginWrite).unwrap();
        assert_eq!(refusal, RefusalKind::Busy);
        writer.run(Command::Commit).unwrap();
        waiter.run(Command::BeginWrite).unwrap();
    });
}
