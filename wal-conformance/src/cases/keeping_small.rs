//! What keeps the log small when readers do not end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::calls::{Call, Which};
use crate::scene::{Scene, User, versions};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::{BusyHandler, CheckpointMode};
use wal_core::types::{Lock, LockMode, PageNo, ReadSlot};

pub(crate) fn a_second_transaction_on_a_snapshot_keeps_it_by_itself<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let first = reader.read();
    assert_ne!(first.snapshot().slot().unwrap(), ReadSlot::DATABASE);
    writer.commit(&[1, 2], 2);
    let second = first.try_clone().expect("another one");
    assert!(second.snapshot().is_same_state(first.snapshot()));
    drop(first);
    let report = writer.checkpoint();
    assert_eq!(report.backfilled, 1, "the second one is in the way");
    assert_eq!(versions::<B>(&second), [1, 0]);
    drop(second);
    writer.checkpoint_all();
    // The same at slot 0.
    let first = reader.read();
    assert_eq!(first.snapshot().slot().unwrap(), ReadSlot::DATABASE);
    writer.commit(&[1], 3);
    let second = first.try_clone().expect("another one");
    drop(first);
    let report = writer.checkpoint();
    assert_eq!(report.backfilled, 0, "the second one is in the way");
    assert_eq!(versions::<B>(&second), [2, 2]);
    drop(second);
    scene.assert_quiet();
}

pub(crate) fn a_snapshot_that_is_too_old_gives_no_more_pages<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user_with(|config| config.snapshot_age_limit = Some(Duration::ZERO));
    user.commit(&[1], 1);
    let read = user.read();
    let too_old = |error: Option<Error>| matches!(error, Some(Error::SnapshotTooOld { .. }));
    assert!(too_old(read.page(PageNo::ONE).err()));
    assert!(too_old(read.find_frame(PageNo::ONE).err()));
    let saved = read.snapshot().save();
    assert!(too_old(read.pages_changed_since(&saved).err()));
    let opened = user.wal.open_snapshot(&saved).expect("it is there");
    assert!(too_old(opened.page(PageNo::ONE).err()));
    drop(opened);
    // Who writes, or follows the log, is not limited.
    let write = read.upgrade().expect("it is current");
    assert!(write.page(PageNo::ONE).is_ok());
    let going_on = write.into_read().expect("it goes on");
    assert!(too_old(going_on.page(PageNo::ONE).err()));
    drop(going_on);
    let tail = user.wal.tail().expect("a tail begins");
    assert!(tail.state().page(PageNo::ONE).is_ok());
    drop(tail);
    let patient = scene.user_with(|config| {
        config.snapshot_age_limit = Some(Duration::from_secs(3600));
    });
    assert_eq!(patient.versions(), [1, 0]);
    scene.assert_quiet();
}

pub(crate) fn a_writer_waits_while_a_reader_keeps_a_long_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_with(|config| config.max_log_frames = 3);
    let reader = scene.user();
    writer.commit(&[1], 1);
    let reading = reader.read();
    writer.commit(&[1, 2], 2);
    match writer.wal.begin_write(Duration::ZERO) {
        Err(Error::LogFull {
            frames: 3,
            lock,
            holders,
            ..
        }) => {
            assert_eq!(lock, Lock::Read(reading.snapshot().slot().unwrap()));
            assert_eq!(holders, [std::process::id()]);
        }
        other => panic!("not full: {other:?}"),
    }
    scene.user().commit(&[2], 3);
    let asked = Arc::new(Mutex::new(0));
    let (count, ending) = (asked.clone(), Mutex::new(Some(reading)));
    let busy = BusyHandler::ask(move |_, tries| {
        *count.lock().unwrap() = tries;
        tries < 3 || ending.lock().unwrap().take().is_some()
    });
    let tx = writer.wal.begin_write(busy).expect("the reader has ended");
    assert_eq!(*asked.lock().unwrap(), 3);
    // Not left to the commit, which a reader could come before.
    assert_eq!(writer.header().max_frame(), 0);
    drop(tx);
    writer.commit(&[1], 4);
    assert_eq!(writer.header().max_frame(), 1);
    assert_eq!(writer.versions(), [4, 3]);
    scene.assert_quiet();
}

pub(crate) fn an_owner_of_the_log_lets_writers_wait_for_it<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_with(|config| {
        config.max_log_frames = 1;
        config.auto_actions.restart = false;
    });
    let owner = scene.user();
    writer.commit(&[1], 1);
    let full = writer.wal.begin_write(Duration::ZERO);
    assert!(
        matches!(full, Err(Error::LogFull { frames: 1, .. })),
        "{full:?}"
    );
    assert_eq!(owner.backfilled(), 0, "it was left to the owner");
    let truncated = owner.wal.checkpoint(CheckpointMode::Truncate);
    assert!(truncated.expect("nobody is there").held_back_by.is_none());
    writer.commit(&[1], 2);
    scene.assert_quiet();
}

/// A user whose commits are followed by automatic checkpoints.
fn tidy<B: Subject>(scene: &Scene<B>) -> User<B> {
    scene.user_with(|config| config.auto_actions.checkpoint = 4)
}

