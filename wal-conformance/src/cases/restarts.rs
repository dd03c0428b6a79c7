//! When the log begins anew, and when not.

use std::time::Duration;

use super::contract::unlock;
use crate::calls::{Call, Which};
use crate::director::{at_every_call, nth};
use crate::scene::{Scene, User, fill, versions};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::{CheckpointMode, Synchronous};
use wal_core::types::{Lock, LockMode, ReadSlot};

/// True if the next commit of `writer` begins the log anew.
fn restarts<B: Subject>(writer: &User<B>) -> bool {
    let before = writer.header();
    writer.commit(&[1], 77);
    let after = writer.header();
    let anew = after.salts() != before.salts();
    assert_eq!(anew, after.max_frame() <= before.max_frame());
    anew
}

pub(crate) fn a_restart_takes_new_salts_and_begins_at_frame_one<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    writer.commit(&[1, 2], 1);
    let first = writer.header();
    writer.checkpoint_all();
    writer.commit(&[2], 2);
    let second = writer.header();
    assert_eq!(second.max_frame(), 1);
    let count_up = |salts: [u8; 8]| u64::from_be_bytes(salts) >> 32;
    assert_eq!(
        count_up(second.salts().0),
        (count_up(first.salts().0) + 1) & 0xffff_ffff
    );
    assert_ne!(second.salts().0[4..], first.salts().0[4..]);
    assert_eq!(writer.backfilled(), 0);
    // Else a reader that may not set one could not begin.
    let marks = ReadSlot::MARKED.map(|slot| writer.mark(slot));
    assert!(marks.iter().any(|&mark| mark <= 1), "{marks:?}");
    let (_, log) = scene.files();
    assert_eq!(
        log[16..24],
        second.salts().0,
        "the log header tells the generation"
    );
    assert_eq!(writer.versions(), [1, 2]);
}

pub(crate) fn the_log_is_not_restarted_over_a_reader<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2], 1);
    let at_the_end = reader.read();
    writer.checkpoint_all();
    assert!(!at_the_end.snapshot().bypasses_log());
    assert!(!restarts(&writer), "restarted over a reader of the log");
    assert_eq!(versions::<B>(&at_the_end), [1, 1]);
    drop(at_the_end);
    writer.checkpoint_all();
    let bypassing = reader.read();
    assert!(bypassing.snapshot().bypasses_log());
    assert!(
        restarts(&writer),
        "a reader that bypasses the log is in nobody's way"
    );
    assert_eq!(versions::<B>(&bypassing), [77, 1]);
}

pub(crate) fn the_log_is_not_restarted_while_a_checkpoint_runs<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    writer.checkpoint_all();
    let coordination = other.wal.coordination();
    use wal_core::coordination::WalCoordination;
    assert!(
        coordination
            .try_lock(Lock::Checkpoint, LockMode::Exclusive)
            .unwrap()
    );
    assert!(!restarts(&writer), "restarted under a checkpoint");
    unlock(&other, Lock::Checkpoint, LockMode::Exclusive);
    writer.checkpoint_all();
    assert!(restarts(&writer));
}

pub(crate) fn the_log_is_not_restarted_before_all_is_backfilled<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    assert!(!restarts(&writer));
    let held = reader.read();
    writer.commit(&[2], 2);
    writer.checkpoint();
    drop(held);
    assert!(
        !restarts(&writer),
        "restarted with frames that are in the log only"
    );
    assert_eq!(writer.versions(), [77, 2]);
}

/// A count in shared memory does not say that the database file is durable.
pub(crate) fn a_backfill_of_a_peer_that_does_not_sync_is_synced_before_a_restart<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let careless = scene.user_at(Synchronous::Off);
    let writer = scene.user_at(Synchronous::Normal);
    writer.commit(&[1, 2], 1);
    careless.checkpoint_all();
    let (_, trace) = writer.trace(|writer| writer.commit(&[1], 2));
    let at = |wanted: Call| trace.iter().position(|&call| call == wanted);
    let synced = at(Call::Sync(Which::Database)).expect("the database is synced");
    let overwritten = trace
        .iter()
        .position(|call| {
            matches!(
                call,
                Call::Write {
                    file: Which::Log,
                    ..
                }
            )
        })
        .expect("the log is written");
    assert!(synced < overwritten, "{trace:?}");
    assert_eq!(writer.header().max_frame(), 1, "the log was restarted");
}

/// A stock SQLite that is killed behind the new header leaves the count of the
/// old log, by which frames of the new one would pass for backfilled.
pub(crate) fn a_count_that_a_dead_restart_left_hides_no_frame<B: Subject>() {
    let after_the_restart = || {
        let scene = Scene::<B>::new(3);
        let user = scene.user();
        user.commit(&[1, 2, 3], 1);
        user.checkpoint_all();
        let proof = user.wal.prove_backfill(Duration::ZERO).unwrap().unwrap();
        user.wal.restart_log(&proof, Duration::ZERO).unwrap();
        user.leave_count(3);
        assert_eq!(user.versions(), [1, 1, 1]);
        (scene, user)
    };
    let expect_stored = |scene: &Scene<B>, user: &User<B>, expected: [u32; 3]| {
        assert_eq!(user.versions(), expected);
        user.checkpoint_all();
        let (database, _) = scene.files();
        let stored = Scene::<B>::from_files(&database, None);
        assert_eq!(stored.user().versions(), expected, "in the database file");
    };
    let (scene, user) = after_the_restart();
    user.commit(&[1, 2, 3], 2);
    expect_stored(&scene, &user, [2, 2, 2]);
    // A reader that becomes the writer.
    let (scene, user) = after_the_restart();
    let upgraded = user.read().upgrade();
    let refused = upgraded.expect_err("its snapshot went by the count");
    assert!(matches!(refused.error, Error::BusySnapshot));
    drop(refused);
    user.commit(&[2], 3);
    expect_stored(&scene, &user, [1, 3, 1]);
    // Frames that were added before anybody mended it.
    let (scene, user) = after_the_restart();
    user.commit(&[1, 2], 4);
    user.leave_count(3);
    assert_eq!(user.versions(), [4, 4, 1], "a reader goes by the log");
    user.checkpoint_all();
    expect_stored(&scene, &user, [4, 4, 1]);
}

