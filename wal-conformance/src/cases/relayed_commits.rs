//! Threads of one attachment that share a sync before anybody sees their
//! commits. A thread comes while the sync of another is just about to happen.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::durability::SYNC;
use crate::calls::{Awaited, Call, Which};
use crate::scene::{BOUND, Scene, User, Writing, fill, until, version_in};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};
use wal_core::protocol::Synchronous;
use wal_core::types::PageNo;
use wal_core::wait::{now, thread_number};

/// What is made while a sync waits, and looked at once it is over.
pub(super) type Kept<T> = Arc<Mutex<Vec<T>>>;

pub(super) fn keep<T>(kept: &Kept<T>, value: T) {
    kept.lock().expect("nobody panicked").push(value);
}

pub(super) fn take<T>(kept: &Kept<T>) -> Vec<T> {
    std::mem::take(&mut *kept.lock().expect("nobody panicked"))
}

/// A user at [`Synchronous::Full`] whose log has a commit of version 1.
pub(super) fn scene<B: Subject>() -> (Scene<B>, User<B>, User<B>) {
    let scene = Scene::new(3);
    let (strict, other) = (scene.user_at(Synchronous::Full), scene.user());
    scene.director().with_ledger(|ledger| ledger.crowd());
    strict.commit(&[1, 2, 3], 1);
    (scene, strict, other)
}

/// Begins to write while a commit of the attachment is not published: Write is
/// passed on, within a turn.
pub(super) fn begin_beside_a_sync<B: Subject>(user: &User<B>) -> Writing<B> {
    let deadline = Instant::now() + BOUND;
    loop {
        let wait_state = user.wal.coordination().wait_state();
        // However long it took to come here.
        let queue = wait_state.expect("a wait state").writer_queue();
        queue.begin_slice(thread_number(), now(), true);
        match user.wal.begin_write(Duration::ZERO) {
            Err(Error::Busy { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            begun => return begun.expect("Write is passed on"),
        }
    }
}

/// Commits `version` to `page` on a thread, which has begun already.
pub(super) fn commit_on_a_thread<B: Subject>(
    mut tx: Writing<B>,
    page: u32,
    version: u32,
) -> JoinHandle<Result<()>>
where
    Writing<B>: Send + 'static,
{
    std::thread::spawn(move || {
        fill(&mut tx, &[page], version)?;
        tx.commit().map(drop)
    })
}

pub(super) fn joined<T>(threads: &Kept<JoinHandle<T>>) -> Vec<T> {
    let threads = take(threads).into_iter();
    threads
        .map(|thread| thread.join().expect("no panic"))
        .collect()
}

/// Waits until the thread that `act` starts sleeps until a commit is published, or
/// has ended without.
pub(super) fn until_it_waits<B: Subject, T>(
    user: &User<B>,
    act: impl FnOnce() -> JoinHandle<T>,
) -> JoinHandle<T> {
    let before = user.wal.publish_sleepers();
    let thread = act();
    let waits = || thread.is_finished() || user.wal.publish_sleepers() > before;
    until("a thread waits for a sync", waits);
    thread
}

pub(super) fn version_of<B: Subject>(tx: &Writing<B>, page: u32) -> u32 {
    let number = PageNo::new(page).expect("a page number");
    version_in(page, &tx.page(number).expect("the page is read"))
}

pub(super) fn writes_log(call: &Call) -> bool {
    let log = Which::Log;
    matches!(call, Call::Write { file, .. } if *file == log)
}

pub(crate) fn a_thread_writes_while_the_commit_of_another_is_synced<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let begun = Kept::default();
    strict.before(|call| *call == SYNC, {
        let (strict, other, begun) = (strict.clone(), other.clone(), begun.clone());
        move || {
            let mut tx = begin_beside_a_sync(&strict);
            assert_eq!(version_of::<B>(&tx, 1), 2, "it goes on from the commit");
            assert_eq!(strict.versions(), [1; 3], "seen before it is durable");
            assert_eq!(other.versions(), [1; 3], "seen before it is durable");
            fill(&mut tx, &[2], 3).expect("it writes");
            keep(&begun, tx);
        }
    });
    strict.commit(&[1], 2);
    strict.assert_stepped_in();
    assert_eq!(other.versions(), [2, 1, 1]);
    for tx in take(&begun) {
        tx.commit().expect("the other one is committed");
    }
    assert_eq!(other.versions(), [2, 3, 1]);
    scene.assert_quiet();
}

pub(crate) fn commits_of_several_threads_share_a_sync<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let (threads, last) = (Kept::default(), Kept::default());
    strict.before(|call| *call == SYNC, {
        let (strict, threads, last) = (strict.clone(), threads.clone(), last.clone());
        move || {
            for (page, version) in [(2, 3), (3, 4)] {
                let tx = begin_beside_a_sync(&strict);
                keep(&threads, commit_on_a_thread::<B>(tx, page, version));
            }
            // Begins once the others have left theirs.
            keep(&last, begin_beside_a_sync(&strict));
            assert_eq!(strict.versions(), [1; 3]);
        }
    });
    let (_, trace) = strict.trace(|strict| {
        strict.commit(&[1], 2);
        for committed in joined(&threads) {
            committed.expect("a thread commits");
        }
    });
    let syncs = trace.iter().filter(|call| matches!(call, Call::Sync(_)));
    assert_eq!(syncs.count(), 2, "the first, and one for the others");
    assert_eq!(other.versions(), [2, 3, 4]);
    drop(take(&last));
    scene.assert_quiet();
}

