//! A process is killed by SIGKILL at every step of every operation, and the
//! next one goes on: at once, with all that was acknowledged, and with every
//! lock to be had.
//!
//! Each operation is first run to its end to learn which step points it
//! passes; then it is run once for each of them and for each kind of process
//! that may come next, and killed just before that step. `WAL_KILL_ROUNDS` is
//! how often all of that is done.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod operations;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use integration::worker::{Checkpoint, Command, WATCHDOG, Worker};
use operations::{
    ALL, CHECKPOINTS, COMMITS, OPENINGS, Operation, READS, WRITES, sharing_syncs, write_2,
};
use rusqlite::types::Value;
use scene::{PAGES, Scene, expect_sound, expect_trimmed, stamp};
use wal_core::testing::Point;

/// How soon the next user has done each single thing on a machine that is busy with
/// much else: below the busy timeout, so that no wait for a dead process passes.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Who uses the database after the death.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// A process that was attached all the time; a new one where there is
    /// none.
    Survivor,
    /// A process that opens the database when nobody has it open any more.
    Newcomer,
    /// Stock SQLite.
    Stock,
}

/// The step points that `operation` passes, in order.
fn record(operation: &Operation) -> Vec<String> {
    let mut scene = Scene::new();
    let mut worker = (operation.prepare)(&mut scene);
    worker.run(Command::Record).unwrap();
    worker.run((operation.command)(&scene)).unwrap();
    worker.ask(Command::Passed).unwrap()
}

/// The points with the number of the pass: the second `lock` is `("lock", 2)`.
fn numbered(points: &[String]) -> Vec<(&str, u32)> {
    let mut passes = BTreeMap::new();
    points
        .iter()
        .map(|point| {
            let pass = passes.entry(point).or_insert(0);
            *pass += 1;
            (point.as_str(), *pass)
        })
        .collect()
}

/// Kills a worker in `operation` and lets `next` go on; the sequence that it
/// found.
fn kill_at(operation: &Operation, point: &str, pass: u32, next: Next) -> u64 {
    let mut scene = Scene::new();
    let mut worker = (operation.prepare)(&mut scene);
    worker.stop_at(point, pass).unwrap();
    worker.send(&(operation.command)(&scene)).unwrap();
    worker.wait_stopped(WATCHDOG).unwrap();
    worker.kill().unwrap();
    if let Some(mut reader) = scene.reader.take() {
        reader.kill().unwrap();
    }
    if next == Next::Newcomer
        && let Some(mut keeper) = scene.keeper.take()
    {
        keeper.kill().unwrap();
    }
    if next == Next::Stock {
        let mut stock = scene.stock();
        expect_sound(&mut stock);
        stock.run("INSERT INTO t VALUES(1)").unwrap().unwrap();
        let truncate = stock.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert_eq!(truncate.unwrap().0[0][0], Value::Integer(0), "not busy");
        stock.close().unwrap();
    }
    let mut successor = match scene.keeper.take() {
        Some(keeper) => keeper,
        None => scene.worker(),
    };
    let found = go_on(&scene, &mut successor);
    successor.run(Command::Close).unwrap();
    successor.end().unwrap();
    let mut stock = scene.stock();
    expect_sound(&mut stock);
    let inserted = stock.run("SELECT count(*) FROM t WHERE a=1").unwrap();
    let expected = i64::from(next == Next::Stock);
    assert_eq!(inserted.unwrap().integer().unwrap(), expected);
    stock.close().unwrap();
    // Read from the file, with nothing left of what anybody had in memory.
    let stored = scene.worker().newest_stamps(PAGES.start..PAGES.start + 1);
    assert_eq!(
        stored.unwrap(),
        [Some(stamp(100))],
        "at {point} {pass}, then {next:?}"
    );
    found
}

/// Uses everything that a dead process could be in the way of; the sequence
/// that was found.
fn go_on(scene: &Scene, successor: &mut Worker) -> u64 {
    let mut run = |command: Command| {
        successor.send(&command).unwrap();
        successor.finish::<serde_json::Value>(AT_ONCE).unwrap()
    };
    let name = "next".to_owned();
    run(Command::BeginRead { name: name.clone() });
    let pages = PAGES;
    let seen = run(Command::Stamps {
        name: name.clone(),
        pages,
    });
    run(Command::EndRead { name });
    run(Command::BeginWrite);
    // Fewer pages than the dead wrote, so that leftovers of theirs would show.
    let (pages, stamp) = (PAGES.start..PAGES.start + 1, stamp(100));
    run(Command::Write { pages, stamp });
    run(Command::Commit);
    expect_trimmed(&scene.path);
    assert_eq!(run(Command::Checkpoint(Checkpoint::Passive)), true);
    one_sequence(seen)
}

