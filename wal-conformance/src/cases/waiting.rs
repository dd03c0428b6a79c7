//! What an operation does while somebody is in its way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::calls::{Awaited, Call};
use crate::scene::{BOUND, Scene, User, fill, until, version_in};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::protocol::{BusyHandler, Cancel, QueuedTry};
use wal_core::types::{Lock, PageNo};
use wal_core::wait::manual_clock::ManualClock;

/// A turn is a millisecond; who has waited for this long is not taken for dead.
pub(super) const LONGER_THAN_A_TURN: Duration = Duration::from_millis(2);

pub(crate) fn a_writer_asks_again_until_its_handler_says_no<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (holder, waiter) = scene.two();
    let writing = holder.write();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let busy = BusyHandler::ask(move |lock, tries| {
        log.lock().unwrap().push((lock, tries));
        tries < 3
    });
    match waiter.wal.begin_write(busy) {
        Err(Error::Busy { lock, .. }) => assert_eq!(lock, Lock::Write),
        other => panic!("not busy: {other:?}"),
    }
    let lock = Lock::Write;
    assert_eq!(*asked.lock().unwrap(), [(lock, 1), (lock, 2), (lock, 3)]);
    drop(writing);
    scene.assert_quiet();
}

pub(crate) fn a_writer_begins_when_its_handler_let_the_other_end<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (holder, waiter) = scene.two();
    let writing = Mutex::new(Some(holder.write()));
    let busy = BusyHandler::ask(move |_, _| writing.lock().unwrap().take().is_some());
    let mut tx = waiter.wal.begin_write(busy).expect("the other has ended");
    fill(&mut tx, &[1], 4).expect("it is filled");
    tx.commit().expect("it is committed");
    assert_eq!(holder.versions(), [4, 0]);
}

/// How many writers wait in line.
fn in_line<B: Subject>(user: &User<B>) -> usize {
    let wait_state = user.wal.coordination().wait_state();
    wait_state
        .expect("a wait state")
        .writer_queue()
        .occupied_slots()
}

/// Waits until `count` writers stand in line.
pub(super) fn until_in_line<B: Subject>(user: &User<B>, count: usize) {
    until("writers line up", || in_line(user) == count);
}

/// Writes `version`, once it is its turn.
fn write_in_turn<B: Subject>(user: &User<B>, version: u32) {
    let mut tx = user.wal.begin_write(BOUND).expect("its turn comes");
    fill(&mut tx, &[1], version).expect("it is filled");
    tx.commit().expect("it is committed");
}

/// The clock stands still, so that no writer is taken for dead while the system
/// leaves it without a processor.
pub(crate) fn writers_get_write_in_the_order_of_their_coming<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let holder = scene.user();
    let order = Mutex::new(Vec::new());
    let clock = ManualClock::default();
    let writing = clock.run(|| holder.write());
    thread::scope(|scope| {
        for place in 1..=4 {
            let (user, order, clock) = (scene.user(), &order, &clock);
            scope.spawn(move || {
                clock.run(|| {
                    let tx = user.wal.begin_write(BOUND).expect("its turn comes");
                    order.lock().unwrap().push(place);
                    drop(tx);
                });
            });
            until_in_line(&holder, place);
        }
        clock.run(|| drop(writing));
    });
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4]);
    until_in_line(&holder, 0);
    scene.assert_quiet();
}

/// The waiter is woken, but cannot try for Write before the busy writer has either
/// lined up behind it or passed it.
pub(crate) fn a_writer_whose_turn_is_over_does_not_pass_the_line<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (busy, waiter) = scene.two();
    let clock = ManualClock::default();
    let writing = clock.run(|| busy.write());
    let (sleeps, is_asleep) = channel();
    let has_begun = Arc::new(AtomicBool::new(false));
    waiter.before(|call| *call == Call::Sleep(Awaited::Turn), {
        let (busy, has_begun) = (busy.clone(), has_begun.clone());
        move || {
            sleeps.send(()).expect("the test waits for it");
            let has_come = || in_line(&busy) == 2 || has_begun.load(Ordering::SeqCst);
            until("the busy writer comes", has_come);
        }
    });
    thread::scope(|scope| {
        let waiting = scope.spawn(|| clock.run(|| write_in_turn(&waiter, 1)));
        is_asleep.recv_timeout(BOUND).expect("the waiter sleeps");
        clock.advance(LONGER_THAN_A_TURN);
        let tx = clock.run(|| {
            drop(writing);
            busy.wal.begin_write(BOUND).expect("its turn comes")
        });
        has_begun.store(true, Ordering::SeqCst);
        let found = version_in(1, &tx.page(PageNo::ONE).expect("the page is read"));
        assert_eq!(found, 1, "the waiter was passed");
        drop(tx);
        waiting.join().expect("the waiter does not panic");
    });
    scene.assert_quiet();
}

pub(crate) fn a_writer_that_gives_up_in_line_lets_the_next_one_go_on<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (holder, impatient) = scene.two();
    let patient = scene.user();
    let clock = ManualClock::default();
    let writing = clock.run(|| holder.write());
    let cancel = Cancel::new();
    let until_cancelled = BusyHandler::timeout(BOUND).cancelled_by(&cancel);
    thread::scope(|scope| {
        let gives_up = || impatient.wal.begin_write(until_cancelled).map(drop);
        let first = scope.spawn(|| clock.run(gives_up));
        until_in_line(&holder, 1);
        let second = scope.spawn(|| clock.run(|| write_in_turn(&patient, 1)));
        until_in_line(&holder, 2);
        cancel.cancel();
        let ended = first.join().expect("it does not panic");
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
        until_in_line(&holder, 1);
        clock.run(|| drop(writing));
        second.join().expect("it does not panic");
    });
    assert_eq!(holder.versions(), [1, 0, 0]);
    scene.assert_quiet();
}

