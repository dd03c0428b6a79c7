//! Threads of one attachment that share a sync, and what becomes of them when it
//! fails, or when one of them dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::durability::SYNC;
use super::relayed_commits::{
    Kept, begin_beside_a_sync, commit_on_a_thread, gives_write_up, joined, keep, scene, take,
    until_it_waits, writes_log,
};
use crate::director::{Then, at_every_call, nth, until_death};
use crate::scene::fill;
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};

pub(crate) fn a_sync_that_fails_fails_all_threads_that_wait_for_it<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let (threads, last) = (Kept::default(), Kept::default());
    strict.then(|call| *call == SYNC, {
        let (strict, threads, last) = (strict.clone(), threads.clone(), last.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            keep(&threads, commit_on_a_thread::<B>(tx, 2, 3));
            keep(&last, begin_beside_a_sync(&strict));
            Then::Fail
        }
    });
    let led = strict.try_commit(&[1], 2);
    let unknown = |outcome: &Result<_>| matches!(outcome, Err(Error::CommitOutcomeUnknown { .. }));
    assert!(unknown(&led));
    assert!(joined(&threads).iter().all(unknown));
    for mut tx in take(&last) {
        fill(&mut tx, &[3], 4).expect("it does not know yet");
        let refused = tx.commit();
        assert!(
            matches!(refused, Err(Error::Poisoned { .. })),
            "{refused:?}"
        );
    }
    scene.assert_quiet();
    assert_eq!(other.versions(), [1; 3]);
    other.commit(&[3], 5);
    assert_eq!(other.versions(), [1, 1, 5]);
}

/// Another process hears that the log could not be synced while a commit is
/// unpublished, whose own sync is to tell of its frames.
pub(crate) fn a_log_is_not_written_again_over_unpublished_frames<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let threads = Kept::default();
    strict.before(|call| *call == SYNC, {
        let (strict, other, threads) = (strict.clone(), other.clone(), threads.clone());
        move || {
            let wait_state = strict.wal.coordination().wait_state();
            let synced = wait_state.expect("a wait state").synced();
            synced.fail(strict.header().salts());
            let tx = begin_beside_a_sync(&strict);
            strict.before(writes_log, move || {
                assert_eq!(other.versions(), [2, 1, 1], "it is mended too early");
            });
            let commits = || commit_on_a_thread::<B>(tx, 2, 3);
            keep(&threads, until_it_waits(&strict, commits));
        }
    });
    strict.commit(&[1], 2);
    for committed in joined(&threads) {
        committed.expect("the thread commits to a log that is mended");
    }
    strict.assert_stepped_in();
    assert_eq!(other.versions(), [2, 3, 1]);
    scene.assert_quiet();
}

/// A thread dies at each call of its commit, while the one before is synced.
pub(crate) fn a_thread_that_dies_beside_a_sync_is_in_nobodys_way<B: Subject>() {
    at_every_call(|n| {
        let (scene, strict, other) = scene::<B>();
        let threads = Kept::default();
        let died = Arc::new(AtomicBool::new(false));
        strict.before(|call| *call == SYNC, {
            let (strict, threads, died) = (strict.clone(), threads.clone(), died.clone());
            move || {
                let mut tx = begin_beside_a_sync(&strict);
                strict.then(nth(n), || Then::Die);
                let life = move || {
                    let committed = until_death(|| {
                        fill(&mut tx, &[2], 3)?;
                        tx.commit()
                    });
                    died.store(committed.is_none(), Ordering::SeqCst);
                };
                keep(&threads, std::thread::spawn(life));
                gives_write_up(&strict);
            }
        });
        let committed = strict.try_commit(&[1], 2);
        joined(&threads);
        strict.stepped_in();
        committed.expect("its own sync was fine");
        scene.assert_quiet();
        let seen = other.versions();
        let expected = [[2, 1, 1], [2, 3, 1]];
        assert!(expected.iter().any(|state| seen == state), "{seen:?}");
        other.commit(&[3], 4);
        assert_eq!(other.versions(), [2, seen[1], 4]);
        died.load(Ordering::SeqCst)
    });
}

pub(crate) fn threads_go_on_when_the_one_that_leads_dies<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let threads = Kept::default();
    strict.then(|call| *call == SYNC, {
        let (strict, threads) = (strict.clone(), threads.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            keep(&threads, commit_on_a_thread::<B>(tx, 2, 3));
            gives_write_up(&strict);
            Then::Die
        }
    });
    assert!(until_death(|| strict.commit(&[1], 2)).is_none());
    for outcome in joined(&threads) {
        let unknown = matches!(outcome, Err(Error::CommitOutcomeUnknown { .. }));
        assert!(unknown, "{outcome:?}");
    }
    let poisoned = strict.try_commit(&[1], 9);
    assert!(
        matches!(poisoned, Err(Error::Poisoned { .. })),
        "{poisoned:?}"
    );
    scene.assert_quiet();
    assert_eq!(other.versions(), [1; 3]);
    other.commit(&[3], 5);
    assert_eq!(other.versions(), [1, 1, 5]);
}

pub(crate) fn a_snapshot_that_was_never_published_is_gone<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let (saved, threads) = (Kept::default(), Kept::default());
    strict.then(|call| *call == SYNC, {
        let (strict, saved, threads) = (strict.clone(), saved.clone(), threads.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            keep(&saved, tx.snapshot().save());
            // Its end waits for the sync, which is further up this stack.
            keep(&threads, std::thread::spawn(move || drop(tx)));
            gives_write_up(&strict);
            Then::Fail
        }
    });
    strict.try_commit(&[1], 2).expect_err("its sync failed");
    joined(&threads);
    for saved in take(&saved) {
        // First its frames are still in the log, then others take their place.
        for version in [None, Some(7), Some(8)] {
            if let Some(version) = version {
                other.commit(&[2], version);
            }
            let opened = other.wal.open_snapshot(&saved);
            assert!(
                matches!(opened, Err(Error::SnapshotGone { .. })),
                "{opened:?}"
            );
        }
        let changed = other.read().pages_changed_since(&saved);
        assert!(
            matches!(changed, Err(Error::SnapshotGone { .. })),
            "{changed:?}"
        );
    }
    scene.assert_quiet();
}
