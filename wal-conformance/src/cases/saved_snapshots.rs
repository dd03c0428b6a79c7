//! Snapshots as values: opened again while the log has them.

use std::cmp::Ordering;

use crate::calls::{Call, Which};
use crate::director::{at_every_call, nth};
use crate::scene::{Reading, Scene, User, versions};
use crate::subject::Subject;
use wal_core::error::{Error, Result};
use wal_core::protocol::{CheckpointMode, SavedSnapshot};
use wal_core::testing::index;
use wal_core::types::Lock;

fn save<B: Subject>(user: &User<B>) -> SavedSnapshot {
    user.read().snapshot().save()
}

fn open<B: Subject>(user: &User<B>, saved: &SavedSnapshot) -> Result<Reading<B>> {
    user.wal.open_snapshot(saved)
}

fn assert_gone<B: Subject>(user: &User<B>, saved: &SavedSnapshot) {
    let opened = open(user, saved);
    assert!(
        matches!(opened, Err(Error::SnapshotGone { .. })),
        "{opened:?}"
    );
}

pub(crate) fn a_saved_snapshot_is_opened_again_by_another_user<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    let old = save(&writer);
    writer.commit(&[2, 3], 2);
    let newer = save(&writer);
    writer.commit(&[1], 3);
    let sent = SavedSnapshot::from_bytes(old.to_bytes()).expect("its own bytes");
    assert_eq!(sent, old);
    let opened = open(&other, &sent).expect("the log has it");
    assert_eq!(versions::<B>(&opened), [1, 1, 0]);
    assert_eq!(
        versions::<B>(&open(&other, &newer).expect("the log has it")),
        [1, 2, 2]
    );
    assert_eq!(old.compare(&newer), Some(Ordering::Less));
    assert_eq!(newer.compare(&newer), Some(Ordering::Equal));
    // It stays while checkpoints go on, which it holds back.
    let report = writer.checkpoint();
    assert_eq!(report.backfilled, 2);
    assert_eq!(versions::<B>(&opened), [1, 1, 0]);
    drop(opened);
    scene.assert_quiet();
}

pub(crate) fn a_snapshot_that_a_checkpoint_has_passed_is_gone<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    let old = save(&writer);
    writer.commit(&[2, 3], 2);
    let last = save(&writer);
    writer.checkpoint_all();
    assert_gone(&other, &old);
    let opened = open(&other, &last).expect("nothing went beyond it");
    assert_eq!(versions::<B>(&opened), [1, 2, 2]);
}

/// The frame behind the snapshot is in the database file, and no further one.
pub(crate) fn snapshot_that_one_backfilled_frame_has_passed_is_gone<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let old = save(&writer);
    writer.commit(&[2], 2);
    writer.checkpoint_all();
    assert_gone(&other, &old);
}

/// A recovery does not know how far checkpoints of the dead went, nor believes what the
/// index says of that.
pub(crate) fn snapshot_before_the_end_of_a_recovered_log_is_gone<B: Subject>() {
    for scribbled in [false, true] {
        let scene = Scene::<B>::new(2);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2], 1);
        let old = save(&writer);
        writer.commit(&[2], 2);
        let last = save(&writer);
        writer.checkpoint_all();
        writer.damage_header();
        if scribbled {
            index::set_attempted(writer.writable_block_zero(), 0);
        }
        assert_eq!(other.versions(), [1, 2], "the log is recovered");
        assert_gone(&other, &old);
        let opened = open(&other, &last).expect("nothing goes beyond the end of the log");
        assert_eq!(versions::<B>(&opened), [1, 2]);
    }
}

/// Stock SQLite restarts the log while a mark is taken for the snapshot.
pub(crate) fn snapshot_of_a_log_restarted_before_its_lock_is_gone<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(2);
        let other = scene.user();
        let stock = scene.user_like_stock();
        stock.commit(&[1, 2], 1);
        let saved = save(&stock);
        other.checkpoint_all();
        let before = stock.header().salts();
        let writer = stock.clone();
        // Where the mark is held by then, it shuts the restart out.
        other.before(nth(n), move || drop(writer.try_commit(&[2], 2)));
        let opened = open(&other, &saved);
        let came = other.stepped_in();
        // What was opened has to stay, whatever is written now.
        stock.commit(&[1, 2], 3);
        match opened {
            Ok(opened) => assert_eq!(versions::<B>(&opened), [1, 1], "call {n}"),
            Err(Error::SnapshotGone { .. }) => {
                assert_ne!(stock.header().salts(), before, "call {n}");
            }
            Err(error) => panic!("call {n}: {error}"),
        }
        came
    });
}

/// A page with a newer frame beyond the snapshot is not copied, though the
/// count says that its older frame is backfilled.
pub(crate) fn an_opened_snapshot_finds_what_a_checkpoint_left_out<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    let held = writer.read();
    let saved = held.snapshot().save();
    writer.commit(&[1], 2);
    let (report, trace) = writer.trace(User::checkpoint);
    assert_eq!(report.backfilled, 2);
    let page_one = |call: &Call| {
        matches!(
            call,
            Call::Write {
                file: Which::Database,
                offset: 0,
                ..
            }
        )
    };
    assert!(
        !trace.iter().any(page_one),
        "page 1 has a newer frame: {trace:?}"
    );
    let opened = open(&other, &saved).expect("nothing went beyond it");
    assert_eq!(versions::<B>(&opened), [1, 1]);
}

