//! Who each mode of a checkpoint waits for, and what it leaves behind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Reading, Scene, User, versions};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::{
    BusyHandler, Cancel, CheckpointMode, CheckpointOptions, CheckpointReport, Synchronous,
};
use wal_core::types::{Lock, LockMode, ReadSlot};

fn run<B: Subject>(user: &User<B>, mode: CheckpointMode) -> CheckpointReport {
    let report = user.wal.checkpoint(mode);
    report.expect("being held back is no error")
}

/// What held a checkpoint back, and the mark behind it.
fn held_by(report: &CheckpointReport) -> Option<(Lock, Option<u32>)> {
    let held = report.held_back_by.as_ref();
    held.map(|held| (held.lock, held.mark))
}

/// Which lock was busy, and how often it was tried.
type Asked = Arc<Mutex<Vec<(Lock, u32)>>>;

/// A busy handler that ends `reading` when it is asked, and what it was asked.
fn ends<B: Subject>(reading: Reading<B>) -> (BusyHandler, Asked) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (reading, log) = (Mutex::new(Some(reading)), asked.clone());
    let handler = BusyHandler::ask(move |lock, tries| {
        log.lock().expect("nobody panicked").push((lock, tries));
        reading.lock().expect("nobody panicked").take().is_some()
    });
    (handler, asked)
}

pub(crate) fn a_full_checkpoint_waits_for_readers_and_copies_everything<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let reading = reader.read();
    let lock = Lock::Read(reading.snapshot().slot().unwrap());
    writer.commit(&[1, 2], 2);
    let passive = run(&writer, CheckpointMode::Passive);
    assert_eq!(held_by(&passive), Some((lock, Some(1))));
    let impatient = run(&writer, CheckpointMode::Full);
    assert_eq!(held_by(&impatient), Some((lock, Some(1))));
    assert_eq!((impatient.backfilled, impatient.log_frames), (1, 3));
    let (busy, asked) = ends::<B>(reading);
    let full = CheckpointOptions::new(CheckpointMode::Full).busy(busy);
    let report = writer.wal.checkpoint_with(full).expect("it runs");
    assert_eq!(held_by(&report), None);
    assert_eq!((report.backfilled, report.log_frames), (3, 3));
    assert_eq!(*asked.lock().unwrap(), [(lock, 1)]);
    assert_eq!(reader.versions(), [2, 2]);
}

/// Nothing is gained by waiting for an older reader once a newer one stays.
pub(crate) fn checkpoint_that_gave_up_on_a_reader_waits_for_no_other<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let first = reader.read();
    writer.commit(&[2], 2);
    let older = reader.read();
    writer.commit(&[3], 3);
    // The newer reader has the slot that is looked at first.
    drop(first);
    let newer = reader.read();
    writer.commit(&[3], 4);
    let marks = [&newer, &older].map(|tx| writer.mark(tx.snapshot().slot().unwrap()));
    assert_eq!(marks, [3, 2]);
    assert!(newer.snapshot().slot() < older.snapshot().slot());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let busy = BusyHandler::ask(move |lock, _| {
        log.lock().expect("nobody panicked").push(lock);
        false
    });
    let full = CheckpointOptions::new(CheckpointMode::Full).busy(busy);
    let report = writer.wal.checkpoint_with(full).expect("it runs");
    assert_eq!((report.backfilled, report.log_frames), (2, 4));
    assert_eq!(asked.lock().unwrap().len(), 1, "it asked for both");
    drop((newer, older));
}

pub(crate) fn a_checkpoint_that_does_not_get_write_is_a_passive_one_and_says_so<B: Subject>() {
    for mode in [
        CheckpointMode::Full,
        CheckpointMode::Restart,
        CheckpointMode::Truncate,
    ] {
        let scene = Scene::<B>::new(2);
        let (writer, checkpointer) = scene.two();
        writer.commit(&[1, 2], 1);
        let writing = writer.write();
        let report = run(&checkpointer, mode);
        assert_eq!(held_by(&report), Some((Lock::Write, None)), "{mode:?}");
        assert_eq!((report.backfilled, report.log_frames), (2, 2), "{mode:?}");
        drop(writing);
        assert_eq!(held_by(&run(&checkpointer, mode)), None, "{mode:?}");
        assert_eq!(writer.versions(), [1, 1]);
    }
}

pub(crate) fn a_passive_checkpoint_asks_nobody_and_takes_no_write<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let reading = reader.read();
    writer.commit(&[2], 2);
    let (busy, asked) = ends::<B>(reading);
    let passive = CheckpointOptions::new(CheckpointMode::Passive).busy(busy);
    let (report, trace) = writer.trace(|writer| writer.wal.checkpoint_with(passive));
    assert_eq!(report.expect("it runs").backfilled, 1);
    assert_eq!(*asked.lock().unwrap(), []);
    let write = Call::TryLock(Lock::Write, LockMode::Exclusive);
    assert!(!trace.contains(&write), "{trace:?}");
}

