//! A tail that restarts the log while writers wait, in each outcome.
#![cfg(all(feature = "shm", feature = "inproc"))]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tempfile::TempDir;
use wal::generic::{Database, Tail};
use wal::{
    Backend, BusyHandler, CheckpointMode, CheckpointOptions, DatabaseKind, DrainOptions, Drained,
    Error, Lock, Options, PageNo,
};
use wal_inproc::InProcessWalCoordination as InProcess;
use wal_shm::ShmWalCoordination as Shared;

fn open<B: Backend>() -> (TempDir, Database<B>) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().kind(DatabaseKind::RawPages);
    let options = options.auto_checkpoint(0).auto_restart(false);
    let database = Database::open_with(directory.path().join("pages"), &options).unwrap();
    let mut write = database.begin_write().unwrap();
    write.set_page_count(3).unwrap();
    write.commit().unwrap();
    (directory, database)
}

fn commit<B: Backend>(database: &Database<B>, byte: u8) {
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::new(2).unwrap()).unwrap()[0] = byte;
    write.commit().unwrap();
}

fn hasty() -> DrainOptions {
    DrainOptions::new()
        .busy(BusyHandler::FAIL)
        .hold(Duration::from_millis(20))
}

/// What a drain came to, and the first bytes of the frames that it handed out.
fn drain<B: Backend>(tail: &mut Tail<B>, options: &DrainOptions) -> (Drained, Vec<u8>) {
    let mut bytes = Vec::new();
    let drained = tail.drain_log(options, |frames| {
        for frame in frames {
            bytes.push(frame?.content[0]);
        }
        Ok::<_, Error>(())
    });
    (drained.unwrap(), bytes)
}

fn advance<B: Backend>(tail: &mut Tail<B>) -> Vec<u8> {
    let frames = tail.advance().unwrap();
    frames.map(|frame| frame.unwrap().content[0]).collect()
}

macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod shared { $(#[test] fn $name() { super::$name::<super::Shared>(); })+ }
        mod in_process { $(#[test] fn $name() { super::$name::<super::InProcess>(); })+ }
    };
}

on_both! {
    drained_log_is_restarted_and_followed,
    drain_with_too_many_frames_hands_out_none,
    drain_beside_a_writer_hands_out_none,
    drain_beside_a_checkpoint_hands_out_none,
    drain_beside_a_reader_hands_out_and_goes_on,
    drain_whose_receiver_fails_hands_out_again,
}

fn drained_log_is_restarted_and_followed<B: Backend>() {
    let (_directory, database) = open::<B>();
    let mut tail = database.tail().unwrap();
    for round in 0..5 {
        commit(&database, 10 * round + 1);
        commit(&database, 10 * round + 2);
        let (drained, bytes) = drain(&mut tail, &DrainOptions::new());
        assert_eq!(bytes, [10 * round + 1, 10 * round + 2]);
        let Drained::Restarted { end } = drained else {
            unreachable!("{drained:?}");
        };
        assert!(end.frame >= 2 && end.salts != tail.position().salts);
        assert_eq!(tail.position().frame, 0);
        commit(&database, 10 * round + 3);
        assert_eq!(advance(&mut tail), [10 * round + 3]);
    }
    drop(tail);
    let read = database.begin_read().unwrap();
    assert_eq!(read.page(PageNo::new(2).unwrap()).unwrap()[0], 43);
}

fn drain_with_too_many_frames_hands_out_none<B: Backend>() {
    let (_directory, database) = open::<B>();
    let mut tail = database.tail().unwrap();
    for byte in 1..=3 {
        commit(&database, byte);
    }
    let few = hasty().most_frames(2);
    assert_eq!(
        drain(&mut tail, &few),
        (Drained::TooManyLeft { frames: 3 }, vec![])
    );
    commit(&database, 4);
    assert_eq!(advance(&mut tail), [1, 2, 3, 4]);
    assert!(matches!(
        drain(&mut tail, &few),
        (Drained::Restarted { .. }, _)
    ));
}

fn drain_beside_a_writer_hands_out_none<B: Backend>() {
    let (_directory, database) = open::<B>();
    let mut tail = database.tail().unwrap();
    commit(&database, 1);
    let write = database.begin_write().unwrap();
    let held_back = Drained::HeldBack { by: Lock::Write };
    assert_eq!(drain(&mut tail, &hasty()), (held_back, vec![]));
    drop(write);
    assert!(
        matches!(drain(&mut tail, &hasty()), (Drained::Restarted { .. }, bytes) if bytes == [1])
    );
}

fn drain_beside_a_checkpoint_hands_out_none<B: Backend>() {
    let (_directory, database) = open::<B>();
    commit(&database, 1);
    let mut tail = database.tail().unwrap();
    commit(&database, 2);
    let mut outcomes = Vec::new();
    let mut progress = |_| outcomes.push(drain(&mut tail, &hasty()));
    let passive = CheckpointOptions::new(CheckpointMode::Passive).progress(&mut progress);
    database.checkpoint_with(passive).unwrap();
    assert!(!outcomes.is_empty());
    let held_back = Drained::HeldBack {
        by: Lock::Checkpoint,
    };
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == (held_back, vec![])),
        "{outcomes:?}"
    );
    assert!(
        matches!(drain(&mut tail, &hasty()), (Drained::Restarted { .. }, bytes) if bytes == [2])
    );
}

fn drain_beside_a_reader_hands_out_and_goes_on<B: Backend>() {
    let (_directory, database) = open::<B>();
    let mut tail = database.tail().unwrap();
    commit(&database, 1);
    let read = database.begin_read().unwrap();
    commit(&database, 2);
    let (drained, bytes) = drain(&mut tail, &hasty());
    assert!(
        matches!(drained, Drained::HeldBack { by: Lock::Read(_) }),
        "{drained:?}"
    );
    assert_eq!(bytes, [1, 2]);
    // A reader of the newest state is in the way of the restart alone.
    drop(read);
    commit(&database, 3);
    let read = database.begin_read().unwrap();
    let (drained, bytes) = drain(&mut tail, &hasty());
    assert_eq!(
        drained,
        Drained::HeldBack {
            by: Lock::ReadMarks
        }
    );
    assert_eq!(bytes, [3]);
    assert_eq!(read.page(PageNo::new(2).unwrap()).unwrap()[0], 3);
    drop(read);
    commit(&database, 4);
    assert_eq!(advance(&mut tail), [4]);
    assert!(
        matches!(drain(&mut tail, &hasty()), (Drained::Restarted { .. }, bytes) if bytes.is_empty())
    );
}

fn drain_whose_receiver_fails_hands_out_again<B: Backend>() {
    let (_directory, database) = open::<B>();
    let mut tail = database.tail().unwrap();
    commit(&database, 1);
    let before = tail.position();
    let failed = tail.drain_log(&hasty(), |frames| {
        assert_eq!(frames.count(), 1);
        Err::<(), Box<dyn std::error::Error>>("the line is down".into())
    });
    assert_eq!(failed.unwrap_err().to_string(), "the line is down");
    assert_eq!(tail.position(), before);
    commit(&database, 2);
    let (drained, bytes) = drain(&mut tail, &hasty());
    assert!(matches!(drained, Drained::Restarted { .. }), "{drained:?}");
    assert_eq!(bytes, [1, 2]);
}
