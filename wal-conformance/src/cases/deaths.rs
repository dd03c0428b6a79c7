//! A user dies, or a call fails, at every call of an operation in turn.

use crate::calls::Call;
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::CheckpointMode;
use wal_core::types::PageNo;

/// Those who are left go on: they read one of `states`, write, checkpoint,
/// and whoever recovers the files reads the same.
pub(super) fn others_go_on<B: Subject>(
    scene: &Scene<B>,
    other: &User<B>,
    n: usize,
    states: &[[u32; 3]],
) {
    scene.assert_quiet();
    let seen = other.versions();
    assert!(
        states.iter().any(|state| seen == state),
        "call {n}: {seen:?}"
    );
    let (database, log) = scene.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log))
        .user()
        .versions();
    assert!(
        states.iter().any(|state| recovered == state),
        "call {n}, recovered: {recovered:?}"
    );
    other.commit(&[2], 9);
    let expected = [seen[0], 9, seen[2]];
    assert_eq!(
        other.versions(),
        expected,
        "call {n}, after the next commit"
    );
    other.checkpoint_all();
    assert_eq!(other.versions(), expected, "call {n}, after a checkpoint");
    let (database, log) = scene.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log))
        .user()
        .versions();
    assert_eq!(recovered, expected, "call {n}, recovered at the end");
}

pub(crate) fn a_writer_that_dies_at_any_call_commits_all_or_nothing<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2], 1);
        if !writer.dies(nth(n), |writer| writer.commit(&[1, 3], 2)) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1, 1, 0], [2, 1, 2]]);
        true
    });
}

pub(crate) fn a_restarting_writer_that_dies_at_any_call_loses_nothing<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        writer.checkpoint_all();
        if !writer.dies(nth(n), |writer| writer.commit(&[1, 3], 2)) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1, 1, 1], [2, 1, 2]]);
        true
    });
}

pub(crate) fn a_checkpoint_that_dies_at_any_call_loses_nothing<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (checkpointer, other) = scene.two();
        other.commit(&[1, 2], 1);
        other.commit(&[2, 3], 2);
        if !checkpointer.dies(nth(n), |user| user.checkpoint_all()) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1, 2, 2]]);
        true
    });
}

pub(crate) fn a_recovery_that_dies_at_any_call_is_done_by_the_next<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (one, other) = scene.two();
        other.commit(&[1, 2], 1);
        other.commit(&[2, 3], 2);
        other.damage_header();
        if !one.dies(nth(n), |one| drop(one.versions())) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1, 2, 2]]);
        true
    });
}

/// The calls that can fail: `mark` and its like cannot.
pub(super) fn fails_at<B: Subject>(user: &User<B>, n: usize) {
    let mut nth = nth(n);
    let can_fail = |call: &Call| {
        !matches!(
            call,
            Call::Unlock(..) | Call::Mark(_) | Call::SetMark(..) | Call::Wake(_) | Call::Sleep(_)
        )
    };
    user.then(move |call| can_fail(call) && nth(call), || Then::Fail);
}

pub(crate) fn an_error_at_any_call_of_a_commit_leaves_no_lock<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        writer.checkpoint_all();
        fails_at(&writer, n);
        let result = writer.try_commit(&[1, 3], 2);
        if !writer.stepped_in() {
            return false;
        }
        match result {
            Ok(()) => others_go_on(&scene, &other, n, &[[2, 1, 2]]),
            Err(Error::CommitOutcomeUnknown { .. }) => {
                others_go_on(&scene, &other, n, &[[1; 3], [2, 1, 2]]);
            }
            Err(_) => others_go_on(&scene, &other, n, &[[1; 3]]),
        }
        true
    });
}

pub(crate) fn an_error_at_any_call_of_a_checkpoint_leaves_no_lock<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (checkpointer, other) = scene.two();
        other.commit(&[1, 3], 2);
        fails_at(&checkpointer, n);
        let result = checkpointer.wal.checkpoint(CheckpointMode::Passive);
        if !checkpointer.stepped_in() {
            return false;
        }
        assert!(
            result.is_err(),
            "call {n}: a failure was passed over: {result:?}"
        );
        others_go_on(&scene, &other, n, &[[2, 0, 2]]);
        true
    });
}

pub(crate) fn an_error_at_any_call_of_a_reader_leaves_no_lock<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (reader, other) = scene.two();
        other.commit(&[1, 3], 2);
        fails_at(&reader, n);
        let read = reader
            .wal
            .begin_read()
            .and_then(|tx| tx.page(PageNo::ONE).map(drop));
        if !reader.stepped_in() {
            return false;
        }
        assert!(read.is_err(), "call {n}: a failure was passed over");
        others_go_on(&scene, &other, n, &[[2, 0, 2]]);
        true
    });
}

/// A writer dies with entries in the index that its transaction never
/// published. The next one reuses the frame numbers for other pages.
pub(crate) fn leftovers_of_a_dead_writer_are_trimmed<B: Subject>() {
    let scene = Scene::<B>::new(40);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let many: Vec<u32> = (1..=40).collect();
    let write = |call: &Call| matches!(call, Call::Write { .. });
    assert!(writer.dies(write, |writer| writer.commit(&many, 2)));
    other.commit(&[5], 3);
    let after = other.header().max_frame();
    let mut expected = vec![0; 40];
    (expected[0], expected[4]) = (1, 3);
    assert_eq!(other.versions(), expected);
    let leftovers = (after + 1..after + 39)
        .filter(|&frame| wal_core::testing::index::page_of_frame(&other.wal, frame).unwrap() != 0)
        .count();
    assert_eq!(leftovers, 0, "entries of the dead writer are left");
}

pub(crate) fn leftovers_across_blocks_are_overwritten<B: Subject>() {
    let scene = Scene::<B>::new(100);
    let (writer, other) = scene.two();
    let all: Vec<u32> = (1..=100).collect();
    for version in 1..=40 {
        writer.commit(&all, version);
    }
    let write = |call: &Call| matches!(call, Call::Write { .. });
    let beyond: Vec<u32> = (1..=300).collect();
    assert!(writer.dies(write, |writer| writer.commit(&beyond, 41)));
    other.commit(&all, 42);
    other.commit(&[7], 43);
    let mut expected = vec![42; 100];
    expected[6] = 43;
    assert_eq!(other.versions(), expected);
    let (database, log) = scene.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(recovered.user().versions(), expected);
}
