//! The numbered rules of the coordination contract, asked of the backend
//! itself, without the protocol.
//!
//! Rule 4 (nothing blocks) shows in every other case, each of which would
//! hang; rule 7 (locks die with their holder) needs processes that die, and
//! is checked where there are some.
#![allow(unsafe_code)] // Locks are given up, and marks stored, without guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::scene::{BOUND, Scene, User, until};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::index::MARK_NOT_USED;
use wal_core::testing::index;
use wal_core::types::{Lock, LockMode, ReadSlot};

const MODES: [LockMode; 2] = [LockMode::Shared, LockMode::Exclusive];

fn every_lock() -> Vec<Lock> {
    let singles = [Lock::Write, Lock::Checkpoint, Lock::Recover];
    let spans = [Lock::ReadMarks, Lock::Readers, Lock::CheckpointAndRecover];
    let slots = ReadSlot::ALL.map(Lock::Read);
    [&singles[..], &slots, &spans].concat()
}

fn overlap(a: Lock, b: Lock) -> bool {
    let ((a, a_len), (b, b_len)) = (a.span(), b.span());
    a < b + b_len && b < a + a_len
}

fn try_lock<B: Subject>(user: &User<B>, lock: Lock, mode: LockMode) -> bool {
    let answer = user.wal.coordination().try_lock(lock, mode);
    answer.expect("the system grants or refuses")
}

/// Releases `lock`, which the case holds; the director checks that it does.
pub(super) fn unlock<B: Subject>(user: &User<B>, lock: Lock, mode: LockMode) {
    // SAFETY: the case holds the lock, and reads no page.
    unsafe { user.wal.coordination().unlock(lock, mode) };
}

/// Stores a mark of a slot that the case holds exclusively; the director checks that.
fn set_mark<B: Subject>(user: &User<B>, slot: ReadSlot, mark: u32) {
    // SAFETY: the case holds the slot exclusively.
    unsafe { user.wal.coordination().set_mark(slot, mark) };
}

/// Two users of a database whose index is there.
fn two_at_an_index<B: Subject>() -> (Scene<B>, User<B>, User<B>) {
    let scene = Scene::new(1);
    let (one, two) = scene.two();
    one.versions();
    (scene, one, two)
}

pub(crate) fn blocks_stay_where_they_are_and_are_the_same_memory_for_all<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    let first: *const _ = one.block_zero();
    assert!(try_lock(&one, Lock::Write, LockMode::Exclusive));
    for index in 1..40 {
        one.wal.coordination().grow(index).expect("there is room");
    }
    for index in 0..40 {
        let block = |user: &User<B>| -> *const _ {
            let block = user.wal.coordination().block(index).expect("readable");
            block.expect("a block that was grown is there for all")
        };
        let (mine, yours) = (block(&one), block(&two));
        assert!(std::ptr::eq(mine, block(&one)), "block {index} moved");
        assert!(std::ptr::eq(yours, block(&two)), "block {index} moved");
    }
    unlock(&one, Lock::Write, LockMode::Exclusive);
    assert!(std::ptr::eq(first, one.block_zero()), "block 0 moved");
    let word = |user: &User<B>| index::word(user.block_zero(), 33);
    index::store_word(one.writable_block_zero(), 33, 77, Ordering::SeqCst);
    assert_eq!(word(&two), 77, "the users do not share block 0");
}

pub(crate) fn a_grown_block_is_zero_and_holds_what_is_stored<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    assert!(try_lock(&one, Lock::Write, LockMode::Exclusive));
    for number in 1..9 {
        let block = one.wal.coordination().grow(number).expect("there is room");
        let zero = index::pages(block, number).iter().all(|&page| page == 0)
            && index::slots(block).iter().all(|&slot| slot == 0);
        assert!(zero, "block {number} is new and not zero");
        index::store_slot(block, 8191, 7);
        one.wal.coordination().grow(number).expect("it is there");
        let again = two.wal.coordination().block(number).expect("readable");
        let again = again.expect("the other user sees it");
        assert_eq!(index::slots(again)[8191], 7);
    }
    unlock(&one, Lock::Write, LockMode::Exclusive);
}

