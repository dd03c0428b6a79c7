//! All pages of a database are replaced.

use std::time::Duration;

use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::interposed::Interposed;
use crate::scene::{Scene, User, Writing, content, versions};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::protocol::{CheckpointMode, VacuumTx};
use wal_core::types::{Lock, LockMode, PageNo};

/// Keeps each second page, and gives it version 9.
fn halve<B: Subject>(tx: &mut Writing<B>) {
    let rewritten = tx.rewrite(false, |old, new| {
        for page in (1..=old.page_count()).step_by(2) {
            let bytes = old.page(PageNo::new(page)?)?;
            assert_eq!(bytes[..4], page.to_le_bytes(), "an old page stays");
            new.push(&content(new.page_count() + 1, 9))?;
        }
        Ok(())
    });
    rewritten.expect("it is rewritten");
}

type Vacuuming<B> = VacuumTx<Interposed<<B as Subject>::Coordination>>;

fn begin_and_halve<B: Subject>(user: &User<B>) -> Vacuuming<B> {
    let locks = user.wal.try_begin_vacuum_checkpoint_lock(Duration::ZERO);
    let mut vacuum = locks
        .expect("nobody is there")
        .begin_vacuum_blocking_tx()
        .expect("it begins");
    halve::<B>(vacuum.tx());
    vacuum
}

pub(crate) fn vacuum_checkpoint_lock_excludes_checkpoints_alone<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (vacuuming, other) = scene.two();
    // Else the first reader would recover, for which it acquires `CKPT` too.
    other.versions();
    let begin = || {
        let lock = vacuuming
            .wal
            .try_begin_vacuum_checkpoint_lock(Duration::ZERO);
        lock.expect("no other user checkpoints")
    };
    let lock = begin();
    other.commit(&[1], 1);
    assert_eq!(other.versions(), [1, 0]);
    let refused = other.wal.checkpoint(CheckpointMode::Passive);
    let is_checkpoint =
        |e: &Error| matches!(e, Error::Busy { lock, .. } if *lock == Lock::Checkpoint);
    assert!(refused.as_ref().is_err_and(is_checkpoint), "{refused:?}");
    drop(lock);
    scene.assert_quiet();
    // A transaction that cannot begin releases it too.
    let reading = other.read();
    let refused = begin().begin_vacuum_blocking_tx();
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    drop((refused, reading));
    scene.assert_quiet();
    other.checkpoint_all();
}

fn vacuum_exclusively<B: Subject>(user: &User<B>) {
    let vacuum = begin_and_halve::<B>(user);
    let locks = vacuum.commit().expect("it is committed");
    let report = locks
        .vacuum_checkpoint_with_held_lock()
        .expect("it is checkpointed");
    assert_eq!((report.log_frames, report.held_back_by), (0, None));
}

/// The caller has the transaction by an exclusive reference, so it can keep it and put
/// that of another database in its place.
pub(crate) fn vacuum_transaction_that_is_swapped_out_keeps_its_locks<B: Subject>() {
    let (scene, elsewhere) = (Scene::<B>::new(5), Scene::<B>::new(5));
    let (vacuuming, other) = scene.two();
    let mut swapped = elsewhere.user().write();
    let mut vacuum = begin_and_halve::<B>(&vacuuming);
    std::mem::swap(vacuum.tx(), &mut swapped);
    let refused = vacuum.commit().map(drop);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let free = |lock| {
        let coordination = other.wal.coordination();
        let taken = coordination.try_lock(lock, LockMode::Exclusive);
        taken.expect("an answer")
    };
    assert!(!free(Lock::Readers) && !free(Lock::Write), "it is overrun");
    swapped.commit().expect("it is committed");
    scene.assert_quiet();
    elsewhere.assert_quiet();
    assert_eq!(other.versions(), [9; 3]);
}

pub(crate) fn a_rewrite_replaces_all_pages_while_readers_go_on<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 4], 1);
    let reading = reader.read();
    let mut tx = writer.write();
    halve::<B>(&mut tx);
    assert_eq!(tx.page_count(), 3);
    tx.commit().expect("it is committed");
    assert_eq!(versions::<B>(&reading), [1, 0, 0, 1, 0]);
    assert_eq!(writer.versions(), [9, 9, 9]);
    drop(reading);
    let report = writer.wal.checkpoint(CheckpointMode::Truncate);
    let report = report.expect("it runs");
    assert_eq!(report.held_back_by, None);
    assert_eq!(report.database_bytes_cut, 2 * 512);
    let (database, log) = scene.files();
    assert_eq!((database.len(), log.len()), (3 * 512, 0));
    assert_eq!(reader.versions(), [9, 9, 9]);
}

pub(crate) fn a_rewrite_can_make_a_database_longer<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    let mut tx = writer.write();
    let rewritten = tx.rewrite(false, |_, new| {
        (1..=4).try_for_each(|page| new.push(&content(page, 3)).map(drop))
    });
    rewritten.expect("it is rewritten");
    tx.commit().expect("it is committed");
    assert_eq!(writer.versions(), [3, 3, 3, 3]);
}

pub(crate) fn a_rewrite_without_pages_or_with_part_of_one_is_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    let nothing = writer.write().rewrite(false, |_, _| Ok(()));
    assert!(matches!(nothing, Err(Error::Refused { .. })), "{nothing:?}");
    let part = writer
        .write()
        .rewrite(false, |_, new| new.push(&[1; 100]).map(drop));
    assert!(matches!(part, Err(Error::Refused { .. })), "{part:?}");
    assert_eq!(writer.versions(), [0, 0]);
}

pub(crate) fn an_exclusive_vacuum_leaves_a_short_file_and_an_empty_log<B: Subject>() {
    let scene = Scene::<B>::new(6);
    let (one, other) = scene.two();
    one.commit(&[1, 6], 1);
    vacuum_exclusively(&one);
    scene.assert_quiet();
    let (database, log) = scene.files();
    assert_eq!((database.len(), log.len()), (3 * 512, 0));
    assert_eq!(other.versions(), [9, 9, 9]);
    other.commit(&[2], 10);
    assert_eq!(one.versions(), [9, 10, 9]);
}

pub(crate) fn an_exclusive_vacuum_that_dies_at_any_call_is_whole_or_not_there<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(4);
        let (one, other) = scene.two();
        other.commit(&[1, 4], 1);
        if !one.dies(nth(n), vacuum_exclusively) {
            return false;
        }
        scene.assert_quiet();
        let seen = other.versions();
        let states: [&[u32]; 2] = [&[1, 0, 0, 1], &[9, 9]];
        assert!(states.contains(&&*seen), "call {n}: {seen:?}");
        let (database, log) = scene.files();
        let recovered = Scene::<B>::from_files(&database, Some(&log))
            .user()
            .versions();
        assert!(
            states.contains(&&*recovered),
            "call {n}, recovered: {recovered:?}"
        );
        other.commit(&[2], 5);
        other.checkpoint_all();
        assert_eq!(other.versions()[1], 5, "call {n}");
        true
    });
}

pub(crate) fn a_vacuum_after_a_failed_sync_is_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    let mut vacuum = begin_and_halve::<B>(&user);
    user.then(|call| *call == Call::Sync(Which::Log), || Then::Fail);
    assert!(vacuum.tx().spill().is_err(), "the log's header is synced");
    let refused = vacuum.commit().expect_err("a sync has failed");
    assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
    scene.assert_quiet();
}