fn one_sequence(stamps: serde_json::Value) -> u64 {
    let stamps: Vec<Option<integration::worker::Stamp>> = serde_json::from_value(stamps).unwrap();
    let first = stamps[0].expect("the pages were stamped");
    assert!(
        stamps.iter().all(|&stamp| stamp == Some(first)),
        "{stamps:?}"
    );
    first.sequence
}

/// Kills workers at every step of `operations`.
fn kill_in(operations: &[Operation]) {
    let rounds = std::env::var("WAL_KILL_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut kills = 0;
    for operation in (0..rounds).flat_map(|_| operations) {
        let points = record(operation);
        let steps = numbered(&points);
        kills += 3 * steps.len();
        assert!(
            !steps.is_empty(),
            "{}: no step to be killed at",
            operation.name
        );
        for next in [Next::Survivor, Next::Newcomer, Next::Stock] {
            let found = steps.iter().map(|&(point, pass)| {
                println!("{}: at {point} {pass}, then {next:?}", operation.name);
                kill_at(operation, point, pass, next)
            });
            expect_outcomes(operation, &found.collect::<Vec<_>>());
        }
    }
    println!("{kills} kills in {rounds} rounds");
}

/// At the first step nothing was done yet; a commit that was done at one step
/// stays done at all later ones, and is done at the last.
fn expect_outcomes(operation: &Operation, found: &[u64]) {
    let name = operation.name;
    assert!(
        found.is_sorted(),
        "{name}: undone by a later step: {found:?}"
    );
    assert_eq!(
        found.first(),
        operation.outcomes.first(),
        "{name}: {found:?}"
    );
    assert_eq!(found.last(), operation.outcomes.last(), "{name}: {found:?}");
    assert!(
        found
            .iter()
            .all(|sequence| operation.outcomes.contains(sequence)),
        "{name}: neither before nor after: {found:?}"
    );
}

#[test]
fn every_step_point_is_passed_by_some_operation() {
    let mut passed: BTreeSet<String> = ALL.into_iter().flatten().flat_map(record).collect();
    // These take two. Tests of their own kill at the first two, and at the
    // third nothing is held.
    for point in [Point::WaitForWrite, Point::WaitForSync, Point::TryAgain] {
        passed.insert(point.name().to_owned());
    }
    let known: BTreeSet<String> = Point::ALL
        .iter()
        .map(|point| point.name().to_owned())
        .collect();
    assert_eq!(passed, known);
}

#[test]
fn a_process_killed_in_a_read_is_in_nobodys_way() {
    kill_in(READS);
}

#[test]
fn a_process_killed_in_a_write_transaction_is_in_nobodys_way() {
    kill_in(WRITES);
}

#[test]
fn a_commit_is_there_or_not_when_its_process_is_killed() {
    kill_in(COMMITS);
}

#[test]
fn who_waits_for_a_sync_goes_on_without_its_leader_and_is_in_nobodys_way() {
    for waiter_dies in [false, true] {
        let waits = || kill_leader(waiter_dies);
        assert!((0..50).any(|_| waits()), "nobody waits for the leader");
    }
}

/// One leads and is killed before its sync; another waits for it, and is
/// killed too, or goes on by itself. False if the other came too late to wait:
/// a leader that seems dead is not waited for.
fn kill_leader(waiter_dies: bool) -> bool {
    let mut scene = Scene::new();
    scene.keep().commit(PAGES, stamp(1)).unwrap();
    let mut waiter = Worker::open(&sharing_syncs(&scene)).unwrap();
    waiter.stop_at("wait-for-sync", 1).unwrap();
    let mut leader = write_2(Worker::open(&sharing_syncs(&scene)).unwrap());
    leader.stop_at("commit-sync", 1).unwrap();
    leader.send(&Command::Commit).unwrap();
    leader.wait_stopped(WATCHDOG).unwrap();
    // Write is free by now.
    let mut waiter = write_2(waiter);
    waiter.send(&Command::Commit).unwrap();
    let waited = waiter.wait_stopped(WATCHDOG).is_ok();
    leader.kill().unwrap();
    if waited && !waiter_dies {
        waiter.go().unwrap();
        waiter.finish::<serde_json::Value>(AT_ONCE).unwrap();
    }
    waiter.kill().unwrap();
    let mut keeper = scene.keeper.take().unwrap();
    assert_eq!(go_on(&scene, &mut keeper), 2);
    keeper.end().unwrap();
    waited
}

#[test]
fn a_process_killed_in_a_checkpoint_is_in_nobodys_way() {
    kill_in(CHECKPOINTS);
}

#[test]
fn a_process_killed_while_it_opens_or_closes_is_in_nobodys_way() {
    kill_in(OPENINGS);
}