/// The director compares every answer with its ledger; this case goes through
/// all pairs, with one user and with two.
pub(crate) fn locks_exclude_in_every_pair_of_modes<B: Subject>() {
    let (scene, one, two) = two_at_an_index::<B>();
    for (a, b) in every_lock()
        .iter()
        .flat_map(|&a| every_lock().into_iter().map(move |b| (a, b)))
    {
        for (a_mode, b_mode) in MODES.iter().flat_map(|&a| MODES.map(|b| (a, b))) {
            for other in [&one, &two] {
                assert!(try_lock(&one, a, a_mode), "{a} {a_mode:?} is free");
                let both_shared = a_mode == b_mode && a_mode == LockMode::Shared;
                let granted = try_lock(other, b, b_mode);
                let expected = both_shared || !overlap(a, b);
                assert_eq!(granted, expected, "{b} {b_mode:?} over {a} {a_mode:?}");
                if granted {
                    unlock(other, b, b_mode);
                }
                unlock(&one, a, a_mode);
            }
        }
    }
    scene.assert_quiet();
}

pub(crate) fn a_span_is_taken_whole_or_not_at_all<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    for held in ReadSlot::MARKED {
        assert!(try_lock(&one, Lock::Read(held), LockMode::Shared));
        assert!(!try_lock(&two, Lock::Readers, LockMode::Exclusive));
        for slot in ReadSlot::ALL {
            let mode = if slot == held {
                LockMode::Shared
            } else {
                LockMode::Exclusive
            };
            let free = try_lock(&one, Lock::Read(slot), mode);
            assert!(free, "a refused span kept slot {}", slot.index());
            unlock(&one, Lock::Read(slot), mode);
        }
        unlock(&one, Lock::Read(held), LockMode::Shared);
    }
    assert!(try_lock(&two, Lock::Readers, LockMode::Exclusive));
    unlock(&two, Lock::Readers, LockMode::Exclusive);
}

pub(crate) fn a_lock_hands_over_what_its_holder_stored<B: Subject>() {
    let (scene, one, two) = two_at_an_index::<B>();
    scene.director().with_ledger(|ledger| ledger.crowd());
    const ROUNDS: u32 = 500;
    let count = |user: &User<B>| {
        for _ in 0..ROUNDS {
            let takes = || try_lock(user, Lock::Write, LockMode::Exclusive);
            until("Write is free", takes);
            // Two plain steps, so that a lock that does not exclude, or does
            // not hand over, loses a count.
            let block = user.writable_block_zero();
            let before = index::word(block, 33);
            index::store_word(block, 33, before + 1, Ordering::Relaxed);
            unlock(user, Lock::Write, LockMode::Exclusive);
        }
    };
    thread::scope(|threads| {
        threads.spawn(|| count(&one));
        threads.spawn(|| count(&two));
    });
    let total = index::word(one.block_zero(), 33);
    assert_eq!(total, 2 * ROUNDS, "a count was lost under the lock");
}

pub(crate) fn locks_exclude_between_threads<B: Subject>() {
    let (scene, one, two) = two_at_an_index::<B>();
    scene.director().with_ledger(|ledger| ledger.crowd());
    // Exclusive holders count in the high half, shared ones in the low half.
    let inside = Arc::new(AtomicU32::new(0));
    let work = |user: &User<B>, seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let mode = MODES[usize::from(rng.bool())];
            if !try_lock(user, Lock::ReadMarks, mode) {
                continue;
            }
            let mine = if mode == LockMode::Shared { 1 } else { 1 << 16 };
            let others = inside.fetch_add(mine, Ordering::SeqCst);
            let alone = others == 0 || (mode == LockMode::Shared && others < 1 << 16);
            assert!(alone, "{mode:?} was granted beside {others:#x}");
            inside.fetch_sub(mine, Ordering::SeqCst);
            unlock(user, Lock::ReadMarks, mode);
        }
    };
    thread::scope(|threads| {
        for (seed, user) in [(1, &one), (2, &two), (3, &one)] {
            threads.spawn(move || work(user, seed));
        }
    });
}

