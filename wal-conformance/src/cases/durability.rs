//! What is synced before what, and what becomes of a failure.

use crate::calls::{Call, Which};
use crate::director::Then;
use crate::scene::{Scene, User};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::{CheckpointMode, Synchronous};

pub(super) const SYNC: Call = Call::Sync(Which::Log);

pub(super) fn log_writes(trace: &[Call]) -> Vec<Call> {
    let of_log = |call: &&Call| {
        matches!(
            call,
            Call::Write {
                file: Which::Log,
                ..
            }
        ) || **call == SYNC
    };
    trace.iter().filter(of_log).copied().collect()
}

pub(super) fn header() -> Call {
    Call::Write {
        file: Which::Log,
        offset: 0,
        len: 32,
    }
}

fn frames(first: u64, count: usize) -> Call {
    let frame = 24 + 512;
    Call::Write {
        file: Which::Log,
        offset: 32 + (first - 1) * frame as u64,
        len: count * frame,
    }
}

/// Commits in three generations of the log; `each` looks at what was written.
fn generations<B: Subject>(writer: &User<B>, each: impl Fn(usize, Vec<Call>)) {
    for generation in 0..3 {
        let (_, trace) = writer.trace(|writer| writer.commit(&[1, 2], 1));
        each(generation, log_writes(&trace));
        writer.checkpoint_all();
    }
}

pub(crate) fn a_new_log_header_is_synced_before_its_first_frame<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_at(Synchronous::Normal);
    generations(&writer, |generation, writes| {
        assert_eq!(
            writes,
            [header(), SYNC, frames(1, 2)],
            "generation {generation}"
        );
    });
}

pub(crate) fn a_full_commit_is_synced_in_every_generation<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_at(Synchronous::Full);
    generations(&writer, |generation, writes| {
        let expected = [header(), SYNC, frames(1, 2), SYNC];
        assert_eq!(writes, expected, "generation {generation}");
    });
    writer.commit(&[1], 2);
    let (_, trace) = writer.trace(|writer| writer.commit(&[2], 3));
    assert_eq!(log_writes(&trace), [frames(2, 1), SYNC], "a later commit");
}

pub(crate) fn a_failed_log_sync_poisons_and_the_outcome_is_told_unknown<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_at(Synchronous::Full);
    let other = scene.user_at(Synchronous::Full);
    writer.commit(&[1, 2], 1);
    writer.then(|call| *call == SYNC, || Then::Fail);
    let failed = writer.try_commit(&[1, 2], 2);
    assert!(
        matches!(failed, Err(Error::CommitOutcomeUnknown { .. })),
        "{failed:?}"
    );
    let again = writer.try_commit(&[1, 2], 3);
    assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
    let checkpoint = writer.wal.checkpoint(CheckpointMode::Passive);
    assert!(
        matches!(checkpoint, Err(Error::Poisoned { .. })),
        "{checkpoint:?}"
    );
    assert_eq!(
        writer.versions(),
        [1, 1],
        "reading goes on, at what was published"
    );
    scene.assert_quiet();
    other.commit(&[1], 4);
    assert_eq!(other.versions(), [4, 1]);
}

pub(crate) fn a_failed_database_sync_poisons_and_publishes_nothing<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    writer.then(|call| *call == Call::Sync(Which::Database), || Then::Fail);
    let failed = writer.wal.checkpoint(CheckpointMode::Passive);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(other.backfilled(), 0);
    assert!(matches!(
        writer.try_commit(&[1], 2),
        Err(Error::Poisoned { .. })
    ));
    scene.assert_quiet();
    other.checkpoint_all();
    assert_eq!(other.versions(), [1, 1]);
}

/// All of it was written, so a recovery would find it: also after a power failure.
pub(crate) fn failed_commit_frame_is_zeroed_durably<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_at(Synchronous::Normal);
    writer.commit(&[1, 2], 1);
    let commit = frames(3, 2);
    writer.then(move |call| *call == commit, || Then::FailAfter(usize::MAX));
    let (failed, trace) = writer.trace(|writer| writer.try_commit(&[1, 2], 2));
    writer.assert_stepped_in();
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    let Call::Write { offset, .. } = frames(4, 1) else {
        return;
    };
    let zeros = Call::Write {
        file: Which::Log,
        offset,
        len: 24,
    };
    assert_eq!(log_writes(&trace), [commit, zeros, SYNC]);
}

/// The pages of a partial backfill are not synced, and may be lost with those of the
/// next one.
pub(crate) fn pages_are_written_again_after_a_failed_database_sync<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let reader = other.read();
    writer.commit(&[2], 2);
    writer.checkpoint();
    assert_eq!(other.backfilled(), 1, "the reader holds it back");
    drop(reader);
    writer.then(|call| *call == Call::Sync(Which::Database), || Then::Fail);
    let failed = writer.wal.checkpoint(CheckpointMode::Passive);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    let ((), trace) = other.trace(|other| other.checkpoint_all());
    let written: usize = trace
        .iter()
        .map(|call| match call {
            Call::Write {
                file: Which::Database,
                len,
                ..
            } => *len,
            _ => 0,
        })
        .sum();
    assert_eq!(written, 2 * 512, "{trace:?}");
    assert_eq!(other.versions(), [1, 2]);
}

/// The write of a transaction's frames is cut short after any number of bytes.
/// The transaction is then not there, for this attachment and for whoever
/// recovers the log, unless the error says that nobody knows.
pub(crate) fn a_log_write_that_fails_at_any_byte_commits_all_or_nothing<B: Subject>() {
    const LEN: usize = 2 * (24 + 512);
    for written in (0..=LEN).step_by(67).chain([LEN - 1, LEN]) {
        let scene = Scene::<B>::new(2);
        let writer = scene.user_at(Synchronous::Normal);
        writer.commit(&[1, 2], 1);
        writer.then(
            |call| {
                matches!(
                    call,
                    Call::Write {
                        file: Which::Log,
                        len: LEN,
                        ..
                    }
                )
            },
            move || Then::FailAfter(written),
        );
        let failed = writer.try_commit(&[1, 2], 2);
        writer.assert_stepped_in();
        assert!(
            matches!(failed, Err(Error::Io { .. })),
            "{written} bytes: {failed:?}"
        );
        assert_eq!(writer.versions(), [1, 1], "{written} bytes: visible");
        scene.assert_quiet();
        let (database, log) = scene.files();
        let recovered = Scene::<B>::from_files(&database, Some(&log));
        assert_eq!(
            recovered.user().versions(),
            [1, 1],
            "{written} bytes: recovered"
        );
        writer.commit(&[2], 3);
        assert_eq!(
            writer.versions(),
            [1, 3],
            "{written} bytes: the next commit"
        );
    }
}