/// An engine waits in one call and tries in another: `WRITE` is released while it does neither.
pub(crate) fn engine_keeps_its_slot_between_wait_and_try<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (holder, engine) = scene.two();
    let behind = scene.user();
    let clock = ManualClock::default();
    let writing = clock.run(|| holder.write());
    let order = Mutex::new(Vec::new());
    let mut queued = QueuedTry::new(&engine.wal);
    let upgrade = |queued: &mut QueuedTry<_>| {
        clock.run(|| {
            let read = engine.wal.begin_read().expect("it reads");
            read.upgrade_queued(queued).map_err(Error::from)
        })
    };
    let refused = upgrade(&mut queued);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    let until = Instant::now() + BOUND;
    assert!(clock.run(|| queued.wait(until)), "it is the first");
    until_in_line(&holder, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            clock.run(|| {
                let tx = behind.wal.begin_write(BOUND).expect("its turn comes");
                order.lock().unwrap().push("behind");
                drop(tx);
            });
        });
        until_in_line(&holder, 2);
        let refused = upgrade(&mut queued);
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        clock.run(|| drop(writing));
        assert!(clock.run(|| queued.wait(until)), "it is the first still");
        let tx = upgrade(&mut queued).expect("WRITE is free");
        order.lock().unwrap().push("engine");
        clock.run(|| drop(tx));
    });
    assert_eq!(*order.lock().unwrap(), ["engine", "behind"]);
    until_in_line(&holder, 0);
    scene.assert_quiet();
}

pub(crate) fn engine_that_does_not_try_leaves_the_queue<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (holder, engine) = scene.two();
    let behind = scene.user();
    let clock = ManualClock::default();
    let writing = clock.run(|| holder.write());
    let mut queued = QueuedTry::new(&engine.wal);
    queued.failed(true);
    assert!(clock.run(|| queued.wait(Instant::now() + BOUND)));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| clock.run(|| write_in_turn(&behind, 1)));
        until_in_line(&holder, 2);
        clock.run(|| drop(writing));
        // Behind a slot that stays, the writer would not try.
        clock.run(|| drop(queued));
        waiting.join().expect("it does not panic");
    });
    assert_eq!(holder.versions(), [1, 0, 0]);
    until_in_line(&holder, 0);
    scene.assert_quiet();
}

pub(crate) fn a_busy_lock_names_its_holder<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (holder, waiter) = scene.two();
    let _writing = holder.write();
    match waiter.wal.begin_write(Duration::ZERO) {
        Err(Error::Busy { holders, .. }) => assert_eq!(holders, [std::process::id()]),
        other => panic!("not busy: {other:?}"),
    }
}

pub(crate) fn a_waiting_writer_is_cancelled_from_another_thread<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (holder, waiter) = scene.two();
    let writing = holder.write();
    let cancel = Cancel::new();
    let busy = BusyHandler::timeout(BOUND).cancelled_by(&cancel);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.wal.begin_write(busy.clone()).map(drop));
        cancel.cancel();
        let ended = waiting.join().expect("the waiter does not panic");
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    });
    cancel.reset();
    drop(writing);
    drop(waiter.wal.begin_write(busy).expect("Write is free"));
    scene.assert_quiet();
}

pub(crate) fn a_change_is_told_to_who_asks<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let seen = *other.read().snapshot();
    assert!(!other.wal.changed_since(&seen).unwrap());
    assert!(!other.wal.wait_for_change(&seen, Duration::ZERO).unwrap());
    writer.commit(&[1], 1);
    assert!(other.wal.changed_since(&seen).unwrap());
    assert!(other.wal.wait_for_change(&seen, BOUND).unwrap());
    let seen = *other.read().snapshot();
    // A new generation, with as many frames as the old one had.
    writer.checkpoint_all();
    writer.commit(&[1], 2);
    writer.commit(&[1], 3);
    assert!(other.wal.changed_since(&seen).unwrap());
}

/// The commit comes between the look and the sleep, where only its ticket can
/// end the wait.
pub(crate) fn who_waits_for_a_change_is_woken_by_a_commit<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, waiter) = scene.two();
    writer.commit(&[1], 1);
    let seen = *waiter.read().snapshot();
    let wait = Call::Sleep(Awaited::Commit);
    waiter.before(move |call| *call == wait, move || writer.commit(&[1], 2));
    let started = Instant::now();
    assert!(waiter.wal.wait_for_change(&seen, BOUND).unwrap());
    waiter.assert_stepped_in();
    assert!(started.elapsed() < BOUND / 2, "nobody woke the waiter");
}

pub(crate) fn who_waits_for_a_change_is_cancelled<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    let seen = *user.read().snapshot();
    let cancel = Cancel::new();
    let until = BusyHandler::timeout(BOUND).cancelled_by(&cancel);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| user.wal.wait_for_change(&seen, until));
        cancel.cancel();
        let ended = waiting.join().expect("the waiter does not panic");
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    });
}