/// Commits, and does what a facade does then; another user's commit comes
/// while pages are moved.
fn commit_beside<B: Subject>(user: &User<B>, other: &User<B>, version: u32) {
    let writes_database = |call: &Call| {
        let file = Which::Database;
        matches!(call, Call::Write { file: found, .. } if *found == file)
    };
    let commits = {
        let other = other.clone();
        move || other.commit(&[2], version + 1)
    };
    user.commit(&[1, 2, 3, 4], version);
    user.before(writes_database, commits);
    let tidied = user.wal.checkpoint_automatically();
    tidied.expect("a checkpoint runs");
    user.assert_stepped_in();
}

pub(crate) fn a_log_begins_anew_though_commits_keep_coming<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, other) = (tidy(&scene), scene.user());
    user.commit(&[1, 2, 3, 4], 1);
    for version in 2..5 {
        let before = user.header().salts();
        commit_beside(&user, &other, version);
        assert_ne!(user.header().salts(), before, "the log went on");
        assert_eq!(user.header().max_frame(), 0);
        let expected = [version, version + 1, version, version];
        assert_eq!(other.versions(), expected);
        scene.assert_quiet();
    }
}

pub(crate) fn a_log_that_is_all_moved_begins_anew_once_its_last_reader_ends<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, other) = (tidy(&scene), scene.user());
    user.commit(&[1, 2, 3, 4], 1);
    let reader = other.read();
    let before = user.header().salts();
    let takes_write = |call: &Call| matches!(call, Call::TryLock(Lock::Write, LockMode::Exclusive));
    let ending = Mutex::new(Some(reader));
    user.before(takes_write, move || drop(ending.lock().unwrap().take()));
    let tidied = user.wal.checkpoint_automatically();
    tidied.expect("a checkpoint runs");
    user.assert_stepped_in();
    assert_ne!(user.header().salts(), before, "the log went on");
    assert_eq!(user.header().max_frame(), 0);
    assert_eq!(other.versions(), [1; 4]);
    scene.assert_quiet();
}

/// The peer leaves nothing to be moved, and readers follow each other.
pub(crate) fn a_log_that_a_peer_moves_begins_anew_all_the_same<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, peer) = (tidy(&scene), scene.user());
    let takes_write = |call: &Call| matches!(call, Call::TryLock(Lock::Write, LockMode::Exclusive));
    let reading = Arc::new(Mutex::new(None));
    let mut longest = 0;
    for version in 1..20 {
        user.commit(&[1], version);
        longest = longest.max(user.header().max_frame());
        let next = peer.read();
        drop(reading.lock().unwrap().replace(next));
        peer.checkpoint_all();
        // It ends while it is waited for, if it is.
        let ending = reading.clone();
        user.before(takes_write, move || drop(ending.lock().unwrap().take()));
        let tidied = user.wal.checkpoint_automatically();
        tidied.expect("a checkpoint runs");
        user.stepped_in();
    }
    assert_eq!(longest, 4, "the log went on");
    drop(reading);
    scene.assert_quiet();
}

/// As the next case, where a peer leaves nothing to be moved.
pub(crate) fn a_long_log_that_a_peer_moves_is_not_checkpointed_at_each_commit<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, peer) = (tidy(&scene), scene.user());
    let mut reading = None;
    let mut at = Vec::new();
    for frames in 1..30 {
        user.commit(&[1], frames);
        drop(reading.replace(peer.read()));
        peer.checkpoint_all();
        let (tidied, trace) = user.trace(|user| user.wal.checkpoint_automatically());
        tidied.expect("a checkpoint runs");
        if trace.iter().any(|call| matches!(call, Call::TryLock(..))) {
            at.push(frames);
        }
    }
    // After 4, 8 and 16 more.
    assert_eq!(at, [4, 8, 16]);
    drop(reading);
    scene.assert_quiet();
}

pub(crate) fn writers_do_not_wait_again_and_again_for_a_reader_that_stays<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (user, other) = (tidy(&scene), scene.user());
    user.commit(&[1, 2, 3, 4], 1);
    let reader = other.read();
    let takes_write = Call::TryLock(Lock::Write, LockMode::Exclusive);
    let tried: Vec<bool> = (2..20)
        .map(|version| {
            let before = user.header().max_frame();
            user.commit(&[1], version);
            let now = user.header().max_frame();
            assert_eq!(now, before + 1, "the log began anew under a reader");
            let (tidied, trace) = user.trace(|user| user.wal.checkpoint_automatically());
            tidied.expect("a checkpoint runs");
            trace.contains(&takes_write)
        })
        .collect();
    // At 5 frames, at 4 more, and at 8 more.
    let at: Vec<usize> = (5..)
        .zip(&tried)
        .filter_map(|(frames, &tried)| tried.then_some(frames))
        .collect();
    assert_eq!(at, [5, 9, 17]);
    assert_eq!(versions::<B>(&reader), [1; 4]);
    drop(reader);
    scene.assert_quiet();
}
