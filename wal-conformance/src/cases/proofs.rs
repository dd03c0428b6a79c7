//! What shows that a log may be overwritten, and when it no longer does.

use std::fs;
use std::time::Duration;

use super::contract::unlock;
use crate::calls::{Call, Which};
use crate::scene::{Scene, User, content};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::protocol::{BackfillProof, Synchronous, WalAutoActions};
use wal_core::types::{Lock, LockMode};

fn proof<B: Subject>(user: &User<B>) -> BackfillProof {
    let proof = user.wal.prove_backfill(Duration::ZERO);
    proof
        .expect("the database is synced")
        .expect("all is backfilled")
}

fn assert_refused<B: Subject>(user: &User<B>, proof: &BackfillProof, why: &str) {
    let before = user.header();
    for refused in [
        user.wal.restart_log(proof, Duration::ZERO),
        user.wal.truncate_log(proof, Duration::ZERO),
    ] {
        match refused {
            Err(Error::ProofRefused { why: found, .. }) => assert!(found.contains(why), "{found}"),
            other => panic!("the proof was taken: {other:?}"),
        }
    }
    assert_eq!(user.header(), before, "nothing was published");
}

pub(crate) fn a_log_is_restarted_and_cut_by_a_proof<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, reader) = scene.two();
    user.commit(&[1, 2], 1);
    let none = user.wal.prove_backfill(Duration::ZERO).expect("no error");
    assert_eq!(none, None, "nothing is backfilled");
    user.checkpoint_all();
    let proven = proof(&user);
    assert_eq!((proven.max_frame(), proven.page_count()), (2, 2));
    assert!(proven.is_synced());
    user.wal
        .restart_log(&proven, Duration::ZERO)
        .expect("it is restarted");
    assert_eq!(user.header().max_frame(), 0);
    assert_eq!(reader.versions(), [1, 1]);
    user.commit(&[2], 2);
    user.checkpoint_all();
    user.wal
        .truncate_log(&proof(&user), Duration::ZERO)
        .expect("it is cut");
    assert!(scene.files().1.is_empty());
    assert_eq!(reader.versions(), [1, 2]);
}

pub(crate) fn a_proof_of_another_state_of_the_log_is_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    let old = proof(&user);
    user.commit(&[1], 2);
    assert_refused(&user, &old, "gone on");
    user.checkpoint_all();
    assert_refused(&user, &old, "gone on");
    assert_eq!(user.versions(), [2, 1]);
}

/// As long, but another log; and the same log, but longer.
pub(crate) fn proof_covers_its_own_generation_and_frame_only<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, reader) = scene.two();
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    let old = proof(&user);
    user.commit(&[1, 2], 1);
    assert_ne!(user.header().salts(), old.salts(), "the log was restarted");
    assert_eq!(user.header().max_frame(), old.max_frame());
    assert_refused(&user, &old, "gone on");
    user.checkpoint_all();
    let shorter = proof(&user);
    // Nobody restarts the log over a reader.
    let reading = reader.wal.tail().expect("it holds a mark");
    user.commit(&[2], 3);
    drop(reading);
    assert_eq!(user.header().salts(), shorter.salts());
    assert_refused(&user, &shorter, "gone on");
    assert_eq!(user.versions(), [1, 3]);
}

pub(crate) fn proof_is_not_made_beside_a_checkpoint<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, other) = scene.two();
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    let checkpoint = other.wal.coordination();
    let locked = checkpoint.try_lock(Lock::Checkpoint, LockMode::Exclusive);
    assert!(locked.expect("no error"));
    let busy = user.wal.prove_backfill(Duration::ZERO);
    let lock = Lock::Checkpoint;
    assert!(
        matches!(busy, Err(Error::Busy { lock: it, .. }) if it == lock),
        "{busy:?}"
    );
    unlock(&other, Lock::Checkpoint, LockMode::Exclusive);
    proof(&user);
    scene.assert_quiet();
}

/// Stock SQLite restarts the log without `CKPT`, while the database file is synced.
pub(crate) fn proof_of_a_log_that_was_restarted_meanwhile_is_none<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    let stock = scene.user_like_stock();
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    let before = user.header().salts();
    let other = stock.clone();
    user.before(
        |call| *call == Call::Sync(Which::Database),
        move || other.commit(&[1], 2),
    );
    let none = user.wal.prove_backfill(Duration::ZERO);
    user.assert_stepped_in();
    assert_ne!(user.header().salts(), before, "the log was restarted");
    assert_eq!(none.expect("no error"), None);
    assert_eq!(stock.versions(), [2, 1]);
}

pub(crate) fn a_proof_of_another_attachment_is_refused<B: Subject>() {
    let (one, other) = (Scene::<B>::new(2), Scene::<B>::new(2));
    let (user, stranger) = (one.user(), other.user());
    for user in [&user, &stranger] {
        user.commit(&[1, 2], 1);
        user.checkpoint_all();
    }
    assert_refused(&user, &proof(&stranger), "another attachment");
}

pub(crate) fn a_proof_of_a_changed_database_is_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    let proven = proof(&user);
    let whole = fs::read(scene.path()).expect("the database is read");
    let mut changed = whole.clone();
    changed[..512].copy_from_slice(&content(1, 7));
    for bytes in [&changed[..], &whole[..512]] {
        fs::write(scene.path(), bytes).expect("the database is written");
        assert_refused(&user, &proven, "not as it was");
    }
    fs::write(scene.path(), &whole).expect("the database is written");
    user.wal
        .restart_log(&proven, Duration::ZERO)
        .expect("as it was");
}

pub(crate) fn a_proof_without_a_sync_says_so<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user_at(Synchronous::Off);
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    assert!(!proof(&user).is_synced());
}

pub(crate) fn a_log_is_not_restarted_by_hand_over_its_users<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (user, other) = scene.two();
    user.commit(&[1, 2], 1);
    let reading = other.read();
    user.checkpoint_all();
    let proven = proof(&user);
    let busy = |expected| match user.wal.restart_log(&proven, Duration::ZERO) {
        Err(Error::Busy { lock, .. }) => assert_eq!(lock, expected),
        other => panic!("not busy: {other:?}"),
    };
    busy(Lock::ReadMarks);
    drop(reading);
    let writing = other.write();
    busy(Lock::Write);
    drop(writing);
    user.wal
        .restart_log(&proven, Duration::ZERO)
        .expect("nobody is there");
}

pub(crate) fn a_log_with_an_owner_is_not_restarted_by_a_commit<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let owner = scene.user_with(|config| {
        config.auto_actions = WalAutoActions {
            checkpoint: 0,
            restart: false,
        };
    });
    owner.commit(&[1, 2], 1);
    owner.checkpoint_all();
    let before = owner.header();
    owner.commit(&[2], 2);
    let after = owner.header();
    assert_eq!(after.salts(), before.salts());
    assert_eq!(after.max_frame(), 3);
    owner.checkpoint_all();
    owner
        .wal
        .restart_log(&proof(&owner), Duration::ZERO)
        .expect("the owner restarts it");
    owner.commit(&[1], 3);
    assert_eq!(owner.header().max_frame(), 1);
    assert_eq!(owner.versions(), [3, 2]);
}