pub(crate) fn a_restart_checkpoint_waits_until_nobody_reads_the_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2], 1);
    let reading = reader.read();
    let before = writer.header();
    let held = run(&writer, CheckpointMode::Restart);
    assert_eq!(held_by(&held), Some((Lock::ReadMarks, None)));
    assert!(
        held.is_complete(),
        "a reader of the newest state lets all be copied"
    );
    let (busy, asked) = ends::<B>(reading);
    let restart = CheckpointOptions::new(CheckpointMode::Restart).busy(busy);
    let report = writer.wal.checkpoint_with(restart).expect("it runs");
    assert_eq!(held_by(&report), None);
    assert_eq!(*asked.lock().unwrap(), [(Lock::ReadMarks, 1)]);
    writer.commit(&[2], 2);
    let after = writer.header();
    assert_ne!(
        after.salts(),
        before.salts(),
        "the next commit begins the log anew"
    );
    assert_eq!(after.max_frame(), 1);
    assert_eq!(reader.versions(), [1, 2]);
}

pub(crate) fn a_truncate_checkpoint_leaves_an_empty_log_of_a_new_generation<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    let before = writer.header();
    let bypassing = {
        writer.checkpoint_all();
        other.read()
    };
    assert!(bypassing.snapshot().bypasses_log());
    let report = run(&writer, CheckpointMode::Truncate);
    assert_eq!(
        held_by(&report),
        None,
        "a reader of the database is in nobody's way"
    );
    assert_eq!((report.log_frames, report.backfilled), (0, 0));
    assert_eq!(report.log_bytes_cut, 32 + 2 * (24 + 512));
    let (_, log) = scene.files();
    assert!(log.is_empty());
    let after = writer.header();
    assert_eq!(after.max_frame(), 0);
    assert_ne!(after.salts(), before.salts());
    assert_eq!(versions::<B>(&bypassing), [1, 1]);
    drop(bypassing);
    other.commit(&[2], 2);
    assert_eq!(writer.versions(), [1, 2]);
    let again = run(&other, CheckpointMode::Truncate);
    assert_eq!(again.log_bytes_cut, 32 + 24 + 512);
    assert_eq!(run(&other, CheckpointMode::Truncate).log_bytes_cut, 0);
}

pub(crate) fn a_truncate_that_dies_at_any_call_loses_nothing<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (checkpointer, other) = scene.two();
        other.commit(&[1, 2], 1);
        other.commit(&[2, 3], 2);
        let truncates = |user: &User<B>| drop(run(user, CheckpointMode::Truncate));
        if !checkpointer.dies(nth(n), truncates) {
            return false;
        }
        scene.assert_quiet();
        assert_eq!(other.versions(), [1, 2, 2], "call {n}");
        let (database, log) = scene.files();
        let recovered = Scene::<B>::from_files(&database, Some(&log));
        assert_eq!(
            recovered.user().versions(),
            [1, 2, 2],
            "call {n}, recovered"
        );
        other.commit(&[1], 3);
        assert_eq!(other.versions(), [3, 2, 2], "call {n}, after a commit");
        assert_eq!(held_by(&run(&other, CheckpointMode::Truncate)), None);
        assert_eq!(other.versions(), [3, 2, 2], "call {n}, after a truncate");
        true
    });
}

/// A reader never finds a log that is shorter than the index says.
pub(crate) fn a_log_is_told_to_be_empty_before_it_is_cut<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (checkpointer, other) = scene.two();
    other.commit(&[1, 2], 1);
    let observer = other.clone();
    checkpointer.before(
        |call| *call == Call::SetLen(Which::Log, 0),
        move || assert_eq!(observer.header().max_frame(), 0, "the index knows"),
    );
    run(&checkpointer, CheckpointMode::Truncate);
    checkpointer.assert_stepped_in();
}

/// A peer at `synchronous=OFF` publishes a complete backfill without a sync.
pub(crate) fn a_truncate_syncs_what_a_peer_backfilled_without<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (careless, careful) = (scene.user_at(Synchronous::Off), scene.user());
    careless.commit(&[1, 2], 1);
    careless.checkpoint_all();
    let (_, trace) = careful.trace(|user| run(user, CheckpointMode::Truncate));
    let sync = trace.iter().position(|c| *c == Call::Sync(Which::Database));
    let cut = trace.iter().position(|c| *c == Call::SetLen(Which::Log, 0));
    assert!(sync.is_some() && sync < cut, "{trace:?}");
}

pub(crate) fn a_passive_checkpoint_stops_at_its_bound<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2, 3], 1);
    writer.commit(&[1, 2], 2);
    for bound in [2, 4] {
        let options = CheckpointOptions::passive_up_to(bound);
        let report = writer.wal.checkpoint_with(options).expect("it runs");
        assert_eq!((report.backfilled, report.log_frames), (bound, 5));
        assert_eq!(held_by(&report), None, "the bound is no obstacle");
        assert_eq!(reader.versions(), [2, 2, 1]);
    }
    writer.checkpoint_all();
    assert_eq!(reader.versions(), [2, 2, 1]);
}