pub(crate) fn a_slot_is_taken_by_its_mark_only_while_the_mark_is_right<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    let (a, b) = (one.wal.coordination(), two.wal.coordination());
    for (slot, mark) in ReadSlot::MARKED.into_iter().zip([0, 7, 8, MARK_NOT_USED]) {
        let lock = Lock::Read(slot);
        assert!(try_lock(&one, lock, LockMode::Exclusive));
        set_mark(&one, slot, mark);
        let taken = b.try_lock_mark(slot, mark).expect("an answer");
        assert!(!taken, "a slot was taken under its exclusive holder");
        unlock(&one, lock, LockMode::Exclusive);
        assert_eq!(b.mark(slot), mark, "the mark is the same for all");
        let other = mark ^ 1;
        assert!(!b.try_lock_mark(slot, other).expect("an answer"));
        assert!(b.try_lock_mark(slot, mark).expect("an answer"));
        assert!(a.try_lock_mark(slot, mark).expect("an answer"));
        unlock(&one, lock, LockMode::Shared);
        unlock(&two, lock, LockMode::Shared);
    }
    assert_eq!(a.mark(ReadSlot::DATABASE), 0, "mark 0 is always 0");
    assert!(a.try_lock_mark(ReadSlot::DATABASE, 0).expect("an answer"));
    unlock(&one, Lock::Read(ReadSlot::DATABASE), LockMode::Shared);
}

/// One thread changes the mark whenever it gets the slot alone; another takes
/// the slot by the mark it saw. The director compares the mark each time the
/// slot is granted, and here it is looked at again while the slot is held.
pub(crate) fn a_mark_stands_still_while_its_slot_is_held<B: Subject>() {
    let (scene, one, two) = two_at_an_index::<B>();
    scene.director().with_ledger(|ledger| ledger.crowd());
    let slot = ReadSlot::MARKED[1];
    let change = || {
        for mark in 1..3000 {
            if try_lock(&one, Lock::Read(slot), LockMode::Exclusive) {
                set_mark(&one, slot, mark);
                unlock(&one, Lock::Read(slot), LockMode::Exclusive);
            }
        }
    };
    let take = || {
        for _ in 0..3000 {
            let mark = two.mark(slot);
            let taken = two.wal.coordination().try_lock_mark(slot, mark);
            if taken.expect("an answer") {
                assert_eq!(two.mark(slot), mark, "the mark moved under its reader");
                unlock(&two, Lock::Read(slot), LockMode::Shared);
            }
        }
    };
    thread::scope(|threads| {
        threads.spawn(change);
        threads.spawn(take);
    });
}

pub(crate) fn downgraded_slot_is_shared_with_its_mark<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    let slot = ReadSlot::MARKED[1];
    let lock = Lock::Read(slot);
    let takes = |user: &User<B>, mode| {
        let taken = user.wal.coordination().try_lock(lock, mode);
        taken.expect("an answer")
    };
    assert!(takes(&one, LockMode::Exclusive));
    set_mark(&one, slot, 7);
    assert!(!takes(&two, LockMode::Shared), "it is held alone");
    // SAFETY: it was taken exclusively above.
    let downgraded = unsafe { one.wal.coordination().downgrade(slot) };
    assert!(downgraded.expect("an answer"));
    assert!(!takes(&two, LockMode::Exclusive), "it is held no more");
    let joined = two.wal.coordination().try_lock_mark(slot, 7);
    assert!(joined.expect("an answer"), "others are kept out");
    unlock(&one, lock, LockMode::Shared);
    unlock(&two, lock, LockMode::Shared);
    assert!(takes(&two, LockMode::Exclusive), "it was not given back");
    unlock(&two, lock, LockMode::Exclusive);
}

