//! A connection, its thread and the queue, over a VFS that has nothing but `WRITE`.
//!
//! The threads of the tests are those of the test harness, so each test has a thread of its own
//! and begins without a wish.

mod beneath;
mod commits;
mod slots;

use std::ffi::{CString, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use wal_core::types::Salts;
use wal_core::wait::{Position, now};

use crate::ffi;
use crate::options::Options;
use crate::waiting;

use beneath::{Database, Opened};

const ACQUIRE: c_int = ffi::SHM_LOCK | ffi::SHM_EXCLUSIVE;
const MS: Duration = Duration::from_millis(1);

/// Sleeps as the busy handler of SQLite does. Returns what is left for the VFS beneath.
fn sleep(millis: c_int) -> Option<c_int> {
    waiting::sleep(millis * 1000)
}

/// Calls `act`, and returns how long that took.
fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let since = Instant::now();
    let result = act();
    (result, since.elapsed())
}

/// A connection that was refused `WRITE`, which a peer outside the queue has.
fn refused() -> (Arc<Database>, Opened) {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    (database, connection)
}

/// A connection whose thread is first in the queue, and whose probe has found `WRITE` free.
fn first_in_queue() -> (Arc<Database>, Opened) {
    let (database, connection) = refused();
    database.peer_unlocks();
    assert_eq!(sleep(1000), Some(0));
    (database, connection)
}

fn has_live_waiter(database: &Database) -> bool {
    let queue = database.queue();
    queue.writers().unwrap().has_live_waiter(now())
}

/// Whether `act` wakes a waiter that enters the queue of `database` before.
fn wakes_a_waiter(database: &Database, act: impl FnOnce()) -> bool {
    let queue = database.queue();
    let writers = queue.writers().unwrap();
    let word = writers.word(writers.enter(now()).unwrap());
    let woken = || word.load(Ordering::SeqCst);
    let before = woken();
    act();
    woken() != before
}

/// Another waiter is in the queue of `database` until the result is dropped. It shows that it
/// is alive, and never tries.
fn waiter(database: &Database) -> impl Drop {
    struct Waiter {
        end: mpsc::Sender<()>,
        thread: Option<thread::JoinHandle<()>>,
    }
    impl Drop for Waiter {
        fn drop(&mut self) {
            self.end.send(()).unwrap();
            self.thread.take().unwrap().join().unwrap();
        }
    }
    let (end, ends) = mpsc::channel();
    let (entered, enters) = mpsc::channel();
    let queue = database.queue();
    let thread = thread::spawn(move || {
        let writers = queue.writers().unwrap();
        let mut slot = writers.enter(now()).unwrap();
        entered.send(()).unwrap();
        while ends.recv_timeout(MS).is_err() {
            if writers.position(slot, now()) == Position::Removed {
                slot = writers.enter_again(slot, now()).unwrap();
            }
        }
        writers.leave(slot);
    });
    enters.recv().unwrap();
    Waiter {
        end,
        thread: Some(thread),
    }
}

#[test]
fn connection_alone_gets_write_and_leaves_no_trace() {
    let database = Database::new();
    let connection = database.open();
    for _ in 0..3 {
        assert_eq!(connection.acquire_write(), ffi::OK);
        assert!(database.has_owner());
        assert_eq!(connection.release_write(), ffi::OK);
        assert!(!database.has_owner());
    }
    assert_eq!(sleep(1), None, "there is no wish");
}

#[test]
fn refused_connection_sleeps_until_the_time_is_over() {
    let (database, _connection) = refused();
    let (rest, slept) = timed(|| sleep(30));
    assert_eq!(rest, Some(0));
    assert!(slept >= 30 * MS, "{slept:?}");
    assert!(database.tries() > 1, "it has probed");
}

#[test]
fn waiter_that_wins_returns_early_and_then_has_write() {
    let (database, connection) = refused();
    database.peer_unlocks();
    let (rest, slept) = timed(|| sleep(10_000));
    assert_eq!(rest, Some(0));
    assert!(slept < 5000 * MS, "{slept:?}");
    assert!(!database.has_owner(), "the probe has released it");
    assert_eq!(connection.acquire_write(), ffi::OK);
}

#[test]
fn time_that_was_not_slept_is_slept_later() {
    let (database, connection) = refused();
    database.peer_unlocks();
    let since = Instant::now();
    assert_eq!(sleep(200), Some(0));
    // Another writer is faster.
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(sleep(10), Some(0));
    let slept = since.elapsed();
    assert!(slept >= 210 * MS, "{slept:?}");
}

