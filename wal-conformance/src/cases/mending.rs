//! A log whose sync has failed, for somebody: who hears of it, and what is written again
//! before anything durable stands on it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::durability::{SYNC, log_writes};
use crate::calls::{Call, Which};
use crate::director::Then;
use crate::scene::{Scene, User, fill};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::protocol::Synchronous;
use wal_core::types::Salts;
use wal_core::wait::SyncedLog;

/// The place of the content of frame 1 of pages of 512 bytes.
const IN_FRAME_ONE: u64 = 32 + 24 + 100;

fn synced_log<B: Subject>(user: &User<B>) -> &SyncedLog {
    let wait_state = user.wal.coordination().wait_state();
    wait_state.expect("a wait state").synced()
}

/// A user at `Full` whose log has a commit, and a failure that another one has told.
fn unsynced<B: Subject>() -> (Scene<B>, User<B>) {
    let scene = Scene::new(2);
    let user = scene.user_at(Synchronous::Full);
    user.commit(&[1, 2], 1);
    synced_log(&user).fail(user.header().salts());
    (scene, user)
}

/// All of the log is written to where it is.
fn rewrite<B: Subject>(scene: &Scene<B>) -> Call {
    Call::Write {
        file: Which::Log,
        offset: 0,
        len: scene.files().1.len(),
    }
}

/// The system has lost what it could not write.
fn lose_frame_one(log: &Path) {
    let log = OpenOptions::new().write(true).open(log);
    let log = log.expect("the log is opened");
    log.write_all_at(&[0xee], IN_FRAME_ONE)
        .expect("a byte is lost");
}

/// Else its commit would find a failure behind its own frames, and be refused.
pub(crate) fn spilling_writer_rewrites_an_unsynced_log_first<B: Subject>() {
    let (scene, user) = unsynced::<B>();
    let again = rewrite(&scene);
    let (committed, trace) = user.trace(|user| {
        let mut tx = user.write();
        fill(&mut tx, &[2], 3)?;
        tx.spill()?;
        tx.commit()
    });
    committed.expect("the log is rewritten first");
    assert_eq!(log_writes(&trace)[..2], [again, SYNC], "{trace:?}");
    assert!(!synced_log(&user).has_failed(user.header().salts()));
    assert_eq!(user.versions(), [1, 3]);
    scene.assert_quiet();
}

/// It has begun to write, and has nothing in the log when a sync fails.
pub(crate) fn commit_rewrites_a_log_that_failed_since_it_began<B: Subject>() {
    let (scene, user) = unsynced::<B>();
    let again = rewrite(&scene);
    let mut tx = user.write();
    let savepoint = tx.savepoint();
    fill(&mut tx, &[2], 3).expect("it writes");
    tx.spill().expect("the log is rewritten");
    tx.rollback_to(savepoint).expect("it is taken back");
    synced_log(&user).fail(user.header().salts());
    let (committed, trace) = user.trace(|_| {
        fill(&mut tx, &[2], 4)?;
        tx.commit()
    });
    committed.expect("the log is rewritten once more");
    assert_eq!(log_writes(&trace)[..2], [again, SYNC], "{trace:?}");
    assert_eq!(user.versions(), [1, 4]);
    scene.assert_quiet();
}

pub(crate) fn log_whose_content_is_lost_is_not_rewritten<B: Subject>() {
    let (scene, user) = unsynced::<B>();
    lose_frame_one(&scene.log_path());
    let (refused, trace) = user.trace(|user| user.try_commit(&[1], 2));
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(log_writes(&trace), [], "written over what may be repaired");
    assert!(synced_log(&user).has_failed(user.header().salts()));
    scene.assert_quiet();
}

/// What was rewritten may have been read from memory before and from the disk after.
pub(crate) fn log_that_is_lost_while_it_is_rewritten_is_corrupt<B: Subject>() {
    let (scene, user) = unsynced::<B>();
    let log = scene.log_path();
    user.before(|call| *call == SYNC, move || lose_frame_one(&log));
    let refused = user.try_commit(&[1], 2);
    user.assert_stepped_in();
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert!(synced_log(&user).has_failed(user.header().salts()));
    scene.assert_quiet();
}

/// It is told after the failure was looked at that the rewrite makes good.
pub(crate) fn failure_during_a_rewrite_is_not_forgotten<B: Subject>() {
    let (scene, user) = unsynced::<B>();
    let again = rewrite(&scene);
    let other = user.clone();
    user.before(
        move |call| *call == again,
        move || synced_log(&other).fail_all(),
    );
    let (_, trace) = user.trace(|user| user.commit(&[1], 2));
    user.assert_stepped_in();
    assert_eq!(
        log_writes(&trace)[..4],
        [again, SYNC, again, SYNC],
        "the second one was not heard of"
    );
    assert!(!synced_log(&user).has_failed(user.header().salts()));
    scene.assert_quiet();
}

/// Which generation it is of cannot be told.
pub(crate) fn failed_sync_beside_an_unreadable_header_counts_for_all<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user_at(Synchronous::Full);
    user.commit(&[1, 2], 1);
    let damages = user.clone();
    user.then(
        |call| *call == SYNC,
        move || {
            damages.damage_header();
            Then::Fail
        },
    );
    user.try_commit(&[1], 2).expect_err("its sync failed");
    for salts in [Salts([1; 8]), Salts([2; 8])] {
        assert!(synced_log(&user).has_failed(salts), "{salts:?}");
    }
    scene.assert_quiet();
}

/// Else the next sync would be told of a failure that the rewrite makes good.
pub(crate) fn rewrite_forgets_old_failures_first<B: Subject>() {
    let (scene, user) = unsynced::<B>();
    let again = rewrite(&scene);
    let (_, trace) = user.trace(|user| user.commit(&[1], 2));
    let at = |wanted: Call| trace.iter().position(|&call| call == wanted);
    let forgotten = at(Call::ForgetFailures(Which::Log));
    assert!(forgotten.is_some() && forgotten < at(again), "{trace:?}");
    scene.assert_quiet();
}

/// What the system could not write is told once: to who asks for it to be begun.
pub(crate) fn writeback_that_fails_is_told_like_a_sync<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.then(
        |call| *call == Call::StartWriteback(Which::Log),
        || Then::Fail,
    );
    // More than half a mebibyte.
    user.commit(&[1100], 1);
    user.assert_stepped_in();
    let salts = user.header().salts();
    assert!(synced_log(&user).has_failed(salts), "others are not told");
    let refused = user.try_commit(&[1], 2);
    assert!(
        matches!(refused, Err(Error::Poisoned { .. })),
        "{refused:?}"
    );
    scene.assert_quiet();
}
