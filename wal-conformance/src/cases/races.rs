//! One user overtakes another, at a call chosen by the test or at every call
//! in turn.

use crate::calls::Call;
use crate::director::{at_every_call, nth};
use crate::scene::{Reading, Scene, fill, version, versions};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::CheckpointMode;
use wal_core::types::{Lock, LockMode, ReadSlot};

/// Accepts the try of a marked slot.
fn takes_marked_slot(call: &Call) -> bool {
    matches!(call, Call::TryLockMark(slot, _) if *slot != ReadSlot::DATABASE)
}

/// Accepts the end of moving a mark.
fn downgrades_a_slot(call: &Call) -> bool {
    matches!(call, Call::Downgrade(_))
}

fn takes_slot_zero(call: &Call) -> bool {
    *call == Call::TryLock(Lock::Read(ReadSlot::DATABASE), LockMode::Shared)
}

fn assert_newest<B: Subject>(tx: &Reading<B>, expected: &[u32]) {
    assert!(
        !tx.is_stale().unwrap(),
        "an overtaken reader kept its header"
    );
    assert_eq!(versions::<B>(tx), expected);
}

pub(crate) fn a_reader_overtaken_by_a_commit_begins_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let other = writer.clone();
    reader.before(downgrades_a_slot, move || other.commit(&[1, 2, 3], 2));
    let tx = reader.read();
    reader.assert_stepped_in();
    assert_newest::<B>(&tx, &[2, 2, 2]);
}

pub(crate) fn a_reader_overtaken_by_a_commit_and_a_checkpoint_begins_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    // The mark is there already, so nothing keeps the checkpoint from moving it.
    drop(reader.read());
    let other = writer.clone();
    reader.before(takes_marked_slot, move || {
        other.commit(&[1, 2, 3], 2);
        other.checkpoint_all();
    });
    let tx = reader.read();
    reader.assert_stepped_in();
    assert_newest::<B>(&tx, &[2, 2, 2]);
}

/// The mark that the reader has chosen is held by another one, so it stays.
/// The checkpoint up to that mark leaves out a page that was written again
/// beyond it: a reader that goes on with its old header and the new count
/// looks for that page in the database file, where it never was.
pub(crate) fn a_reader_overtaken_by_a_held_back_checkpoint_begins_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2], 1);
    let holder = writer.read();
    let other = writer.clone();
    reader.before(takes_marked_slot, move || {
        other.commit(&[1], 2);
        let report = other.checkpoint();
        assert_eq!((report.backfilled, report.log_frames), (2, 3));
    });
    let tx = reader.read();
    reader.assert_stepped_in();
    assert_newest::<B>(&tx, &[2, 1]);
    assert_eq!(versions::<B>(&holder), [1, 1]);
}

pub(crate) fn a_reader_of_slot_zero_overtaken_by_a_restart_begins_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    writer.checkpoint_all();
    let other = writer.clone();
    reader.before(takes_slot_zero, move || {
        other.commit(&[1, 3], 2);
        other.checkpoint_all();
    });
    let tx = reader.read();
    reader.assert_stepped_in();
    assert_newest::<B>(&tx, &[2, 0, 2]);
}

pub(crate) fn a_reader_sees_one_state_whenever_a_commit_comes<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, reader) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        let other = writer.clone();
        reader.before(nth(n), move || {
            other.commit(&[1, 3], 2);
            other.checkpoint();
            other.commit(&[1, 2], 3);
        });
        let tx = reader.read();
        let seen = versions::<B>(&tx);
        let came = reader.stepped_in();
        let states = [vec![1, 1, 1], vec![3, 3, 2]];
        assert!(states.contains(&seen), "call {n}: {seen:?}");
        if came {
            writer.checkpoint();
            assert_eq!(versions::<B>(&tx), seen, "call {n}: the snapshot moved");
        }
        came
    });
}

/// A writer holds no slot: its lock on Write is what keeps its pages.
pub(crate) fn a_writer_sees_its_state_whenever_a_checkpoint_comes<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(4);
        let (writer, checkpointer) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        checkpointer.checkpoint_all();
        writer.commit(&[2, 3], 2);
        writer.before(nth(n), move || checkpointer.checkpoint_all());
        let mut tx = writer.write();
        assert_eq!(versions::<B>(tx.as_read()), [1, 2, 2, 0], "call {n}");
        fill(&mut tx, &[3, 4], 3).unwrap();
        tx.commit().unwrap();
        let came = writer.stepped_in();
        assert_eq!(writer.versions(), [1, 2, 3, 3], "call {n}");
        came
    });
}

