//! Threads of one attachment that share a sync, when one of them panics between two
//! steps, or a step fails, while others wait for Write or for the sync.
//!
//! Clocks stand still here, so that a time slice ends when a case says so. A thread by a
//! clock that is *late* finds it over: it does not inherit Write, but gets it once it is
//! released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::durability::SYNC;
use super::relayed_commits::{
    Kept, begin_beside_a_sync, commit_on_a_thread, gives_write_up, joined, keep, scene, take,
    until_it_waits, version_of, writes_log,
};
use super::spilling::entries_behind;
use super::waiting::until_in_line;
use crate::calls::{Awaited, Call};
use crate::director::{Then, at_every_call, nth, until_death};
use crate::scene::{BOUND, Scene, User, Writing, fill, until, version_in, versions};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};
use wal_core::types::Lock;
use wal_core::wait::manual_clock::ManualClock;
use wal_core::wait::thread_number;

const WAKES_HEIR: Call = Call::Wake(Awaited::Turn);

/// A clock by which every time slice that begins by another one is over.
fn late_clock() -> ManualClock {
    let late = ManualClock::default();
    late.advance(Duration::from_millis(2));
    late
}

fn assert_write_is_held<B: Subject>(other: &User<B>, why: &str) {
    match other.wal.begin_write(Duration::ZERO) {
        Err(Error::Busy { lock, .. }) => assert_eq!(lock, Lock::Write),
        Ok(_) => panic!("Write was released: {why}"),
        Err(error) => panic!("{error}"),
    }
}

fn assert_poisoned<B: Subject>(user: &User<B>) {
    let refused = user.wal.begin_write(Duration::ZERO);
    assert!(
        matches!(refused, Err(Error::Poisoned { .. })),
        "{refused:?}"
    );
}

/// A thread that waits in line, then tells which version page 2 has for it.
fn waits_in_line<B: Subject>(user: &User<B>, clock: &ManualClock) -> JoinHandle<Result<u32>> {
    let (waiter, clock) = (user.clone(), clock.clone());
    let waits = move || {
        let tx = waiter.wal.begin_write(BOUND)?;
        Ok(version_of::<B>(&tx, 2))
    };
    let thread = std::thread::spawn(move || clock.run(waits));
    until_in_line(user, 1);
    thread
}

/// Commits page 2 on a thread that dies when its commit is left to be published, as it
/// wakes the thread that waits for Write; `before` runs first. Returns when it is dead.
fn dies_behind_its_commit<B: Subject>(
    user: &User<B>,
    clock: &ManualClock,
    mut tx: Writing<B>,
    before: impl FnOnce() + Send + 'static,
) {
    user.then(
        |call| *call == WAKES_HEIR,
        move || {
            before();
            Then::Die
        },
    );
    let clock = clock.clone();
    let commits = move || {
        fill(&mut tx, &[2], 3)?;
        tx.commit()
    };
    let life = std::thread::spawn(move || until_death(|| clock.run(commits)).is_none());
    assert!(life.join().expect("it only dies"), "the thread survived");
    user.assert_stepped_in();
}

/// The lead ends before it comes to the sync, so no sync poisons the attachment.
pub(crate) fn lead_that_fails_before_its_sync_poisons<B: Subject>() {
    let (_scene, strict, _) = scene::<B>();
    let (_, trace) = strict.trace(|strict| strict.commit(&[1], 2));
    let synced = trace.iter().position(|call| *call == SYNC);
    let before = &trace[..synced.expect("it is synced")];
    let found = before.iter().rposition(|call| *call == Call::Block(0));
    let place = found.expect("the header is found before the sync");
    let (scene, strict, other) = scene::<B>();
    strict.then(nth(place), || Then::Fail);
    let failed = strict.try_commit(&[1], 2);
    strict.assert_stepped_in();
    assert!(
        matches!(failed, Err(Error::CommitOutcomeUnknown { .. })),
        "{failed:?}"
    );
    assert_poisoned(&strict);
    scene.assert_quiet();
    assert_eq!(other.versions(), [1; 3]);
    other.commit(&[2], 4);
    assert_eq!(other.versions(), [1, 4, 1]);
}

/// Nobody leads: the thread that would have is dead.
pub(crate) fn thread_that_panics_behind_its_commit_releases_write<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let (clock, late) = (ManualClock::default(), late_clock());
    let tx = clock.run(|| strict.write());
    let waiter = waits_in_line(&strict, &late);
    dies_behind_its_commit(&strict, &clock, tx, || {});
    let seen = waiter.join().expect("it does not panic");
    assert_eq!(seen.expect("Write was released"), 1, "never published");
    assert_poisoned(&strict);
    scene.assert_quiet();
    other.commit(&[3], 4);
    assert_eq!(other.versions(), [1, 1, 4]);
}