/// A recovery has set the count back, and its header is the very one that the writer's
/// snapshot bypassed the log by.
pub(crate) fn count_that_a_recovery_took_back_keeps_the_log<B: Subject>() {
    let (database, log) = {
        let scene = Scene::<B>::new(2);
        scene.user().commit(&[1, 2], 1);
        scene.files()
    };
    let scene = Scene::<B>::from_files(&database, Some(&log));
    let (writer, other) = scene.two();
    // The header is a recovered one from the beginning.
    assert_eq!(writer.versions(), [1, 1]);
    let before = writer.header();
    writer.checkpoint_all();
    let bypassing = writer.read();
    assert!(bypassing.snapshot().bypasses_log());
    writer.damage_header();
    assert_eq!(other.versions(), [1, 1]);
    assert_eq!((other.header(), other.backfilled()), (before, 0));
    let mut tx = bypassing.upgrade().expect("it is the very state");
    fill(&mut tx, &[2], 2).expect("it writes");
    tx.commit().expect("it commits");
    let after = writer.header();
    assert_eq!((after.salts(), after.max_frame()), (before.salts(), 3));
    assert_eq!(other.versions(), [1, 2]);
}

/// Its frames lie behind the header that it wrote.
pub(crate) fn salts_of_a_dead_writer_are_not_used_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = (scene.user_at(Synchronous::Full), scene.user());
    writer.commit(&[1, 2], 1);
    writer.checkpoint_all();
    let mut syncs = 0;
    let second_sync = move |call: &Call| {
        syncs += u32::from(*call == Call::Sync(Which::Log));
        syncs == 2
    };
    // Behind the log header and the frames, before the commit is published.
    assert!(writer.dies(second_sync, |writer| writer.commit(&[1, 2], 2)));
    let salts = |log: &[u8]| -> [u8; 8] { log[16..24].try_into().expect("eight bytes") };
    let of_dead = salts(&scene.files().1);
    assert_eq!(other.header().salts().0, of_dead, "it published them");
    other.commit(&[1], 3);
    assert_eq!(other.header().max_frame(), 1);
    assert_ne!(salts(&scene.files().1), of_dead);
    assert_eq!(other.versions(), [3, 1]);
}

/// A dead restart must not let a snapshot be opened that a checkpoint has passed.
pub(crate) fn restart_that_dies_at_any_call_opens_no_older_snapshot<B: Subject>() {
    let mut opened = 0;
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[2], 1);
        let old = other.read().snapshot().save();
        writer.commit(&[1], 2);
        let last = other.read().snapshot().save();
        writer.checkpoint_all();
        if !writer.dies(nth(n), |writer| writer.commit(&[3], 3)) {
            return false;
        }
        let gone = other.wal.open_snapshot(&old);
        assert!(
            matches!(gone, Err(Error::SnapshotGone { .. })),
            "call {n}: {gone:?}"
        );
        match other.wal.open_snapshot(&last) {
            Ok(tx) => {
                assert_eq!(versions::<B>(&tx), [2, 1, 0], "call {n}");
                opened += 1;
            }
            Err(Error::SnapshotGone { .. }) => {}
            Err(error) => panic!("call {n}: {error}"),
        }
        true
    });
    assert!(
        opened > 0,
        "the last state was gone before it was restarted"
    );
}

/// What a checkpoint of the log before has passed says nothing about this one.
pub(crate) fn snapshot_of_a_restarted_log_is_opened<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2, 3], 1);
    writer.checkpoint_all();
    writer.commit(&[1], 2);
    assert_eq!(writer.header().max_frame(), 1, "the log was restarted");
    let saved = writer.read().snapshot().save();
    writer.commit(&[1], 3);
    let opened = other.wal.open_snapshot(&saved).expect("the log has it");
    assert_eq!(versions::<B>(&opened), [2, 1, 1]);
}

/// It was restarted, and has no commit since.
pub(crate) fn empty_log_with_old_frames_is_cut_by_a_truncate<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    let proof = user.wal.prove_backfill(Duration::ZERO).unwrap().unwrap();
    user.wal.restart_log(&proof, Duration::ZERO).unwrap();
    assert!(!scene.files().1.is_empty());
    let report = user.wal.checkpoint(CheckpointMode::Truncate).unwrap();
    assert_eq!(report.held_back_by, None);
    assert!(scene.files().1.is_empty(), "{report:?}");
    assert_eq!(user.versions(), [1, 1]);
}