#[test]
fn time_not_slept_for_one_database_is_not_owed_by_another() {
    let (one, other) = (Database::new(), Database::new());
    let (first, second) = (one.open(), other.open());
    one.peer_locks();
    assert_eq!(first.acquire_write(), ffi::BUSY);
    one.peer_unlocks();
    assert_eq!(sleep(60_000), Some(0));
    // The statement ends with another error; the next one is for the other database.
    other.peer_locks();
    assert_eq!(second.acquire_write(), ffi::BUSY);
    let (rest, slept) = timed(|| sleep(10));
    assert_eq!(rest, Some(0));
    assert!(slept < 10_000 * MS, "{slept:?}");
}

#[test]
fn connection_behind_the_queue_is_refused_without_a_try() {
    let database = Database::new();
    let connection = database.open();
    let _first = waiter(&database);
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(database.tries(), 0);
    assert_eq!(sleep(5), Some(0));
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(database.tries(), 0);
}

#[test]
fn refused_connection_that_did_not_sleep_tries() {
    let database = Database::new();
    let connection = database.open();
    let _first = waiter(&database);
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(connection.acquire_write(), ffi::OK);
    connection.release_write();
}

#[test]
fn refused_connections_that_a_thread_polls_in_turn_try() {
    let (one, other) = (Database::new(), Database::new());
    let (first, second) = (one.open(), other.open());
    let _waiters = (waiter(&one), waiter(&other));
    assert_eq!(first.acquire_write(), ffi::BUSY);
    assert_eq!(second.acquire_write(), ffi::BUSY);
    assert_eq!(first.acquire_write(), ffi::OK);
    assert_eq!(second.acquire_write(), ffi::OK);
}

#[test]
fn refused_connection_that_another_thread_polls_tries() {
    let database = Database::new();
    let connection = database.open();
    let _first = waiter(&database);
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    let main = &connection.main;
    let code = thread::scope(|scope| {
        scope
            .spawn(move || main.shm_lock(0, 1, ACQUIRE))
            .join()
            .unwrap()
    });
    assert_eq!(code, ffi::OK);
}

#[test]
fn wish_is_forgotten_when_the_thread_reads_elsewhere() {
    let (one, other) = (Database::new(), Database::new());
    let (first, second) = (one.open(), other.open());
    one.peer_locks();
    assert_eq!(first.acquire_write(), ffi::BUSY);
    assert_eq!(second.read(), ffi::OK);
    assert_eq!(sleep(1), None);
}

#[test]
fn probe_leaves_write_that_another_thread_has_by_then() {
    let (database, connection) = refused();
    database.peer_unlocks();
    let main = &connection.main;
    thread::scope(|scope| {
        let code = scope.spawn(move || main.shm_lock(0, 1, ACQUIRE)).join();
        assert_eq!(code.unwrap(), ffi::OK);
    });
    let rest = sleep(5);
    assert!(rest.is_some_and(|rest| rest > 0), "{rest:?}");
    assert!(database.has_owner());
}

#[test]
fn probe_and_calls_of_another_thread_do_not_overlap() {
    let (database, connection) = refused();
    let main = &connection.main;
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            let unlock = ffi::SHM_UNLOCK | ffi::SHM_SHARED;
            while !is_over.load(Ordering::SeqCst) {
                // `READ(0)`, and `CKPT`.
                main.shm_lock(3, 1, ffi::SHM_LOCK | ffi::SHM_SHARED);
                main.shm_lock(3, 1, unlock);
                main.shm_lock(1, 1, ACQUIRE);
                main.shm_lock(1, 1, ffi::SHM_UNLOCK | ffi::SHM_EXCLUSIVE);
            }
        });
        for _ in 0..2000 {
            main.probe(&database.queue());
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(!database.has_overlapped());
}

/// SQLite does not ask its busy handler then.
#[test]
fn read_transaction_that_writes_tries_beside_a_waiter() {
    let database = Database::new();
    let _waiter = waiter(&database);
    assert_eq!(database.open().acquire_write(), ffi::BUSY);
    assert_eq!(database.tries(), 0);
    let connection = database.open_reading();
    assert_eq!(connection.acquire_write(), ffi::OK);
    assert_eq!(connection.release_write(), ffi::OK);
}