/// One thread downgrades its hold; another acquires the slot whenever it can, and stores
/// another mark. The director would let one call in at a time, so it is bypassed. Each
/// turn is a mark of the one thread that the other replaces.
pub(crate) fn downgrade_lets_no_exclusive_holder_in_between<B: Subject>() {
    const TURNS: u32 = 1000;
    let (scene, one, two) = two_at_an_index::<B>();
    let [one, two] = [&one, &two].map(|user| user.wal.coordination().0.inner());
    let slot = ReadSlot::MARKED[1];
    let lock = Lock::Read(slot);
    let acquires = |coordination: &B::Coordination| {
        let acquired = coordination.try_lock(lock, LockMode::Exclusive);
        acquired.expect("the system grants or refuses")
    };
    let turns = AtomicU32::new(0);
    let downgrade = || {
        let mut mark = 0;
        while turns.load(Ordering::Relaxed) < TURNS {
            mark += 1;
            until("the slot is free", || acquires(one));
            // SAFETY: the slot was acquired exclusively above.
            unsafe { one.set_mark(slot, mark) };
            // SAFETY: as above.
            let downgraded = unsafe { one.downgrade(slot) };
            assert!(downgraded.expect("an answer"), "the slot is lost");
            assert_eq!(one.mark(slot), mark, "another user stored its mark");
            // SAFETY: the hold is shared by the downgrade, and no page is read.
            unsafe { one.unlock(lock, LockMode::Shared) };
        }
    };
    thread::scope(|threads| {
        let downgrading = threads.spawn(downgrade);
        while !downgrading.is_finished() {
            if acquires(two) {
                let is_turn = two.mark(slot) != MARK_NOT_USED;
                turns.fetch_add(u32::from(is_turn), Ordering::Relaxed);
                // SAFETY: the slot was acquired exclusively above.
                unsafe { two.set_mark(slot, MARK_NOT_USED) };
                // SAFETY: as above, and no page is read.
                unsafe { two.unlock(lock, LockMode::Exclusive) };
            }
        }
    });
    scene.assert_quiet();
}

/// Raises the mark of `slot`, which `user` holds shared.
fn raise_mark<B: Subject>(user: &User<B>, slot: ReadSlot, mark: u32) -> bool {
    // SAFETY: the cases below hold the slot shared, and no page is looked at.
    let raised = unsafe { user.wal.coordination().raise_mark(slot, mark) };
    raised.expect("an answer")
}

pub(crate) fn mark_is_raised_under_the_only_holder_of_its_slot<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    let slot = ReadSlot::MARKED[2];
    let lock = Lock::Read(slot);
    let joins = |mark| {
        let joined = two.wal.coordination().try_lock_mark(slot, mark);
        joined.expect("an answer")
    };
    assert!(try_lock(&one, lock, LockMode::Exclusive));
    set_mark(&one, slot, 5);
    unlock(&one, lock, LockMode::Exclusive);
    assert!(try_lock(&one, lock, LockMode::Shared));
    let raised = raise_mark(&one, slot, 9);
    let mark = if raised { 9 } else { 5 };
    assert_eq!(two.mark(slot), mark);
    assert!(!try_lock(&two, lock, LockMode::Exclusive), "it is held");
    assert!(!joins(14 - mark), "by the other mark");
    assert!(joins(mark));
    // Under another user's hold, and under another one of the same user.
    assert!(!raise_mark(&one, slot, 11), "there are two holders");
    unlock(&two, lock, LockMode::Shared);
    assert!(try_lock(&one, lock, LockMode::Shared));
    assert!(!raise_mark(&one, slot, 11), "there are two holds");
    assert_eq!(two.mark(slot), mark);
    unlock(&one, lock, LockMode::Shared);
    assert_eq!(raise_mark(&one, slot, 11), raised);
    unlock(&one, lock, LockMode::Shared);
    assert!(
        try_lock(&two, lock, LockMode::Exclusive),
        "it is given back"
    );
    unlock(&two, lock, LockMode::Exclusive);
}