pub(crate) fn a_checkpoint_loses_nothing_whenever_a_commit_comes<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, checkpointer) = scene.two();
        writer.commit(&[1, 2], 1);
        writer.commit(&[2, 3], 2);
        let other = writer.clone();
        checkpointer.before(nth(n), move || other.commit(&[1, 4], 3));
        let report = checkpointer.checkpoint();
        let came = checkpointer.stepped_in();
        assert!(report.backfilled <= report.log_frames, "{report:?}");
        if !came {
            return false;
        }
        assert_eq!(writer.versions(), [3, 2, 2, 3], "call {n}");
        writer.checkpoint_all();
        assert_eq!(writer.versions(), [3, 2, 2, 3], "call {n}");
        writer.commit(&[2], 4);
        assert_eq!(writer.versions(), [3, 4, 2, 3], "call {n}");
        true
    });
}

/// The WAL-reset bug: a checkpointer that has looked at the header is
/// overtaken by a writer that restarts the log and commits a shorter one. The
/// writer does not take Checkpoint for it, as stock SQLite does not. A count
/// of the old generation in the new one would let frames be skipped for ever.
pub(crate) fn a_checkpoint_loses_nothing_whenever_the_log_is_restarted<B: Subject>() {
    let mut restarts = 0;
    at_every_call(|n| {
        let scene = Scene::<B>::new(6);
        let checkpointer = scene.user();
        let writer = scene.user_like_stock();
        writer.commit(&[1, 2, 3, 4, 5, 6], 1);
        checkpointer.checkpoint_all();
        let old = writer.header().salts();
        let other = writer.clone();
        checkpointer.before(nth(n), move || other.commit(&[1, 2], 2));
        checkpointer.checkpoint();
        if !checkpointer.stepped_in() {
            return false;
        }
        restarts += u32::from(writer.header().salts() != old);
        let count = writer.backfilled();
        assert!(
            count <= writer.header().max_frame(),
            "call {n}: backfilled {count}"
        );
        writer.commit(&[3, 4], 3);
        writer.commit(&[5, 6, 1], 4);
        checkpointer.checkpoint_all();
        writer.commit(&[2], 5);
        assert_eq!(writer.versions(), [4, 5, 3, 3, 4, 4], "call {n}");
        true
    });
    assert!(restarts > 1, "the race was forced {restarts} times");
}

pub(crate) fn a_checkpoint_spares_every_reader_whenever_it_begins<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, checkpointer) = scene.two();
        writer.commit(&[1, 2], 1);
        writer.commit(&[2, 3], 2);
        let other = writer.clone();
        let opened = std::sync::Arc::new(std::sync::Mutex::new(None));
        let place = opened.clone();
        checkpointer.before(nth(n), move || {
            *place.lock().unwrap() = Some(other.read());
            other.commit(&[1, 2, 3], 3);
        });
        checkpointer.checkpoint();
        if !checkpointer.stepped_in() {
            return false;
        }
        checkpointer.checkpoint();
        let tx = opened.lock().unwrap().take().expect("the reader began");
        assert_eq!(versions::<B>(&tx), [1, 2, 2], "call {n}");
        drop(tx);
        checkpointer.checkpoint_all();
        assert_eq!(writer.versions(), [3, 3, 3], "call {n}");
        true
    });
}

pub(crate) fn a_commit_is_whole_whenever_a_checkpoint_comes<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        writer.before(nth(n), move || {
            let done = other.wal.checkpoint(CheckpointMode::Passive);
            assert!(matches!(done, Ok(_) | Err(Error::Busy { .. })), "{done:?}");
            let seen = other.versions();
            assert!([vec![1; 3], vec![2; 3]].contains(&seen), "{seen:?}");
        });
        writer.commit(&[1, 2, 3], 2);
        if !writer.stepped_in() {
            return false;
        }
        assert_eq!(writer.versions(), [2; 3], "call {n}");
        writer.checkpoint_all();
        assert_eq!(writer.versions(), [2; 3], "call {n}");
        true
    });
}

/// A reader begins at each call of a commit that restarts the log.
pub(crate) fn a_restart_spares_every_reader_whenever_it_begins<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, reader) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        writer.checkpoint_all();
        let opened = std::sync::Arc::new(std::sync::Mutex::new(None));
        let place = opened.clone();
        writer.before(nth(n), move || {
            let begun = match reader.wal.begin_read() {
                Ok(tx) => Some(tx),
                Err(Error::Protocol { .. } | Error::Busy { .. }) => None,
                Err(e) => panic!("{e}"),
            };
            *place.lock().unwrap() = begun;
        });
        writer.commit(&[1, 2], 2);
        if !writer.stepped_in() {
            return false;
        }
        writer.commit(&[2, 3], 3);
        if let Some(tx) = opened.lock().unwrap().take() {
            let seen = versions::<B>(&tx);
            let states = [vec![1; 3], vec![2, 2, 1]];
            assert!(states.contains(&seen), "call {n}: {seen:?}");
            writer.checkpoint();
            assert_eq!(versions::<B>(&tx), seen, "call {n}: the snapshot moved");
            assert_eq!(version::<B>(&tx, 1), seen[0]);
        }
        writer.checkpoint_all();
        assert_eq!(writer.versions(), [2, 3, 3], "call {n}");
        true
    });
}