pub(crate) fn a_thread_is_not_told_synced_by_a_sync_that_began_before<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let (threads, last) = (Kept::default(), Kept::default());
    strict.before(|call| *call == SYNC, {
        let (strict, threads, last) = (strict.clone(), threads.clone(), last.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            keep(&threads, commit_on_a_thread::<B>(tx, 2, 3));
            keep(&last, begin_beside_a_sync(&strict));
            // The next sync is that of the thread: it sees what was published by
            // the first one.
            let other = other.clone();
            strict.before(
                |call| *call == SYNC,
                move || assert_eq!(other.versions(), [2, 1, 1]),
            );
        }
    });
    strict.commit(&[1], 2);
    for committed in joined(&threads) {
        committed.expect("the thread commits");
    }
    strict.assert_stepped_in();
    drop(take(&last));
    scene.assert_quiet();
}

pub(crate) fn who_has_seen_a_commit_ends_when_it_is_durable<B: Subject>() {
    let (scene, strict, _) = scene::<B>();
    let (threads, last) = (Kept::default(), Kept::default());
    strict.before(|call| *call == SYNC, {
        let (strict, threads, last) = (strict.clone(), threads.clone(), last.clone());
        move || {
            for commits in [false, true] {
                let (tx, reader) = (begin_beside_a_sync(&strict), strict.clone());
                let ends = move || {
                    match commits {
                        true => tx.commit().map(drop).expect("nothing to commit"),
                        false => drop(tx),
                    }
                    reader.versions()
                };
                let thread = until_it_waits(&strict, || std::thread::spawn(ends));
                keep(&threads, thread);
            }
            keep(&last, begin_beside_a_sync(&strict));
        }
    });
    strict.commit(&[1], 2);
    strict.assert_stepped_in();
    assert_eq!(joined(&threads), [[2, 1, 1]; 2], "it got away before");
    drop(take(&last));
    scene.assert_quiet();
}

/// Durability is lowered in between: the commit that promises less is not to be
/// published with one that promises more.
pub(crate) fn a_commit_of_another_level_waits_for_those_before_it<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let threads = Kept::default();
    strict.before(|call| *call == SYNC, {
        let (strict, other, threads) = (strict.clone(), other.clone(), threads.clone());
        move || {
            let tx = begin_beside_a_sync(&strict);
            strict.wal.tuning().set_synchronous(Synchronous::Normal);
            strict.before(writes_log, move || assert_eq!(other.versions(), [2, 1, 1]));
            let commits = || commit_on_a_thread::<B>(tx, 2, 3);
            keep(&threads, until_it_waits(&strict, commits));
        }
    });
    strict.commit(&[1], 2);
    for committed in joined(&threads) {
        committed.expect("the thread commits");
    }
    strict.assert_stepped_in();
    assert_eq!(other.versions(), [2, 3, 1]);
    scene.assert_quiet();
}

pub(crate) fn write_is_not_taken_over_when_the_turn_is_over<B: Subject>() {
    let (scene, strict, _) = scene::<B>();
    let outcome = Kept::default();
    strict.before(|call| *call == SYNC, {
        let (strict, begun) = (strict.clone(), outcome.clone());
        move || {
            let wait_state = strict.wal.coordination().wait_state();
            let queue = wait_state.expect("a wait state").writer_queue();
            // Two milliseconds ago, and a turn is one.
            queue.begin_slice(thread_number(), now().wrapping_sub(2000), true);
            keep(&begun, strict.wal.begin_write(Duration::ZERO));
        }
    });
    strict.commit(&[1], 2);
    strict.assert_stepped_in();
    for begun in take(&outcome) {
        assert!(matches!(begun, Err(Error::Busy { .. })), "{begun:?}");
    }
    scene.assert_quiet();
}