/// One thread holds the slot and raises the mark; another takes the slot by the mark that
/// it saw, and looks at the mark again while it holds it.
pub(crate) fn mark_is_raised_under_no_reader_of_the_old_one<B: Subject>() {
    let (scene, one, two) = two_at_an_index::<B>();
    scene.director().with_ledger(|ledger| ledger.crowd());
    let slot = ReadSlot::MARKED[1];
    let lock = Lock::Read(slot);
    assert!(try_lock(&one, lock, LockMode::Shared));
    let raise = || {
        for mark in 1..3000 {
            raise_mark(&one, slot, mark);
        }
    };
    let take = || {
        for _ in 0..3000 {
            let mark = two.mark(slot);
            let taken = two.wal.coordination().try_lock_mark(slot, mark);
            if taken.expect("an answer") {
                assert_eq!(two.mark(slot), mark, "the mark moved under its reader");
                unlock(&two, lock, LockMode::Shared);
            }
        }
    };
    thread::scope(|threads| {
        threads.spawn(raise);
        threads.spawn(take);
    });
    unlock(&one, lock, LockMode::Shared);
    scene.assert_quiet();
}

pub(crate) fn a_sleep_ends_when_its_word_was_changed_and_woken<B: Subject>() {
    let (_scene, one, two) = two_at_an_index::<B>();
    let sleeper = one.wal.coordination();
    let wait_state = sleeper.wait_state().expect("a wait state");
    for _ in 0..200 {
        let deadline = Instant::now() + BOUND;
        let seen = wait_state.commits().prepare_wait();
        thread::scope(|threads| {
            threads.spawn(|| {
                let waker = two.wal.coordination();
                let wait_state = waker.wait_state().expect("a wait state");
                assert!(wait_state.commits().notify(), "the sleeper is not seen");
                waker.wake(wait_state.commits().word());
            });
            // A sleep may end early, but a wake-up may not be lost: with it
            // lost, this would go on to the deadline.
            while wait_state.commits().word().load(Ordering::SeqCst) == seen {
                sleeper.sleep(wait_state.commits().word(), seen, deadline);
                assert!(Instant::now() < deadline, "a wake-up was lost");
            }
        });
        // It has happened, so this does not sleep at all.
        sleeper.sleep(wait_state.commits().word(), seen, deadline);
        assert!(Instant::now() < deadline, "the word was not looked at");
    }
}

pub(crate) fn a_sleep_ends_at_its_deadline<B: Subject>() {
    let (_scene, one, _two) = two_at_an_index::<B>();
    let begun = Instant::now();
    let coordination = one.wal.coordination();
    let wait_state = coordination.wait_state().expect("a wait state");
    let seen = wait_state.commits().prepare_wait();
    let deadline = Instant::now() + Duration::from_millis(3);
    coordination.sleep(wait_state.commits().word(), seen, deadline);
    // A deadline that has passed already.
    coordination.sleep(wait_state.commits().word(), seen, begun);
    assert!(begun.elapsed() < BOUND, "a sleep outlived its deadline");
}

pub(crate) fn a_second_attachment_is_shared_or_refused<B: Subject>() {
    let (scene, one, _two) = two_at_an_index::<B>();
    match B::attach(scene.path()) {
        Ok(second) => {
            assert!(B::MANY_ATTACHMENTS, "a second attachment was not refused");
            let last = second.coordination.detach().expect("it can leave");
            assert!(!last, "it was told to be the last one");
        }
        Err(Error::Locked { .. }) => assert!(!B::MANY_ATTACHMENTS, "refused"),
        Err(e) => panic!("{e}"),
    }
    one.commit(&[1], 1);
    assert_eq!(one.versions(), [1]);
}