/// Another commit was left while the first one was synced.
pub(crate) fn write_stays_held_until_all_is_published<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let clock = ManualClock::default();
    let threads = Kept::default();
    strict.before(|call| *call == SYNC, {
        let (strict, other, threads) = (strict.clone(), other.clone(), threads.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            keep(&threads, commit_on_a_thread::<B>(tx, 2, 3));
            gives_write_up(&strict);
            strict.before(
                |call| *call == SYNC,
                move || {
                    assert_eq!(other.versions(), [2, 1, 1], "the first one is published");
                    assert_write_is_held(&other, "a commit is not published yet");
                },
            );
        }
    });
    clock.run(|| strict.commit(&[1], 2));
    for committed in joined(&threads) {
        committed.expect("the thread commits");
    }
    strict.assert_stepped_in();
    assert_eq!(other.versions(), [2, 3, 1]);
    scene.assert_quiet();
}

/// A thread dies behind its commit while the one before is synced. The leader still
/// stores a header, so nobody else may write before; and nobody begins on the commit that
/// is never published.
pub(crate) fn write_is_kept_while_a_leader_may_store_a_header<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let (clock, late) = (ManualClock::default(), late_clock());
    let threads = Kept::default();
    strict.before(|call| *call == SYNC, {
        let (strict, other, threads) = (strict.clone(), other.clone(), threads.clone());
        let (clock, late) = (clock.clone(), late.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            let waiter = waits_in_line(&strict, &late);
            dies_behind_its_commit(&strict, &clock, tx, || {});
            assert_write_is_held(&other, "a header may yet be stored");
            // From now on the waiter would inherit Write, if there were something to
            // inherit. It looks whenever it is about to sleep.
            let wait_state = strict.wal.coordination().wait_state();
            let queue = wait_state.expect("a wait state").writer_queue();
            queue.begin_slice(thread_number(), late.run(wal_core::wait::now), true);
            for _ in 0..3 {
                let looked = Arc::new(AtomicBool::new(false));
                let looks = looked.clone();
                let sleeps = |call: &Call| *call == Call::Sleep(Awaited::Turn);
                strict.before(sleeps, move || looks.store(true, Ordering::SeqCst));
                let ends = || looked.load(Ordering::SeqCst) || waiter.is_finished();
                until("the waiter looks", ends);
            }
            keep(&threads, waiter);
        }
    });
    clock.run(|| strict.commit(&[1], 2));
    for seen in joined(&threads) {
        assert_eq!(seen.expect("it gets Write"), 1, "never published");
    }
    assert_poisoned(&strict);
    assert_eq!(strict.wal.heirs(), 0);
    scene.assert_quiet();
    assert_eq!(other.versions(), [2, 1, 1]);
    other.commit(&[3], 4);
    assert_eq!(other.versions(), [2, 1, 4]);
}

/// As before, but a third thread has inherited Write by then, and gives it up.
pub(crate) fn heir_of_a_dead_thread_leaves_write_to_the_leader<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let clock = ManualClock::default();
    strict.before(|call| *call == SYNC, {
        let (strict, other, clock) = (strict.clone(), other.clone(), clock.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            let begun = Arc::new(AtomicBool::new(false));
            let may_end = Arc::new(AtomicBool::new(false));
            let heir = {
                let (strict, clock) = (strict.clone(), clock.clone());
                let (begun, may_end) = (begun.clone(), may_end.clone());
                let waits = move || {
                    let tx = strict.wal.begin_write(BOUND)?;
                    let seen = version_of::<B>(&tx, 2);
                    begun.store(true, Ordering::SeqCst);
                    until("it may end", || may_end.load(Ordering::SeqCst));
                    tx.rollback_with(|_| {}).map(|()| seen)
                };
                std::thread::spawn(move || clock.run(waits))
            };
            until_in_line(&strict, 1);
            let has_begun = move || until("it begins", || begun.load(Ordering::SeqCst));
            dies_behind_its_commit(&strict, &clock, tx, has_begun);
            may_end.store(true, Ordering::SeqCst);
            let ended = heir.join().expect("it does not panic");
            assert!(matches!(ended, Err(Error::Poisoned { .. })), "{ended:?}");
            assert_write_is_held(&other, "a header may yet be stored");
        }
    });
    clock.run(|| strict.commit(&[1], 2));
    strict.assert_stepped_in();
    assert_poisoned(&strict);
    scene.assert_quiet();
    assert_eq!(other.versions(), [2, 1, 1]);
    other.commit(&[3], 4);
    assert_eq!(other.versions(), [2, 1, 4]);
}

