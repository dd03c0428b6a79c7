//! Commits that are visible before they are durable, and share a sync.

use super::durability::{SYNC, log_writes};
use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User, content, fill};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::format::{ByteOrder, FrameHeader, LogHeader};
use wal_core::index::IndexHeader;
use wal_core::protocol::{CheckpointMode, Synchronous};
use wal_core::types::{Lock, LockMode, PageNo, PageSize, Salts};
use wal_core::wait::SyncedLog;

const DATABASE_SYNC: Call = Call::Sync(Which::Database);
/// From here on others may write, and what was committed is not durable yet.
const WRITE_GIVEN_BACK: Call = Call::Unlock(Lock::Write, LockMode::Exclusive);

/// A user that shares its syncs.
fn member<B: Subject>(scene: &Scene<B>) -> User<B> {
    scene.user_with(|config| {
        config.synchronous = Synchronous::Full;
        config.group_commit = true;
    })
}

/// A scene whose log has a commit, so that its header is synced.
fn scene<B: Subject>() -> (Scene<B>, User<B>, User<B>) {
    let scene = Scene::new(2);
    let (one, two) = (member(&scene), member(&scene));
    one.commit(&[1, 2], 1);
    (scene, one, two)
}

fn syncs(trace: &[Call]) -> Vec<Call> {
    let is_sync = |call: &&Call| matches!(call, Call::Sync(_));
    trace.iter().filter(is_sync).copied().collect()
}

fn is_told_synced<B: Subject>(user: &User<B>, header: &IndexHeader) -> bool {
    synced_log(user).covers(header.salts(), header.max_frame())
}

fn synced_log<B: Subject>(user: &User<B>) -> &SyncedLog {
    let wait_state = user.wal.coordination().wait_state();
    wait_state.expect("a wait state").synced()
}

pub(crate) fn a_group_commit_is_visible_and_write_free_before_its_sync<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    let other = scene.user();
    let look = {
        let other = other.clone();
        move || {
            assert_eq!(other.versions(), [2, 1]);
            other.commit(&[2], 3);
        }
    };
    one.before(|call| *call == SYNC, look);
    let (_, trace) = one.trace(|one| one.commit(&[1], 2));
    one.assert_stepped_in();
    assert_eq!(syncs(&trace), [SYNC], "it was not synced");
    assert_eq!(two.versions(), [2, 3]);
    scene.assert_quiet();
}

pub(crate) fn a_sync_of_another_serves_what_was_published_before_it<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    let (_, led) = one.trace(|one| one.commit(&[1], 2));
    assert_eq!(syncs(&led), [SYNC]);
    assert!(is_told_synced(&two, &two.header()), "it tells nobody");
    one.before(
        |call| *call == WRITE_GIVEN_BACK,
        move || {
            let now = two.header();
            synced_log(&two).raise(now.salts(), now.max_frame());
        },
    );
    let (_, trace) = one.trace(|one| one.commit(&[1], 3));
    one.assert_stepped_in();
    assert_eq!(syncs(&trace), [], "a second sync");
    scene.assert_quiet();
}

pub(crate) fn what_is_published_during_a_sync_is_not_told_synced<B: Subject>() {
    let (scene, one, _) = scene::<B>();
    let other = scene.user();
    one.before(|call| *call == SYNC, move || other.commit(&[2], 3));
    one.commit(&[1], 2);
    one.assert_stepped_in();
    let now = one.header();
    assert!(!is_told_synced(&one, &now), "it may have come too late");
    scene.assert_quiet();
}

/// Random salts can repeat the first salt of another generation.
pub(crate) fn sync_of_same_first_salt_serves_no_other_generation<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    one.before(
        |call| *call == WRITE_GIVEN_BACK,
        move || {
            let Salts(mut salts) = two.header().salts();
            salts[7] ^= 1;
            synced_log(&two).raise(Salts(salts), 1000);
        },
    );
    let (_, trace) = one.trace(|one| one.commit(&[1], 3));
    one.assert_stepped_in();
    assert_eq!(syncs(&trace), [SYNC], "another log was synced");
    scene.assert_quiet();
}

/// A log whose salts are zeros: stock SQLite begins one so if it recovers an empty log
/// after a checkpoint of its own.
fn log_with_salts_of_zero() -> Vec<u8> {
    let header = LogHeader {
        byte_order: ByteOrder::NATIVE,
        page_size: PageSize::MIN,
        sequence: 1,
        salts: Salts([0; 8]),
    };
    let (bytes, mut checksum) = header.encode();
    let mut log = bytes.to_vec();
    for page in [1, 2] {
        let frame = FrameHeader {
            page: PageNo::new(page).expect("a page number"),
            commit_size: if page == 2 { 2 } else { 0 },
            salts: header.salts,
        };
        let content = content(page, 1);
        let (bytes, after) = frame.encode(header.byte_order, checksum, &content);
        log.extend([bytes.as_slice(), &content].concat());
        checksum = after;
    }
    log
}

