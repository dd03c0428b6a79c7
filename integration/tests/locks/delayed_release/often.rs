//! A process that reads often keeps its lock between two transactions, for a bounded
//! time, and only while that lock serves the newest state.

use std::thread;
use std::time::{Duration, Instant};

use integration::worker::{Synchronous, WATCHDOG, Worker};
use wal_core::ReadSlot;

use super::{DELAY, FOR_EVER, MANY, Scene, onlooker, read_often, update};

/// How long the lock was seen after the last of many reads; `None` if it was not.
fn kept_for(scene: &Scene, reader: &mut Worker, onlooker: &mut Worker) -> Option<Duration> {
    reader.read_times(20_000, Duration::ZERO).unwrap();
    let since = Instant::now();
    let mut seen = None;
    while !scene.held_slots(onlooker).is_empty() {
        seen = Some(since.elapsed());
        assert!(since.elapsed() < WATCHDOG, "the lock stays");
        thread::yield_now();
    }
    seen
}

#[test]
fn full_speed_reader_gone_idle_releases_within_its_delay() {
    let scene = Scene::new(DELAY);
    let (mut reader, mut onlooker) = (scene.worker(), onlooker());
    let kept: Vec<_> = (0..40)
        .filter_map(|_| kept_for(&scene, &mut reader, &mut onlooker))
        .collect();
    println!("the lock was seen for {kept:?}");
    // Where the processors are busy the sweeper is late, but not each time.
    let shortest = kept.iter().min().expect("release was never delayed");
    assert!(*shortest < 2 * DELAY, "{shortest:?} at least");
}

#[test]
fn full_speed_reader_keeps_one_slot_while_nothing_is_committed() {
    let scene = Scene::new(FOR_EVER);
    let (mut reader, mut stock) = (scene.worker(), scene.stock());
    let mut onlooker = onlooker();
    for log_is_empty in [true, false] {
        read_often(&mut reader);
        let held = scene.held_slots(&mut onlooker);
        assert_eq!(held.len(), 1);
        assert_eq!(held[0] == ReadSlot::DATABASE, log_is_empty);
        update(&mut stock);
    }
}

/// Whatever its slot: a checkpoint is due, or the next reader takes another slot.
#[test]
fn lock_of_an_older_state_is_released_with_its_transaction() {
    let scene = Scene::new(FOR_EVER);
    let (mut reader, mut stock) = (scene.worker(), scene.stock());
    let mut onlooker = onlooker();
    for slot_zero in [true, false] {
        read_often(&mut reader);
        let slot = reader.begin_read("older").unwrap().slot;
        assert_eq!(slot == Some(0), slot_zero);
        update(&mut stock);
        assert_eq!(scene.held_slots(&mut onlooker).len(), 1);
        reader.end_read("older").unwrap();
        assert_eq!(scene.held_slots(&mut onlooker), []);
    }
}

#[test]
fn without_a_delay_no_lock_outlives_its_transaction() {
    let scene = Scene::new(Duration::ZERO);
    let (mut reader, mut onlooker) = (scene.worker(), onlooker());
    for _ in 0..20 {
        reader.read_times(10 * MANY, Duration::ZERO).unwrap();
        assert_eq!(scene.held_slots(&mut onlooker), []);
    }
}

#[test]
fn closing_a_database_does_not_wait_for_the_delay() {
    let delays = [(true, FOR_EVER), (false, FOR_EVER), (true, Duration::MAX)];
    for (side_file, delay) in delays {
        let scene = Scene::new(delay);
        let options = wal::Options::new()
            .read_lock_delay(delay)
            .side_file(side_file);
        let database = options.open(&scene.settings.path).unwrap();
        for _ in 0..MANY {
            database.begin_read().unwrap();
        }
        let mut onlooker = onlooker();
        assert_eq!(scene.held_slots(&mut onlooker), [ReadSlot::DATABASE]);
        let since = Instant::now();
        database.close().unwrap();
        assert!(since.elapsed() < WATCHDOG, "{side_file} {delay:?}");
    }
}

#[test]
fn release_in_a_long_log_is_delayed_if_the_log_is_kept_short() {
    let mut scene = Scene::new(FOR_EVER);
    let mut careless = scene.worker();
    let (mut holder, mut reader) = (scene.worker(), scene.worker());
    scene.settings.auto_checkpoint = 1000;
    let (mut careful, mut stock) = (scene.worker(), scene.stock());
    let mut onlooker = onlooker();
    holder.begin_read("old").unwrap();
    let held = scene.held_slots(&mut onlooker);
    for sequence in 1..=300 {
        scene.commit(&mut careless, sequence);
    }
    read_often(&mut reader);
    assert_eq!(scene.held_slots(&mut onlooker), held);

    scene.commit(&mut careful, 301);
    read_often(&mut reader);
    assert_eq!(scene.held_slots(&mut onlooker).len(), held.len() + 1);

    update(&mut stock);
    read_often(&mut reader);
    assert_eq!(scene.held_slots(&mut onlooker), held);
}

/// A reader is there, or its lock, whenever stock SQLite tries to move what it has just
/// committed, so that a checkpoint of this library, which moves more at a time, has
/// nothing to do.
#[test]
fn release_is_not_delayed_in_a_log_that_grows_anyway() {
    const THRESHOLD: u32 = 1100;
    let mut scene = Scene::new(FOR_EVER);
    scene.settings.synchronous = Synchronous::Off;
    let mut reader = scene.worker();
    scene.settings.auto_checkpoint = THRESHOLD;
    let (mut ours, mut stock) = (scene.worker(), scene.stock());
    for sequence in 1..=2_400 {
        scene.commit(&mut ours, sequence);
        read_often(&mut reader);
        update(&mut stock);
    }
    let frames = scene.log_frames();
    println!("12,000 frames, a log of {frames}");
    assert!(frames < u64::from(5 * THRESHOLD), "the log has {frames}");
}
