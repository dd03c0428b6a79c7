//! What a checkpoint copies, in which order, and when it stops.

use crate::calls::{Call, Which};
use crate::director::{Then, until_death};
use crate::scene::{Scene, content, versions};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::format::{ByteOrder, FrameHeader, LogHeader};
use wal_core::index::MARK_NOT_USED;
use wal_core::protocol::{CheckpointMode, CheckpointReport, Synchronous};
use wal_core::types::{Lock, LockMode, PageNo, PageSize, ReadSlot, Salts};

fn place(trace: &[Call], wanted: impl Fn(&Call) -> bool) -> usize {
    let found = trace.iter().position(wanted);
    found.unwrap_or_else(|| panic!("the call is not in {trace:?}"))
}

/// The slot that held a checkpoint back.
fn held_by(report: &CheckpointReport) -> Option<Lock> {
    report.held_back_by.as_ref().map(|held| held.lock)
}

fn writes_database(call: &Call) -> bool {
    matches!(
        call,
        Call::Write {
            file: Which::Database,
            ..
        }
    )
}

pub(crate) fn a_checkpoint_stops_at_the_smallest_held_mark<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2], 1);
    let held = reader.read();
    writer.commit(&[2, 3], 2);
    let newer = reader.read();
    writer.commit(&[1], 3);
    let report = writer.checkpoint();
    assert_eq!((report.backfilled, report.log_frames), (2, 5));
    assert_eq!(
        held_by(&report),
        Some(Lock::Read(held.snapshot().slot().unwrap()))
    );
    assert_eq!(versions::<B>(&held), [1, 1, 0]);
    drop(held);
    let report = writer.checkpoint();
    assert_eq!(
        (report.backfilled, held_by(&report)),
        (4, Some(Lock::Read(newer.snapshot().slot().unwrap())))
    );
    assert_eq!(versions::<B>(&newer), [1, 2, 2]);
    drop(newer);
    writer.checkpoint_all();
    assert_eq!(reader.versions(), [3, 2, 2]);
}

pub(crate) fn a_checkpoint_does_not_write_under_readers_of_the_database<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    let bypassing = reader.read();
    assert!(bypassing.snapshot().bypasses_log());
    writer.commit(&[1, 2], 1);
    let (report, trace) = writer.trace(|writer| writer.checkpoint());
    assert_eq!(
        (report.backfilled, held_by(&report)),
        (0, Some(Lock::Read(ReadSlot::DATABASE)))
    );
    assert!(!trace.iter().any(writes_database), "{trace:?}");
    assert_eq!(versions::<B>(&bypassing), [0, 0]);
    drop(bypassing);
    writer.checkpoint_all();
}

/// A mark without a holder is in nobody's way.
pub(crate) fn a_checkpoint_moves_marks_that_nobody_holds<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    drop(reader.read());
    writer.commit(&[2], 2);
    writer.checkpoint_all();
    let marks = ReadSlot::MARKED.map(|slot| writer.mark(slot));
    assert!(
        marks.iter().all(|&mark| mark == 2 || mark == MARK_NOT_USED),
        "{marks:?}"
    );
}

/// A header that is half written when the salts are compared is no proof of
/// the same log.
pub(crate) fn a_checkpoint_that_meets_a_half_written_header_claims_nothing<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, checkpointer) = scene.two();
    writer.commit(&[1, 2], 1);
    let other = writer.clone();
    let zero = Lock::Read(ReadSlot::DATABASE);
    checkpointer.before(
        move |call| *call == Call::TryLock(zero, LockMode::Exclusive),
        move || other.damage_header(),
    );
    let (report, trace) = checkpointer.trace(|checkpointer| checkpointer.checkpoint());
    checkpointer.assert_stepped_in();
    assert!(!report.is_complete(), "nothing was copied: {report:?}");
    assert!(!trace.iter().any(writes_database), "{trace:?}");
    assert_eq!(writer.backfilled(), 0);
    assert_eq!(
        writer.versions(),
        [1, 1],
        "the next reader mends the header"
    );
    writer.checkpoint_all();
}

pub(crate) fn only_one_checkpoint_runs_at_a_time<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    one.commit(&[1, 2], 1);
    one.before(writes_database, move || {
        let refused = two.wal.checkpoint(CheckpointMode::Passive);
        let busy = matches!(
            refused,
            Err(Error::Busy {
                lock: Lock::Checkpoint,
                ..
            })
        );
        assert!(busy, "{refused:?}");
    });
    one.checkpoint_all();
    one.assert_stepped_in();
}

pub(crate) fn a_checkpoint_writes_each_page_once_in_order<B: Subject>() {
    let scene = Scene::<B>::new(10);
    let writer = scene.user();
    for version in 1..5 {
        writer.commit(&[9, 2, 3, 7], version);
    }
    writer.commit(&[8], 9);
    let (_, trace) = writer.trace(|writer| writer.checkpoint_all());
    let runs: Vec<_> = trace
        .iter()
        .filter_map(|call| match *call {
            Call::Write {
                file: Which::Database,
                offset,
                len,
            } => Some((offset / 512 + 1, len / 512)),
            _ => None,
        })
        .collect();
    assert_eq!(runs, [(2, 2), (7, 3)], "first page and number of each run");
}

pub(crate) fn a_checkpoint_cuts_a_database_that_shrank<B: Subject>() {
    let scene = Scene::<B>::new(9);
    let writer = scene.user();
    writer.commit(&[8, 9], 1);
    let mut tx = writer.write();
    tx.set_page_count(4).unwrap();
    tx.commit().unwrap();
    let (_, trace) = writer.trace(|writer| writer.checkpoint_all());
    assert_eq!(scene.files().0.len(), 4 * 512);
    assert_eq!(writer.versions(), [0; 4]);
    let beyond = |call: &Call| {
        let file = Which::Database;
        matches!(call, Call::Write { file: it, offset, .. } if *it == file && *offset >= 4 * 512)
    };
    assert!(
        !trace.iter().any(beyond),
        "written to be cut off: {trace:?}"
    );
}