/// Returns once no thread of `user` writes.
pub(super) fn gives_write_up<B: Subject>(user: &User<B>) {
    until("a thread gives Write up", || user.wal.is_write_kept());
}

/// What a transaction has spilled goes before Write does: the next one is at work
/// while it waits for the state it began on.
pub(crate) fn a_rollback_beside_a_sync_takes_nothing_from_the_next_one<B: Subject>() {
    for rolls_back in [true, false] {
        let (scene, strict, other) = scene::<B>();
        let (threads, ends) = (Kept::default(), Kept::default());
        strict.before(|call| *call == SYNC, {
            let (strict, threads, ends) = (strict.clone(), threads.clone(), ends.clone());
            move || {
                let mut tx = begin_beside_a_sync(&strict);
                let savepoint = tx.savepoint();
                fill(&mut tx, &[2], 3).expect("it writes");
                tx.spill().expect("it is spilled");
                let end = move || match rolls_back {
                    true => tx.rollback_with(|_| {}),
                    false => {
                        tx.rollback_to(savepoint)?;
                        tx.commit().map(drop)
                    }
                };
                keep(&ends, std::thread::spawn(end));
                gives_write_up(&strict);
                let tx = begin_beside_a_sync(&strict);
                keep(&threads, commit_on_a_thread::<B>(tx, 3, 4));
                gives_write_up(&strict);
            }
        });
        strict.commit(&[1], 2);
        for ended in joined(&ends) {
            ended.expect("it is rolled back");
        }
        for committed in joined(&threads) {
            committed.expect("the next one commits");
        }
        strict.assert_stepped_in();
        assert_eq!(other.versions(), [2, 1, 4]);
        scene.assert_quiet();
    }
}

/// The leader has stored its header and not told so yet; a checkpoint has moved all
/// of it, so the log could begin anew.
pub(crate) fn a_log_does_not_begin_anew_before_its_leader_is_done<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let threads = Kept::default();
    let wait_state = strict.wal.coordination().wait_state();
    // Somebody waits for a commit, so that it is told by a call.
    wait_state.expect("a wait state").commits().prepare_wait();
    strict.before(|call| *call == Call::Wake(Awaited::Commit), {
        let (strict, other, threads) = (strict.clone(), other.clone(), threads.clone());
        move || {
            other.checkpoint_all();
            let before = strict.header().salts();
            let mut tx = begin_beside_a_sync(&strict);
            let spills = move || {
                fill(&mut tx, &[2], 3)?;
                tx.spill()
            };
            let thread = until_it_waits(&strict, || std::thread::spawn(spills));
            keep(&threads, thread);
            assert_eq!(strict.header().salts(), before, "it began anew");
        }
    });
    strict.commit(&[1], 2);
    strict.assert_stepped_in();
    for spilled in joined(&threads) {
        spilled.expect("it is spilled once the leader is done");
    }
    strict.commit(&[3], 4);
    assert_eq!(other.versions(), [2, 1, 4]);
    scene.assert_quiet();
}

/// Some give up just when Write could be theirs.
pub(crate) fn threads_without_patience_lose_neither_commits_nor_write<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    let impatient = |page: u32| {
        let strict = strict.clone();
        move || {
            let mut committed = 1;
            for attempt in 0..200 {
                let patience = Duration::from_micros(attempt % 8 * 40);
                match strict.wal.begin_write(patience) {
                    Err(Error::Busy { .. }) => {}
                    begun => {
                        let mut tx = begun.expect("it begins");
                        assert_eq!(version_of::<B>(&tx, page), committed);
                        // Some find that they have nothing to write.
                        if attempt % 5 != 0 {
                            committed += 1;
                            fill(&mut tx, &[page], committed).expect("it writes");
                            tx.commit().expect("it commits");
                        }
                    }
                }
            }
            committed
        }
    };
    let threads = [1, 2, 3].map(|page| std::thread::spawn(impatient(page)));
    let committed = threads.map(|thread| thread.join().expect("no panic"));
    assert_eq!(other.versions(), committed);
    scene.assert_quiet();
    strict.commit(&[1], 999);
}