/// Zeros name no generation: a position beside them may be that of an earlier log.
pub(crate) fn salts_of_zero_share_no_sync<B: Subject>() {
    let database = [content(1, 0), content(2, 0)].concat();
    let scene = Scene::<B>::from_files(&database, Some(&log_with_salts_of_zero()));
    let (one, two) = (member(&scene), member(&scene));
    assert_eq!(one.versions(), [1, 1]);
    assert_eq!(one.header().salts(), Salts([0; 8]));
    synced_log(&two).raise(Salts([0; 8]), 1000);
    for version in 2..4 {
        let (_, trace) = one.trace(|one| one.commit(&[1], version));
        assert_eq!(syncs(&trace), [DATABASE_SYNC, SYNC]);
        assert!(!is_told_synced(&two, &two.header()), "of which log?");
    }
    one.then(|call| *call == SYNC, || Then::Fail);
    let failed = one.try_commit(&[1], 4);
    assert!(
        matches!(failed, Err(Error::DurabilityUnknown { .. })),
        "{failed:?}"
    );
    // Another user writes the log again, though the failure is that of no generation.
    let len = scene.files().1.len();
    let (_, trace) = two.trace(|two| two.commit(&[2], 5));
    let again = Call::Write {
        file: Which::Log,
        offset: 0,
        len,
    };
    assert_eq!(log_writes(&trace).first(), Some(&again), "{trace:?}");
    assert_eq!(two.versions(), [4, 5]);
    scene.assert_quiet();
}

/// Before each call of a group commit a peer that syncs nothing moves the log
/// to the database file and begins it anew, wherever it can.
pub(crate) fn a_group_commit_whose_log_is_gone_is_synced_in_the_database<B: Subject>() {
    let mut gone = 0;
    at_every_call(|n| {
        let (scene, one, _) = scene::<B>();
        let careless = scene.user_at(Synchronous::Off);
        let before = one.header().salts();
        one.before(nth(n), move || {
            if let Ok(report) = careless.wal.checkpoint(CheckpointMode::Passive)
                && report.is_complete()
            {
                let _ = careless.try_commit(&[2], 3);
            }
        });
        let (_, trace) = one.trace(|one| one.commit(&[1], 2));
        let came = one.stepped_in();
        let published = trace.iter().position(|call| *call == WRITE_GIVEN_BACK);
        let begun_anew = one.header().salts() != before;
        if begun_anew && published.is_some_and(|at| n > at) {
            gone += 1;
            assert_eq!(syncs(&trace).last_chunk(), Some(&[DATABASE_SYNC, SYNC]));
        }
        came
    });
    assert!(gone > 0, "the log never went");
}

pub(crate) fn a_log_that_failed_to_sync_is_written_again_before_a_durable_commit<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    one.then(|call| *call == SYNC, || Then::Fail);
    let led = one.try_commit(&[1], 2);
    assert!(
        matches!(led, Err(Error::DurabilityUnknown { .. })),
        "{led:?}"
    );
    assert_eq!(two.versions(), [2, 1], "visible all the same");
    let poisoned = one.try_commit(&[1], 9);
    assert!(
        matches!(poisoned, Err(Error::Poisoned { .. })),
        "{poisoned:?}"
    );
    let (_, log) = scene.files();
    let strict = scene.user_at(Synchronous::Full);
    for (user, version) in [(&two, 3), (&strict, 4)] {
        let (_, trace) = user.trace(|user| user.commit(&[2], version));
        let again = Call::Write {
            file: Which::Log,
            offset: 0,
            len: log.len(),
        };
        let writes = log_writes(&trace);
        match version {
            3 => assert_eq!(writes[..2], [again, SYNC], "{writes:?}"),
            _ => assert_eq!(writes.len(), 2, "once is enough: {writes:?}"),
        }
    }
    assert_eq!(scene.files().1[..log.len()], log, "other bytes");
    assert_eq!(two.versions(), [2, 4]);
    scene.assert_quiet();
}