/// Pages may have been written though no count was published.
pub(crate) fn a_snapshot_that_a_dead_checkpoint_may_have_passed_is_gone<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (checkpointer, other) = scene.two();
        other.commit(&[1, 2], 1);
        let old = save(&other);
        other.commit(&[2, 3], 2);
        if !checkpointer.dies(nth(n), |user| user.checkpoint_all()) {
            return false;
        }
        match open(&other, &old) {
            Ok(opened) => assert_eq!(versions::<B>(&opened), [1, 1, 0], "call {n}"),
            Err(error) => assert!(matches!(error, Error::SnapshotGone { .. }), "{error}"),
        }
        true
    });
}

pub(crate) fn a_snapshot_is_not_opened_while_a_checkpoint_runs<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (checkpointer, other) = scene.two();
    other.commit(&[1, 2], 1);
    let old = save(&other);
    other.commit(&[2, 3], 2);
    let opener = other.clone();
    checkpointer.before(
        // It has decided how far it goes, and has not said so yet.
        |call| *call == Call::Sync(Which::Log),
        move || {
            let opened = open(&opener, &old);
            assert!(matches!(opened, Err(Error::Busy { .. })), "{opened:?}");
        },
    );
    checkpointer.checkpoint_all();
    checkpointer.assert_stepped_in();
    assert_gone(&other, &old);
}

pub(crate) fn a_snapshot_of_an_older_log_is_gone<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    let old = save(&writer);
    let truncated = writer.wal.checkpoint(CheckpointMode::Truncate);
    assert_eq!(truncated.expect("it runs").held_back_by, None);
    let empty = save(&writer);
    assert_gone(&other, &old);
    writer.commit(&[1, 2], 2);
    assert_gone(&other, &old);
    assert_eq!(old.compare(&save(&writer)), None);
    // Nothing of the new log is in the database file yet.
    let opened = open(&other, &empty);
    assert!(opened.is_err() || versions::<B>(&opened.unwrap()) == [1, 1]);
}

pub(crate) fn the_pages_that_changed_between_two_snapshots_are_told<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let writer = scene.user();
    writer.commit(&[1, 2], 1);
    let old = save(&writer);
    writer.commit(&[4, 3], 2);
    writer.commit(&[3, 1], 3);
    let reading = writer.read();
    let changed = |since| -> Vec<u32> {
        let pages = reading.pages_changed_since(since).expect("the log has it");
        pages
            .into_iter()
            .map(wal_core::types::PageNo::get)
            .collect()
    };
    assert_eq!(changed(&old), [1, 3, 4]);
    assert_eq!(changed(&reading.snapshot().save()), []);
    drop(reading);
    writer.checkpoint_all();
    let bypassing = writer.read();
    assert!(bypassing.snapshot().bypasses_log());
    let pages = bypassing.pages_changed_since(&old);
    assert_eq!(pages.expect("the log has it").len(), 3);
    writer.commit(&[5], 4);
    let gone = bypassing.pages_changed_since(&old);
    assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
}

/// Newer than the transaction, or of a log that came after its own.
pub(crate) fn pages_changed_since_what_comes_later_are_not_told<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let writer = scene.user();
    writer.commit(&[1, 2], 1);
    let reading = writer.read();
    writer.commit(&[3], 2);
    let newer = save(&writer);
    let is_gone = |reading: &Reading<B>, since| {
        let changed = reading.pages_changed_since(since);
        assert!(
            matches!(changed, Err(Error::SnapshotGone { .. })),
            "{changed:?}"
        );
    };
    is_gone(&reading, &newer);
    drop(reading);
    writer.checkpoint_all();
    let bypassing = writer.read();
    assert!(bypassing.snapshot().bypasses_log());
    writer.commit(&[4], 3);
    let later = save(&writer);
    assert_ne!(later.salts(), newer.salts(), "the log was restarted");
    is_gone(&bypassing, &later);
}

pub(crate) fn pages_that_were_cut_off_are_not_told_as_changed<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let writer = scene.user();
    writer.commit(&[1], 1);
    let old = save(&writer);
    writer.commit(&[2, 5], 2);
    let mut tx = writer.write();
    tx.set_page_count(3).expect("it is cut");
    tx.commit().expect("it is committed");
    let reading = writer.read();
    let changed = reading.pages_changed_since(&old).expect("the log has it");
    assert!(changed.iter().all(|page| page.get() <= 3), "{changed:?}");
    assert!(changed.iter().any(|page| page.get() == 2), "{changed:?}");
}

pub(crate) fn bytes_that_are_no_snapshot_are_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    writer.commit(&[1], 1);
    let bytes = save(&writer).to_bytes();
    for byte in 0..bytes.len() {
        let mut damaged = bytes;
        damaged[byte] ^= 1;
        assert_eq!(SavedSnapshot::from_bytes(damaged), None, "byte {byte}");
    }
}

pub(crate) fn a_snapshot_for_which_readers_leave_no_slot_is_busy<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let saved = writer.read().snapshot().save();
    let readers: Vec<_> = (2..6)
        .map(|version| {
            writer.commit(&[1], version);
            other.read()
        })
        .collect();
    let refused = other.wal.open_snapshot(&saved).expect_err("all are newer");
    let lock = Lock::ReadMarks;
    assert!(
        matches!(refused, Error::Busy { lock: it, .. } if it == lock),
        "{refused}"
    );
    drop(readers);
    assert!(other.wal.open_snapshot(&saved).is_ok());
    scene.assert_quiet();
}
