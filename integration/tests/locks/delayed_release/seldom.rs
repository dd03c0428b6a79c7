//! A process that reads seldom, or a few times, releases its lock with each
//! transaction: a checkpoint, and a signal that stops the process, finds none.

use std::time::{Duration, Instant};

use integration::worker::{Checkpoint, WATCHDOG, Worker};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{DELAY, MANY, Scene, checkpoint, onlooker, stock_checkpoint, update};

const ROUNDS: u32 = 200;

#[test]
fn process_that_read_a_few_times_keeps_no_lock() {
    let scene = Scene::new(DELAY);
    let (mut reader, mut stock, mut onlooker) = (scene.worker(), scene.stock(), onlooker());
    for log_is_empty in [true, false] {
        for times in [1, 2, 3, 4, 8, 15] {
            for round in 0..20 {
                reader.read_times(times, Duration::ZERO).unwrap();
                let held = scene.held_slots(&mut onlooker);
                assert!(held.is_empty(), "{times} reads, round {round}: {held:?}");
            }
        }
        if log_is_empty {
            update(&mut stock);
        }
    }
}

#[test]
fn process_that_reads_with_pauses_keeps_no_lock() {
    let scene = Scene::new(DELAY);
    let (mut reader, mut onlooker) = (scene.worker(), onlooker());
    for pause in [Duration::from_micros(100), Duration::from_millis(1)] {
        for round in 0..10 {
            reader.read_times(MANY, pause).unwrap();
            let held = scene.held_slots(&mut onlooker);
            assert!(held.is_empty(), "{pause:?}, round {round}: {held:?}");
        }
    }
}

#[test]
fn process_that_slows_down_keeps_no_lock() {
    let scene = Scene::new(100 * DELAY);
    let (mut reader, mut onlooker) = (scene.worker(), onlooker());
    let since = Instant::now();
    loop {
        reader.read_times(MANY, Duration::ZERO).unwrap();
        if !scene.held_slots(&mut onlooker).is_empty() {
            break;
        }
        assert!(since.elapsed() < WATCHDOG, "release was never delayed");
    }
    // Far slower than often, and still several reads within the delay.
    reader.read_times(100, 10 * DELAY).unwrap();
    assert_eq!(scene.held_slots(&mut onlooker), []);
}

#[test]
fn seldom_reader_leaves_every_stock_checkpoint_complete() {
    let scene = Scene::new(DELAY);
    let (mut reader, mut stock) = (scene.worker(), scene.stock());
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        for round in 0..ROUNDS {
            update(&mut stock);
            reader.read_times(2, Duration::ZERO).unwrap();
            update(&mut stock);
            assert!(stock_checkpoint(&mut stock, mode), "{mode}, round {round}");
        }
    }
}

#[test]
fn seldom_reader_leaves_every_checkpoint_complete() {
    let mut scene = Scene::new(DELAY);
    scene.settings.checkpoint_patience = Duration::ZERO;
    let (mut reader, mut writer) = (scene.worker(), scene.worker());
    let modes = [
        Checkpoint::Passive,
        Checkpoint::Full,
        Checkpoint::Restart,
        Checkpoint::Truncate,
    ];
    for mode in modes {
        for round in 0..ROUNDS {
            scene.commit(&mut writer, 1);
            reader.read_times(2, Duration::ZERO).unwrap();
            scene.commit(&mut writer, 2);
            assert!(checkpoint(&mut writer, mode), "{mode:?}, round {round}");
        }
    }
}

#[test]
fn seldom_reader_that_is_stopped_blocks_no_checkpoint() {
    let scene = Scene::new(DELAY);
    let (mut reader, mut stock) = (scene.worker(), scene.stock());
    let mut ours = scene.worker();
    for round in 0..20 {
        update(&mut stock);
        reader.read_times(2, Duration::ZERO).unwrap();
        stop(&reader);
        update(&mut stock);
        assert!(stock_checkpoint(&mut stock, "PASSIVE"), "round {round}");
        assert!(stock_checkpoint(&mut stock, "TRUNCATE"), "round {round}");
        scene.commit(&mut ours, 1);
        assert!(checkpoint(&mut ours, Checkpoint::Passive), "round {round}");
        assert!(checkpoint(&mut ours, Checkpoint::Truncate), "round {round}");
        proceed(&reader);
    }
}

fn pid(worker: &Worker) -> Pid {
    Pid::from_raw(i32::try_from(worker.pid()).unwrap())
}

/// Stops the process, as `docker pause` does; it is stopped when this returns.
pub(crate) fn stop(worker: &Worker) {
    kill(pid(worker), Signal::SIGSTOP).unwrap();
    let stopped = waitpid(pid(worker), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid(worker), Signal::SIGSTOP));
}

pub(crate) fn proceed(worker: &Worker) {
    kill(pid(worker), Signal::SIGCONT).unwrap();
}
