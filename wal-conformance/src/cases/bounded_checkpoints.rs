//! Checkpoints beyond Passive that keep writers waiting for a bounded time at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::calls::{Call, Which};
use crate::scene::{Scene, User};
use crate::subject::Subject;
use wal_core::protocol::{
    BusyHandler, CheckpointMode, CheckpointOptions, CheckpointReport, HeldBack,
};
use wal_core::types::{Lock, LockMode};

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(60);

fn run<B: Subject>(
    user: &User<B>,
    mode: CheckpointMode,
    bound: Duration,
    busy: impl Into<BusyHandler>,
) -> CheckpointReport {
    let options = CheckpointOptions::new(mode).max_block(bound).busy(busy);
    let report = user.wal.checkpoint_with(options);
    report.expect("no file fails, and there is no other checkpoint")
}

fn acquires_write(call: &Call) -> bool {
    matches!(call, Call::TryLock(Lock::Write, LockMode::Exclusive))
}

fn writes_database(call: &Call) -> bool {
    matches!(call, Call::Write { file, .. } if *file == Which::Database)
}

fn lock_of(report: &CheckpointReport) -> Option<Lock> {
    report.held_back_by.as_ref().map(|by: &HeldBack| by.lock)
}

pub(crate) fn bounded_checkpoint_beside_commits_reaches_its_goal<B: Subject>() {
    use CheckpointMode::{Full, Restart, Truncate};
    for (mode, frames_left) in [(Full, 5), (Restart, 0), (Truncate, 0)] {
        let scene = Scene::<B>::new(4);
        let (user, other) = scene.two();
        user.commit(&[1, 2, 3, 4], 1);
        // It comes when the pages are being copied, and `WRITE` is free.
        let commits = other.clone();
        user.before(writes_database, move || commits.commit(&[2], 2));
        let report = run(&user, mode, LONG, LONG);
        user.assert_stepped_in();
        assert_eq!(lock_of(&report), None, "{mode:?}");
        assert_eq!(report.log_frames, frames_left, "{mode:?}");
        assert!(report.is_complete() && report.writers_held_up > Duration::ZERO);
        assert_eq!(other.versions(), [1, 2, 1, 1]);
        let (_, log) = scene.files();
        assert_eq!(log.is_empty(), mode == Truncate);
        scene.assert_quiet();
    }
}

pub(crate) fn bounded_checkpoint_behind_a_reader_leaves_write_alone<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, other) = scene.two();
    user.commit(&[1, 2], 1);
    let reader = other.read();
    user.commit(&[1], 2);
    let (report, trace) = user.trace(|user| run(user, CheckpointMode::Restart, LONG, LONG / 1000));
    assert!(!trace.iter().any(acquires_write), "{trace:?}");
    assert_eq!((report.backfilled, report.log_frames), (2, 3));
    assert_eq!(report.held_back_by.and_then(|by| by.mark), Some(2));
    assert_eq!(report.writers_held_up, Duration::ZERO);
    drop(reader);
    scene.assert_quiet();
}

pub(crate) fn bounded_checkpoint_that_waits_for_readers_lets_writers_in<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, other) = scene.two();
    user.commit(&[1, 2], 1);
    let reader = Arc::new(Mutex::new(Some(other.read())));
    // Between two tries a writer finds `WRITE` free; the reader ends after the second try.
    let (reading, writer) = (reader.clone(), scene.user());
    let tries = Arc::new(Mutex::new(Vec::new()));
    let tried = tries.clone();
    let between = BusyHandler::ask(move |lock, _| {
        let mut tried = tried.lock().unwrap();
        tried.push(lock);
        if tried.len() == 2 {
            drop(reading.lock().unwrap().take());
            writer.commit(&[3], 3);
        }
        tried.len() < 10
    });
    let before = user.header().salts();
    let report = run(&user, CheckpointMode::Restart, Duration::ZERO, between);
    assert_eq!(*tries.lock().unwrap(), [Lock::ReadMarks, Lock::ReadMarks]);
    assert_eq!(lock_of(&report), None, "{report:?}");
    assert_ne!(user.header().salts(), before, "the log went on");
    assert_eq!(other.versions(), [1, 1, 3, 0]);
    scene.assert_quiet();
}

pub(crate) fn bounded_checkpoint_that_waits_for_write_copies_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, other) = scene.two();
    user.commit(&[1, 2], 1);
    let write = other.wal.begin_write(Duration::ZERO);
    assert!(write.is_ok(), "WRITE is free");
    // Each round acquires `CKPT` to copy, and again to finish.
    let copies = |call: &&Call| matches!(call, Call::TryLock(Lock::Checkpoint, _));
    let (bound, timeout) = (Duration::from_millis(1), Duration::from_millis(200));
    let (report, trace) = user.trace(|user| run(user, CheckpointMode::Restart, bound, timeout));
    assert_eq!(lock_of(&report), Some(Lock::Write), "{report:?}");
    assert!(report.is_complete(), "{report:?}");
    assert!(trace.iter().filter(copies).count() > 2, "{trace:?}");
    drop(write);
    scene.assert_quiet();
}

pub(crate) fn bounded_checkpoint_copies_much_without_write<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, other) = scene.two();
    user.commit(&[1, 2], 1);
    // More than a mebibyte, committed just before it acquires `WRITE`.
    let page = u32::try_from(scene.files().0.len() / 2).unwrap();
    let many = (1 << 20) / page + 1;
    let commits = other.clone();
    user.before(acquires_write, move || {
        (0..many).for_each(|version| commits.commit(&[2], version));
    });
    let began = CheckpointMode::Restart;
    let (report, trace) = user.trace(|user| run(user, began, Duration::from_nanos(1), LONG));
    assert_eq!(lock_of(&report), None, "{report:?}");
    assert_eq!(trace.iter().filter(|call| acquires_write(call)).count(), 2);
    assert_eq!(other.versions(), [1, many - 1]);
    scene.assert_quiet();
}

pub(crate) fn bounded_truncate_cuts_a_long_log_in_steps<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, other) = scene.two();
    let page = scene.files().0.len() / 2;
    let commits = (3 << 20) / u32::try_from(page).unwrap();
    (1..=commits).for_each(|version| user.commit(&[1], version));
    let len = scene.files().1.len() as u64;
    // A commit after the first cut finds a log that it can write.
    let cuts_log = |call: &Call| matches!(call, Call::SetLen(Which::Log, _));
    let commits_beside = other.clone();
    let between = BusyHandler::ask(move |_, tries| {
        if tries == 1 {
            commits_beside.commit(&[2], 7);
        }
        true
    });
    let (report, trace) = user.trace(|user| run(user, CheckpointMode::Truncate, LONG, between));
    assert!(
        trace.iter().filter(|call| cuts_log(call)).count() > 1,
        "{trace:?}"
    );
    assert_eq!(lock_of(&report), None, "{report:?}");
    assert!(report.log_bytes_cut >= len, "{report:?}");
    assert!(scene.files().1.is_empty());
    assert_eq!(other.versions(), [commits, 7]);
    scene.assert_quiet();
}