/// One thread has inherited Write, another one waits in line.
pub(crate) fn waiter_behind_a_failed_sync_begins_on_what_is_published<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let clock = ManualClock::default();
    let (begun, threads) = (Kept::default(), Kept::default());
    strict.then(|call| *call == SYNC, {
        let (strict, begun, threads) = (strict.clone(), begun.clone(), threads.clone());
        let clock = clock.clone();
        move || {
            keep(&begun, begin_beside_a_sync(&strict));
            keep(&threads, waits_in_line(&strict, &clock));
            Then::Fail
        }
    });
    let failed = clock.run(|| strict.try_commit(&[1], 2));
    assert!(
        matches!(failed, Err(Error::CommitOutcomeUnknown { .. })),
        "{failed:?}"
    );
    for tx in take(&begun) {
        let ended = tx.rollback_with(|_| {});
        assert!(matches!(ended, Err(Error::Poisoned { .. })), "{ended:?}");
    }
    for seen in joined(&threads) {
        assert_eq!(seen.expect("it gets Write"), 1);
    }
    assert_poisoned(&strict);
    assert_eq!(strict.wal.heirs(), 0);
    scene.assert_quiet();
    other.commit(&[3], 4);
    assert_eq!(other.versions(), [1, 1, 4]);
}

/// Its entries lie behind a commit that is not published, where no fresh writer looks.
pub(crate) fn entries_of_a_dead_heir_are_trimmed_by_the_next<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    strict.before(|call| *call == SYNC, {
        let strict = strict.clone();
        move || {
            let mut tx = begin_beside_a_sync(&strict);
            strict.then(writes_log, || Then::Die);
            let life = move || {
                let pages: Vec<u32> = (1..=20).collect();
                until_death(|| fill(&mut tx, &pages, 3).and_then(|()| tx.commit())).is_none()
            };
            let died = std::thread::spawn(life).join().expect("it only dies");
            assert!(died, "the thread survived");
            assert_eq!(
                entries_behind(&strict),
                21,
                "one of the commit, and its own"
            );
            let tx = begin_beside_a_sync(&strict);
            assert_eq!(entries_behind(&strict), 1, "that of the commit");
            // Its end waits for the sync, which is further up this stack.
            std::thread::spawn(move || drop(tx));
            gives_write_up(&strict);
        }
    });
    strict.commit(&[1], 2);
    strict.assert_stepped_in();
    until("the last one ends", || strict.wal.publish_sleepers() == 0);
    assert_eq!(other.versions(), [2, 1, 1]);
    scene.assert_quiet();
}

/// The reading side of a writer that began on what is not published.
pub(crate) fn reads_beside_a_sync_wait_for_their_own_state<B: Subject>() {
    for clones in [false, true] {
        let (scene, strict, _) = scene::<B>();
        let threads = Kept::default();
        strict.before(|call| *call == SYNC, {
            let (strict, threads) = (strict.clone(), threads.clone());
            move || {
                let tx = begin_beside_a_sync(&strict);
                let looks = move || match clones {
                    true => Ok(versions::<B>(&tx.as_read().try_clone()?)),
                    false => Ok(vec![u32::from(tx.as_read().is_stale()?)]),
                };
                keep(
                    &threads,
                    until_it_waits(&strict, || std::thread::spawn(looks)),
                );
            }
        });
        strict.commit(&[1], 2);
        let seen: Vec<Result<_>> = joined(&threads);
        let expected = if clones { vec![2, 1, 1] } else { vec![0] };
        for seen in seen {
            assert_eq!(seen.expect("it is read"), expected, "clones: {clones}");
        }
        scene.assert_quiet();
    }
}

/// Dies at each call of a commit that is synced before it is published, the sync, the
/// header and the release of Write included.
pub(crate) fn leader_that_dies_at_any_call_keeps_no_lock<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let strict = scene.user_at(wal_core::protocol::Synchronous::Full);
        let other = scene.user();
        strict.commit(&[1, 2, 3], 1);
        // Somebody waits for a commit, so that it is told by a call.
        let wait_state = strict.wal.coordination().wait_state();
        wait_state.expect("a wait state").commits().prepare_wait();
        if !strict.dies(nth(n), |strict| strict.commit(&[1], 2)) {
            return false;
        }
        scene.assert_quiet();
        let page = version_in(1, &other.read().page(wal_core::types::PageNo::ONE).unwrap());
        assert!(page == 1 || page == 2, "call {n}: {page}");
        other.commit(&[3], 4);
        assert_eq!(other.versions(), [page, 1, 4], "call {n}");
        // It died alone: its process has other threads.
        match strict.try_commit(&[2], 5) {
            Ok(()) => assert_eq!(other.versions(), [page, 5, 4], "call {n}"),
            Err(Error::Poisoned { .. }) => assert_eq!(other.versions(), [page, 1, 4], "call {n}"),
            Err(error) => panic!("call {n}: {error}"),
        }
        scene.assert_quiet();
        true
    });
}