pub(crate) fn a_log_that_failed_to_sync_is_written_again_before_it_is_moved<B: Subject>() {
    let (scene, one, _) = scene::<B>();
    one.then(|call| *call == SYNC, || Then::Fail);
    one.try_commit(&[1], 2).expect_err("its sync failed");
    let other = scene.user();
    let writer = scene.user();
    let write = writer.write();
    let busy = other.wal.checkpoint(CheckpointMode::Passive);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    drop(write);
    let (_, trace) = other.trace(User::checkpoint_all);
    let begins = trace.iter().position(|call| {
        matches!(
            call,
            Call::Write {
                file: Which::Log,
                offset: 0,
                ..
            }
        )
    });
    let moved = trace.iter().position(|call| {
        matches!(
            call,
            Call::Write {
                file: Which::Database,
                ..
            }
        )
    });
    assert!(begins.is_some() && begins < moved, "{trace:?}");
    assert_eq!(other.versions(), [2, 1]);
    scene.assert_quiet();
}

pub(crate) fn a_transaction_that_spilled_before_a_sync_failed_is_refused<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    let mut tx = two.write();
    fill(&mut tx, &[2], 3).expect("a page is changed");
    tx.spill().expect("it is spilled");
    synced_log(&one).fail(one.header().salts());
    let refused = tx.commit();
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    two.commit(&[2], 4);
    assert_eq!(one.versions(), [1, 4]);
    scene.assert_quiet();
}

pub(crate) fn who_waits_for_a_sync_that_fails_does_not_try_again<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    one.before(
        |call| *call == WRITE_GIVEN_BACK,
        move || {
            synced_log(&two).fail(two.header().salts());
        },
    );
    let (waited, trace) = one.trace(|one| one.try_commit(&[1], 2));
    one.assert_stepped_in();
    assert!(
        matches!(waited, Err(Error::DurabilityUnknown { .. })),
        "{waited:?}"
    );
    assert_eq!(syncs(&trace), [], "it was tried again");
    let poisoned = one.try_commit(&[1], 3);
    assert!(
        matches!(poisoned, Err(Error::Poisoned { .. })),
        "{poisoned:?}"
    );
    scene.assert_quiet();
}

pub(crate) fn a_leader_that_dies_is_replaced<B: Subject>() {
    let (_scene, one, two) = scene::<B>();
    assert!(one.dies(|call| *call == SYNC, |one| one.commit(&[1], 2)));
    let (_, trace) = two.trace(|two| two.commit(&[2], 3));
    assert_eq!(syncs(&trace), [SYNC]);
    assert_eq!(two.versions(), [2, 3]);
    assert!(is_told_synced(&two, &two.header()));
}

/// What a failed sync has lost is missing below what a later one makes durable.
pub(crate) fn sync_that_failed_before_a_later_one_is_not_forgotten<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    one.before(
        |call| *call == WRITE_GIVEN_BACK,
        move || {
            let now = two.header();
            synced_log(&two).fail(now.salts());
            synced_log(&two).raise(now.salts(), now.max_frame());
        },
    );
    let waited = one.try_commit(&[1], 2);
    one.assert_stepped_in();
    assert!(
        matches!(waited, Err(Error::DurabilityUnknown { .. })),
        "{waited:?}"
    );
    scene.assert_quiet();
}

/// A sync of the database file fails for the attachment while one of its threads waits.
pub(crate) fn poisoned_member_does_not_sync_again<B: Subject>() {
    let (scene, one, _) = scene::<B>();
    let fails = one.clone();
    one.before(
        |call| *call == WRITE_GIVEN_BACK,
        move || {
            fails.then(|call| *call == DATABASE_SYNC, || Then::Fail);
            let failed = fails.wal.checkpoint(CheckpointMode::Passive);
            assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        },
    );
    let (waited, trace) = one.trace(|one| one.try_commit(&[1], 2));
    assert!(
        matches!(waited, Err(Error::DurabilityUnknown { .. })),
        "{waited:?}"
    );
    // Those of the checkpoint.
    assert_eq!(syncs(&trace), [SYNC, DATABASE_SYNC], "it was tried again");
    scene.assert_quiet();
}

/// Whether the log is still of its generation cannot be told.
pub(crate) fn group_commit_beside_an_unreadable_header_is_synced_in_both<B: Subject>() {
    let (scene, one, two) = scene::<B>();
    one.before(
        |call| *call == WRITE_GIVEN_BACK,
        move || {
            let now = two.header();
            synced_log(&two).raise(now.salts(), now.max_frame());
            two.damage_header();
        },
    );
    let (_, trace) = one.trace(|one| one.commit(&[1], 2));
    one.assert_stepped_in();
    assert_eq!(syncs(&trace), [DATABASE_SYNC, SYNC]);
    assert_eq!(one.versions(), [2, 1]);
    scene.assert_quiet();
}