/// An engine may commit pages that it never wrote, as SQLite does.
pub(crate) fn checkpoint_makes_a_database_as_long_as_its_commit_says<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    let mut tx = writer.write();
    let page = content(1, 1);
    tx.commit_frames(&[(PageNo::ONE, &page)], 5)
        .expect("it is committed");
    drop(tx);
    writer.checkpoint_all();
    let (database, _) = scene.files();
    assert_eq!(database.len(), 5 * 512);
    assert_eq!(database[..512], page);
}

/// A log with one frame whose commit speaks of a gigabyte.
pub(crate) fn checkpoint_of_more_pages_than_there_are_is_refused<B: Subject>() {
    let log = LogHeader {
        byte_order: ByteOrder::NATIVE,
        page_size: PageSize::MIN,
        sequence: 0,
        salts: Salts::random(),
    };
    let frame = FrameHeader {
        page: PageNo::ONE,
        commit_size: 2_000_000,
        salts: log.salts,
    };
    let page = content(1, 1);
    let (header, checksum) = log.encode();
    let (frame, _) = frame.encode(log.byte_order, checksum, &page);
    let log = [&header[..], &frame, &page].concat();
    let scene = Scene::<B>::from_files(&[content(1, 0), content(2, 0)].concat(), Some(&log));
    let refused = scene.user().wal.checkpoint(CheckpointMode::Passive);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(scene.files().0.len(), 2 * 512, "the file was touched");
    scene.assert_quiet();
}

/// Pages of a newer state were written, though no count says so.
pub(crate) fn checkpoint_that_died_at_its_pages_ends_older_snapshots<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (checkpointer, other) = scene.two();
    other.commit(&[2], 1);
    let old = other.read().snapshot().save();
    // Pages 1 and 4 are two writes.
    other.commit(&[1, 4], 2);
    let mut writes = 0;
    let second_write = move |call: &Call| {
        writes += u32::from(writes_database(call));
        writes == 2
    };
    assert!(checkpointer.dies(second_write, |user| user.checkpoint_all()));
    assert_eq!(scene.files().0[4], 2, "page 1 is the newer one");
    let opened = other.wal.open_snapshot(&old);
    assert!(
        matches!(opened, Err(Error::SnapshotGone { .. })),
        "{opened:?}"
    );
}

pub(crate) fn the_log_is_synced_before_the_database_is_written<B: Subject>() {
    for synchronous in [Synchronous::Normal, Synchronous::Full] {
        let scene = Scene::<B>::new(2);
        let writer = scene.user_at(synchronous);
        writer.commit(&[1, 2], 1);
        let (_, trace) = writer.trace(|writer| writer.checkpoint_all());
        let synced = place(&trace, |call| *call == Call::Sync(Which::Log));
        assert!(synced < place(&trace, writes_database), "{trace:?}");
    }
}

pub(crate) fn a_count_is_published_after_the_pages_and_their_sync<B: Subject>() {
    let steps: [fn(&Call) -> bool; 3] = [
        |call| *call == Call::Sync(Which::Log),
        writes_database,
        |call| *call == Call::Sync(Which::Database),
    ];
    for step in steps {
        let scene = Scene::<B>::new(2);
        let (checkpointer, other) = scene.two();
        other.commit(&[1, 2], 1);
        let look = other.clone();
        checkpointer.before(step, move || {
            assert_eq!(look.backfilled(), 0, "published too soon")
        });
        checkpointer.checkpoint_all();
        checkpointer.assert_stepped_in();
        assert_eq!(other.backfilled(), 2);
    }
}

pub(crate) fn a_database_without_syncs_is_never_synced<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_at(Synchronous::Off);
    let (_, trace) = writer.trace(|writer| {
        writer.commit(&[1, 2], 1);
        writer.checkpoint_all();
        writer.commit(&[1], 2);
    });
    assert!(
        !trace.iter().any(|call| matches!(call, Call::Sync(_))),
        "{trace:?}"
    );
}

/// A checkpoint of another attachment dies behind the cut. The commit that made the
/// database long again never wrote its last page, as SQLite's do not if it is free; the
/// length that the reader saw is of before the cut.
pub(crate) fn page_behind_a_dead_checkpoints_cut_reads_as_zeros<B: Subject>() {
    let scene = Scene::<B>::new(64);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let last = PageNo::new(64).expect("a page number");
    assert_eq!(
        *reader.read().page(last).expect("it is read"),
        *content(64, 0)
    );
    let mut tx = writer.write();
    tx.set_page_count(1).expect("it is cut");
    tx.commit().expect("it is committed");
    let path = scene.path().to_owned();
    let checkpointer = scene.user();
    let cuts = |call: &Call| matches!(call, Call::SetLen(Which::Database, _));
    checkpointer.then(cuts, move || {
        let file = std::fs::OpenOptions::new().write(true).open(path);
        let cut = file.and_then(|file| file.set_len(512));
        cut.expect("the file is cut");
        Then::Die
    });
    let checkpoints = || checkpointer.checkpoint_all();
    assert!(
        until_death(checkpoints).is_none(),
        "it has not come to the cut"
    );
    let mut tx = writer.write();
    tx.commit_frames(&[(PageNo::ONE, &content(1, 2))], 64)
        .expect("it is committed");
    drop(tx);
    let zeros = reader.read();
    assert_eq!(*zeros.page(last).expect("it is read"), [0; 512]);
}