pub(crate) fn a_checkpoint_tells_its_progress<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let writer = scene.user();
    writer.commit(&[1, 2, 5], 1);
    let mut seen = Vec::new();
    let mut progress = |step: wal_core::protocol::CheckpointProgress| {
        seen.push((step.copied, step.pages));
    };
    let options = CheckpointOptions::new(CheckpointMode::Passive).progress(&mut progress);
    writer.wal.checkpoint_with(options).expect("it runs");
    assert_eq!(seen, [(2, 3), (3, 3)]);
}

pub(crate) fn a_cancelled_checkpoint_publishes_nothing_and_leaves_no_lock<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 3, 5], 1);
    let cancel = Cancel::new();
    let mut progress = |_| cancel.cancel();
    let options = CheckpointOptions::new(CheckpointMode::Passive)
        .busy(BusyHandler::FAIL.cancelled_by(&cancel))
        .progress(&mut progress);
    let cancelled = writer.wal.checkpoint_with(options);
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    scene.assert_quiet();
    assert_eq!(writer.backfilled(), 0);
    assert_eq!(reader.versions(), [1, 0, 1, 0, 1]);
    writer.checkpoint_all();
    assert_eq!(reader.versions(), [1, 0, 1, 0, 1]);
}

/// A reader at slot 0 keeps the database file from being written; a mode that
/// waits waits for it too.
pub(crate) fn a_full_checkpoint_waits_for_readers_of_the_database<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    let bypassing = reader.read();
    writer.commit(&[1, 2], 1);
    let database = Lock::Read(ReadSlot::DATABASE);
    let held = run(&writer, CheckpointMode::Full);
    assert_eq!(held_by(&held), Some((database, None)));
    let (busy, asked) = ends::<B>(bypassing);
    let full = CheckpointOptions::new(CheckpointMode::Full).busy(busy);
    let report = writer.wal.checkpoint_with(full).expect("it runs");
    assert!(report.is_complete());
    assert_eq!(*asked.lock().unwrap(), [(database, 1)]);
}

/// Runs each of the operations that cut the log to nothing, once.
fn each_truncation<B: Subject>(
    level: Synchronous,
    mut look: impl FnMut(&str, &User<B>, Vec<Call>),
) {
    type Truncation<B> = fn(&User<B>);
    let ways: [(&str, Truncation<B>); 3] = [
        ("checkpoint", |user| {
            drop(run(user, CheckpointMode::Truncate))
        }),
        ("proof", |user| {
            user.checkpoint_all();
            let proof = user.wal.prove_backfill(Duration::ZERO).unwrap().unwrap();
            user.wal.truncate_log(&proof, Duration::ZERO).unwrap();
        }),
        ("vacuum", |user| {
            let lock = user.wal.try_begin_vacuum_checkpoint_lock(Duration::ZERO);
            let locks = lock.unwrap().exclude_all().unwrap();
            locks.vacuum_checkpoint_with_held_lock().unwrap();
        }),
    ];
    for (way, truncate) in ways {
        let scene = Scene::<B>::new(2);
        let user = scene.user_at(level);
        user.commit(&[1, 2], 1);
        let (_, trace) = user.trace(truncate);
        assert!(scene.files().1.is_empty(), "{way}");
        look(way, &user, trace);
    }
}

/// After a power failure a cut that was not synced may be undone, and the log would
/// be there again with all that it had.
pub(crate) fn truncated_log_is_synced_unless_syncs_are_off<B: Subject>() {
    let (cut, sync) = (Call::SetLen(Which::Log, 0), Call::Sync(Which::Log));
    for level in [Synchronous::Normal, Synchronous::Full] {
        each_truncation::<B>(level, |way, user, trace| {
            let at = trace.iter().position(|call| *call == cut);
            let behind = &trace[at.expect("the log is cut") + 1..];
            let synced = behind.iter().position(|call| *call == sync);
            let released = |call: &Call| matches!(call, Call::Unlock(Lock::Write, _));
            let released = behind.iter().position(released);
            assert!(
                synced.is_some() && synced < released,
                "{way} at {level:?}: {trace:?}"
            );
            // What has nothing to cut has nothing to sync.
            let (_, again) = user.trace(|user| run(user, CheckpointMode::Truncate));
            assert!(!again.contains(&sync), "{way} at {level:?}: {again:?}");
        });
    }
    each_truncation::<B>(Synchronous::Off, |way, _, trace| {
        assert!(!trace.contains(&sync), "{way}: {trace:?}");
    });
}

pub(crate) fn truncation_whose_sync_fails_is_reported<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, other) = scene.two();
    one.commit(&[1, 2], 1);
    one.checkpoint_all();
    one.then(|call| *call == Call::Sync(Which::Log), || Then::Fail);
    let failed = one.wal.checkpoint(CheckpointMode::Truncate);
    one.assert_stepped_in();
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert!(scene.files().1.is_empty(), "it is cut all the same");
    scene.assert_quiet();
    assert!(matches!(
        one.try_commit(&[1], 2),
        Err(Error::Poisoned { .. })
    ));
    other.commit(&[2], 3);
    assert_eq!(one.versions(), [1, 3]);
    other.checkpoint_all();
    assert_eq!(other.versions(), [1, 3]);
}
