//! A checkpoint of this library reclaims a lock that a peer holds without using it.

use std::fs;
use std::time::{Duration, Instant};

use integration::worker::{Checkpoint, Command, WATCHDOG, Worker};
use wal_core::ReadSlot;

use super::seldom::{proceed, stop};
use super::{DELAY, FOR_EVER, Scene, checkpoint, onlooker, read_often};

const ROUNDS: u64 = 20;
const MODES: [Checkpoint; 4] = [
    Checkpoint::Passive,
    Checkpoint::Full,
    Checkpoint::Restart,
    Checkpoint::Truncate,
];

/// How many checkpoints it takes until one is complete.
fn tries_until_complete(writer: &mut Worker, mode: Checkpoint) -> u32 {
    let since = Instant::now();
    let mut tries = 1;
    while !checkpoint(writer, mode) {
        assert!(since.elapsed() < WATCHDOG, "{mode:?} is never complete");
        tries += 1;
    }
    tries
}

/// A commit, reads that leave their lock in `slot_zero` or in a slot with a mark,
/// another commit, and a checkpoint.
fn tries_beside_a_delayed_lock(mode: Checkpoint, slot_zero: bool) -> Vec<u32> {
    let mut scene = Scene::new(FOR_EVER);
    scene.settings.checkpoint_patience = Duration::ZERO;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    let mut onlooker = onlooker();
    let mut round = |sequence| {
        scene.commit(&mut writer, 2 * sequence);
        if slot_zero {
            assert!(checkpoint(&mut writer, Checkpoint::Passive));
        }
        read_often(&mut reader);
        let held = scene.held_slots(&mut onlooker);
        assert_eq!(held.len(), 1);
        assert_eq!(held[0] == ReadSlot::DATABASE, slot_zero);
        scene.commit(&mut writer, 2 * sequence + 1);
        let tries = tries_until_complete(&mut writer, mode);
        assert_eq!(scene.held_slots(&mut onlooker), [], "reclaimed");
        tries
    };
    (1..=ROUNDS).map(&mut round).collect()
}

#[test]
fn checkpoint_without_patience_reclaims_a_delayed_lock() {
    for mode in MODES {
        for slot_zero in [true, false] {
            let tries = tries_beside_a_delayed_lock(mode, slot_zero);
            println!("{mode:?}, slot 0: {slot_zero}: {tries:?} tries");
            // A peer that gets no processor within the bound answers too late.
            let at_once = tries.iter().filter(|&&tries| tries == 1).count();
            assert!(2 * at_once > tries.len(), "{mode:?} {slot_zero}: {tries:?}");
        }
    }
}

/// It was never at rest in its first slot when it went to the second.
#[test]
fn lock_acquired_while_release_is_delayed_is_reclaimed() {
    let mut scene = Scene::new(FOR_EVER);
    scene.settings.checkpoint_patience = Duration::ZERO;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    let mut onlooker = onlooker();
    read_often(&mut reader);
    assert_eq!(scene.held_slots(&mut onlooker), [ReadSlot::DATABASE]);
    scene.commit(&mut writer, 1);
    reader.read_times(1, Duration::ZERO).unwrap();
    assert_eq!(scene.held_slots(&mut onlooker), [ReadSlot::MARKED[0]]);
    scene.commit(&mut writer, 2);
    tries_until_complete(&mut writer, Checkpoint::Passive);
}

#[test]
fn checkpoint_that_waits_reclaims_a_delayed_lock() {
    let mut scene = Scene::new(FOR_EVER);
    scene.settings.checkpoint_patience = WATCHDOG;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    let mut onlooker = onlooker();
    for sequence in 1..=ROUNDS {
        scene.commit(&mut writer, sequence);
        read_often(&mut reader);
        assert_eq!(scene.held_slots(&mut onlooker).len(), 1);
        assert!(checkpoint(&mut writer, Checkpoint::Truncate));
        assert_eq!(fs::metadata(scene.file("-wal")).unwrap().len(), 0);
    }
}

/// It cannot answer, and is asked for a few milliseconds after its last look only.
#[test]
fn checkpoint_beside_a_stopped_reader_does_not_wait_each_time() {
    let mut scene = Scene::new(DELAY);
    scene.settings.checkpoint_patience = Duration::ZERO;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    let mut onlooker = onlooker();
    let since = Instant::now();
    // The sweeper may be ahead of the signal.
    loop {
        scene.commit(&mut writer, 1);
        reader.read_times(20_000, Duration::ZERO).unwrap();
        stop(&reader);
        if !scene.held_slots(&mut onlooker).is_empty() {
            break;
        }
        proceed(&reader);
        assert!(since.elapsed() < WATCHDOG, "it was never stopped in time");
    }
    scene.commit(&mut writer, 2);
    expect_held_back_without_a_wait(&mut writer);
    proceed(&reader);
    tries_until_complete(&mut writer, Checkpoint::Passive);
}

/// A transaction of a process that also reads at full speed is no lock to reclaim.
#[test]
fn checkpoint_beside_a_long_transaction_does_not_wait_each_time() {
    let mut scene = Scene::new(DELAY);
    scene.settings.checkpoint_patience = Duration::ZERO;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    let mut onlooker = onlooker();
    scene.commit(&mut writer, 1);
    reader.begin_read("long").unwrap();
    scene.commit(&mut writer, 2);
    let (times, pause) = (u32::MAX, Duration::ZERO);
    reader.send(&Command::ReadTimes { times, pause }).unwrap();
    let mut expect_two_held_slots = || {
        let since = Instant::now();
        while scene.held_slots(&mut onlooker).len() < 2 {
            assert!(since.elapsed() < WATCHDOG, "it does not read");
        }
    };
    expect_two_held_slots();
    expect_held_back_without_a_wait(&mut writer);
    expect_two_held_slots();
}

/// A checkpoint that reclaims takes two milliseconds at least if that is to no effect.
fn expect_held_back_without_a_wait(writer: &mut Worker) {
    let mut passive = |_| {
        let since = Instant::now();
        assert!(!checkpoint(writer, Checkpoint::Passive));
        since.elapsed()
    };
    let shortest = (0..50).map(&mut passive).min().unwrap();
    println!("{shortest:?} for a checkpoint that is held back");
    assert!(shortest < Duration::from_millis(2), "{shortest:?}");
}
