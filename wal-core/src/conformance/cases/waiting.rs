//! What an operation does while somebody is in its way.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Backend;
use super::super::director::{Awaited, Call};
use super::super::scene::{BOUND, Scene, User};
use crate::coordination::{Lock, WalCoordination};
use crate::error::Error;
use crate::protocol::{BusyHandler, Cancel};

pub(crate) fn a_writer_asks_again_until_its_handler_says_no<B: Backend>() {
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

pub(crate) fn a_writer_begins_when_its_handler_let_the_other_end<B: Backend>() {
    let scene = Scene::<B>::new(2);
    let (holder, waiter) = scene.two();
    let writing = Mutex::new(Some(holder.write()));
    let busy = BusyHandler::ask(move |_, _| writing.lock().unwrap().take().is_some());
    let mut tx = waiter.wal.begin_write(busy).expect("the other has ended");
    super::super::scene::fill(&mut tx, &[1], 4).expect("it is filled");
    tx.commit().expect("it is committed");
    assert_eq!(holder.versions(), [4, 0]);
}

/// Waits until `count` users stand in line.
fn until_in_line<B: Backend>(user: &User<B>, count: usize) {
    let room = user.wal.coordination().waiting_room();
    let line = room.expect("a waiting room").line();
    let deadline = Instant::now() + BOUND;
    while line.len() != count {
        assert!(Instant::now() < deadline, "{} in line", line.len());
        thread::yield_now();
    }
}

/// Writes `version`, once it is its turn.
fn write_in_turn<B: Backend>(user: &User<B>, version: u32) {
    let mut tx = user.wal.begin_write(BOUND).expect("its turn comes");
    super::super::scene::fill(&mut tx, &[1], version).expect("it is filled");
    tx.commit().expect("it is committed");
}

pub(crate) fn writers_get_write_in_the_order_of_their_coming<B: Backend>() {
    let scene = Scene::<B>::new(5);
    let holder = scene.user();
    let writing = holder.write();
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for place in 1..=4 {
            let (user, order) = (scene.user(), &order);
            scope.spawn(move || {
                let tx = user.wal.begin_write(BOUND).expect("its turn comes");
                order.lock().unwrap().push(place);
                drop(tx);
            });
            until_in_line(&holder, place);
        }
        drop(writing);
    });
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4]);
    until_in_line(&holder, 0);
    scene.assert_quiet();
}

/// More than once, as who waits may be so quick that it would not be passed
/// anyway.
pub(crate) fn a_writer_whose_turn_is_over_does_not_pass_the_line<B: Backend>() {
    let scene = Scene::<B>::new(3);
    let (busy, waiter) = scene.two();
    for version in (1..20).step_by(2) {
        busy.commit(&[1], version);
        let writing = busy.write();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| write_in_turn(&waiter, version + 1));
            until_in_line(&busy, 1);
            // Longer than a turn is.
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(2) {
                thread::yield_now();
            }
            drop(writing);
            let tx = busy.wal.begin_write(BOUND).expect("its turn comes");
            let page = crate::types::PageNo::ONE;
            let found = tx.page(page).expect("the page is read").to_vec();
            let expected = super::super::scene::content(1, version + 1);
            assert_eq!(found, expected, "it was passed");
            drop(tx);
            waiting.join().expect("the waiter does not panic");
        });
    }
    scene.assert_quiet();
}

pub(crate) fn a_writer_that_gives_up_in_line_lets_the_next_one_go_on<B: Backend>() {
    let scene = Scene::<B>::new(3);
    let (holder, impatient) = scene.two();
    let patient = scene.user();
    let writing = holder.write();
    let cancel = Cancel::new();
    let until_cancelled = BusyHandler::timeout(BOUND).cancelled_by(&cancel);
    thread::scope(|scope| {
        let first = scope.spawn(|| impatient.wal.begin_write(until_cancelled).map(drop));
        until_in_line(&holder, 1);
        let second = scope.spawn(|| write_in_turn(&patient, 1));
        until_in_line(&holder, 2);
        cancel.cancel();
        let ended = first.join().expect("it does not panic");
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
        until_in_line(&holder, 1);
        drop(writing);
        second.join().expect("it does not panic");
    });
    assert_eq!(holder.versions(), [1, 0, 0]);
    scene.assert_quiet();
}

pub(crate) fn a_busy_lock_names_its_holder<B: Backend>() {
    let scene = Scene::<B>::new(2);
    let (holder, waiter) = scene.two();
    let _writing = holder.write();
    match waiter.wal.begin_write(Duration::ZERO) {
        Err(Error::Busy { holders, .. }) => assert_eq!(holders, [std::process::id()]),
        other => panic!("not busy: {other:?}"),
    }
}

pub(crate) fn a_waiting_writer_is_cancelled_from_another_thread<B: Backend>() {
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

pub(crate) fn a_change_is_told_to_who_asks<B: Backend>() {
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
pub(crate) fn who_waits_for_a_change_is_woken_by_a_commit<B: Backend>() {
    let scene = Scene::<B>::new(2);
    let (writer, waiter) = scene.two();
    writer.commit(&[1], 1);
    let seen = *waiter.read().snapshot();
    let wait = Call::Sleep(Awaited::Commit);
    waiter.before(move |call| *call == wait, move || writer.commit(&[1], 2));
    let started = Instant::now();
    assert!(waiter.wal.wait_for_change(&seen, BOUND / 2).unwrap());
    waiter.assert_stepped_in();
    assert!(started.elapsed() < BOUND / 4, "nobody woke the waiter");
}

pub(crate) fn who_waits_for_a_change_is_cancelled<B: Backend>() {
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
