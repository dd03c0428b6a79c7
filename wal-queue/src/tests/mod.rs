//! A connection, its thread and the queue, over a VFS that has nothing but `WRITE`.
//!
//! The threads of the tests are those of the test harness, so each test has a thread of its own
//! and begins without a wish.

mod beneath;

use std::ffi::{CString, c_int};
use std::thread;
use std::time::{Duration, Instant};

use wal_core::types::Salts;
use wal_core::wait::{Position, now};

use crate::ffi;
use crate::options::Options;
use crate::waiting;

use beneath::Database;

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

/// Another waiter is in the queue of `database` until the result is dropped. It shows that it
/// is alive, and never tries.
fn waiter(database: &Database) -> impl Drop {
    struct Waiter {
        end: std::sync::mpsc::Sender<()>,
        thread: Option<thread::JoinHandle<()>>,
    }
    impl Drop for Waiter {
        fn drop(&mut self) {
            self.end.send(()).unwrap();
            self.thread.take().unwrap().join().unwrap();
        }
    }
    let (end, ends) = std::sync::mpsc::channel();
    let (entered, enters) = std::sync::mpsc::channel();
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
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    let (rest, slept) = timed(|| sleep(30));
    assert_eq!(rest, Some(0));
    assert!(slept >= 30 * MS, "{slept:?}");
    assert!(database.tries() > 1, "it has probed");
}

#[test]
fn waiter_that_wins_returns_early_and_then_has_write() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    database.peer_unlocks();
    let (rest, slept) = timed(|| sleep(10_000));
    assert_eq!(rest, Some(0));
    assert!(slept < 5000 * MS, "{slept:?}");
    assert!(!database.has_owner(), "the probe has released it");
    assert_eq!(connection.acquire_write(), ffi::OK);
}

#[test]
fn time_that_was_not_slept_is_slept_later() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
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
fn waiter_that_gives_up_leaves_its_slot() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(sleep(5), Some(0));
    // The last try of the busy timeout. The thread may sleep once more, within a moment.
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    thread::sleep(5 * MS);
    let queue = database.queue();
    assert!(!queue.writers().unwrap().has_live_waiter(now()));
}

#[test]
fn waiter_whose_time_is_over_leaves_its_slot() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(sleep(5), Some(0));
    thread::sleep(5 * MS);
    let queue = database.queue();
    assert!(!queue.writers().unwrap().has_live_waiter(now()));
}

#[test]
fn skipped_first_of_the_queue_keeps_its_ticket() {
    // A thread that is without a processor for too long queues at the end.
    let is_first_again = (0..10).any(|_| {
        let database = Database::new();
        let connection = database.open();
        database.peer_locks();
        assert_eq!(connection.acquire_write(), ffi::BUSY);
        assert_eq!(sleep(5), Some(0));
        let _behind = waiter(&database);
        // The other waiter skips it.
        thread::sleep(10 * MS);
        assert_eq!(connection.acquire_write(), ffi::BUSY);
        database.peer_unlocks();
        let (rest, slept) = timed(|| sleep(200));
        assert_eq!(rest, Some(0));
        slept < 100 * MS && connection.acquire_write() == ffi::OK
    });
    assert!(is_first_again);
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
fn dead_waiter_refuses_no_connection() {
    let database = Database::new();
    let connection = database.open();
    let queue = database.queue();
    queue.writers().unwrap().enter(now()).unwrap();
    thread::sleep(40 * MS);
    assert_eq!(connection.acquire_write(), ffi::OK);
}

#[test]
fn waiter_that_was_skipped_is_not_refused_when_all_have_gone() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    database.peer_unlocks();
    assert_eq!(sleep(1000), Some(0));
    // It does not come back in time, and a peer has its turn.
    thread::sleep(40 * MS);
    let queue = database.queue();
    let writers = queue.writers().unwrap();
    let next = writers.enter(now()).unwrap();
    assert_eq!(writers.position(next, now()), Position::First);
    writers.leave(next);
    queue.wake_next();
    assert_eq!(connection.acquire_write(), ffi::OK);
}

#[test]
fn closed_connection_leaves_the_queue() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    database.peer_unlocks();
    assert_eq!(sleep(1000), Some(0));
    let queue = database.queue();
    assert!(queue.writers().unwrap().has_live_waiter(now()));
    drop(connection);
    assert!(!queue.writers().unwrap().has_live_waiter(now()));
}

#[test]
fn thread_that_reads_elsewhere_leaves_the_queue() {
    let (one, other) = (Database::new(), Database::new());
    let (first, second) = (one.open(), other.open());
    one.peer_locks();
    assert_eq!(first.acquire_write(), ffi::BUSY);
    one.peer_unlocks();
    assert_eq!(sleep(1000), Some(0));
    let queue = one.queue();
    assert_eq!(first.read(), ffi::OK);
    assert!(
        queue.writers().unwrap().has_live_waiter(now()),
        "its own read"
    );
    assert_eq!(second.read(), ffi::OK);
    assert!(!queue.writers().unwrap().has_live_waiter(now()));
}

#[test]
fn release_of_write_wakes_the_first_waiter() {
    let database = Database::new();
    let connection = database.open();
    let queue = database.queue();
    let writers = queue.writers().unwrap();
    let word = writers.word(writers.enter(now()).unwrap());
    let woken = || word.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(connection.acquire_write(), ffi::OK);
    let before = woken();
    assert_eq!(connection.release_write(), ffi::OK);
    assert_ne!(woken(), before);
}

#[test]
fn waiter_that_closes_wakes_the_next_one() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    database.peer_unlocks();
    assert_eq!(sleep(1000), Some(0));
    let queue = database.queue();
    let writers = queue.writers().unwrap();
    let word = writers.word(writers.enter(now()).unwrap());
    let woken = || word.load(std::sync::atomic::Ordering::SeqCst);
    let before = woken();
    drop(connection);
    assert_ne!(woken(), before);
}

#[test]
fn commit_alone_notifies_of_itself() {
    let database = Database::new();
    let connection = database.open();
    let queue = database.queue();
    let commits = queue.wait_state().unwrap().commits().word();
    let notified = || commits.load(std::sync::atomic::Ordering::SeqCst);
    let seen = queue.prepare_wait_for_commit().unwrap();
    assert_eq!(connection.acquire_write(), ffi::OK);
    assert_eq!(connection.release_write(), ffi::OK);
    assert_eq!(notified(), seen, "rolled back");
    assert_eq!(connection.acquire_write(), ffi::OK);
    connection.publish();
    assert_eq!(connection.release_write(), ffi::OK);
    assert_ne!(notified(), seen);
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
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
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
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    let main = &connection.main;
    let is_over = &std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            let unlock = ffi::SHM_UNLOCK | ffi::SHM_SHARED;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
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
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(!database.has_overlapped());
}

#[test]
fn thread_that_ends_leaves_the_queue() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    let (main, lock) = (&connection.main, &database);
    thread::scope(|scope| {
        let waits = scope.spawn(move || {
            assert_eq!(main.shm_lock(0, 1, ACQUIRE), ffi::BUSY);
            lock.peer_unlocks();
            assert_eq!(sleep(1000), Some(0));
            assert!(lock.queue().writers().unwrap().has_live_waiter(now()));
        });
        // Joined, since a scope does not wait for what a thread drops at its end.
        waits.join().unwrap();
    });
    let queue = database.queue();
    assert!(!queue.writers().unwrap().has_live_waiter(now()));
}

#[test]
fn queue_of_a_removed_side_file_is_not_shared() {
    let database = Database::new();
    let connection = database.open();
    // As a thread that waits has it.
    let old = database.queue();
    connection.main.unmapping(true);
    drop(connection);
    let _next = database.open();
    assert!(!std::sync::Arc::ptr_eq(&old, &database.queue()));
}

#[test]
fn side_file_is_not_kept_by_a_thread_that_has_waited() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(sleep(2), Some(0));
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    let old = std::sync::Arc::downgrade(&database.queue());
    // The last closer removes the side file; a peer may do so as well.
    connection.main.unmapping(true);
    drop(connection);
    assert_eq!(old.strong_count(), 0, "the queue of a removed side file");
    assert!(!wal_core::storage::beside(&database.path(), "-coord").exists());
}

#[test]
fn lock_timeout_is_waited_for_once() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    connection.main.set_lock_timeout(60);
    let (code, waited) = timed(|| connection.acquire_write());
    assert_eq!(code, ffi::BUSY | 3 << 8, "SQLITE_BUSY_TIMEOUT");
    assert!(waited >= 60 * MS, "{waited:?}");
    assert_eq!(
        database.timeout(),
        60,
        "the VFS beneath has its timeout again"
    );
    let queue = database.queue();
    assert!(!queue.writers().unwrap().has_live_waiter(now()));
    // It sleeps no second time.
    assert_eq!(sleep(1), None);
}

#[test]
fn lock_timeout_without_end_waits_for_the_lock() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    connection.main.set_lock_timeout(-1);
    let peer = database.clone();
    let releases = thread::spawn(move || {
        thread::sleep(50 * MS);
        peer.peer_unlocks();
    });
    assert_eq!(connection.acquire_write(), ffi::OK);
    releases.join().unwrap();
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

#[test]
fn thread_that_comes_back_late_queues_at_the_end() {
    let database = Database::new();
    let connection = database.open();
    database.peer_locks();
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    assert_eq!(sleep(2), Some(0));
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    thread::sleep(60 * MS);
    let _before = waiter(&database);
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    database.peer_unlocks();
    let (rest, slept) = timed(|| sleep(20));
    assert_eq!(rest, Some(0));
    assert!(slept >= 20 * MS, "it was first after {slept:?}");
}

#[test]
fn commit_behind_a_failed_sync_is_not_acknowledged() {
    const SALTS: [u8; 8] = *b"generatn";
    let database = Database::new();
    let connection = database.open_reading();
    let main = &connection.main;
    main.set_log(Some(main.base()));
    let mut commit_frame = [0; 24];
    commit_frame[7] = 1;
    commit_frame[8..16].copy_from_slice(&SALTS);
    for has_failed in [false, true] {
        assert_eq!(connection.acquire_write(), ffi::OK);
        assert_eq!(main.write_log(&commit_frame, 32), ffi::OK);
        assert_eq!(main.sync_log(main.base(), ffi::SYNC_NORMAL), ffi::OK);
        // The header of this index cannot be read, so the last frame is unknown.
        connection.publish();
        assert_eq!(connection.release_write(), ffi::OK);
        let code = if has_failed {
            let queue = database.queue();
            queue.wait_state().unwrap().synced().fail(Salts(SALTS));
            ffi::IOERR_FSYNC
        } else {
            ffi::OK
        };
        // The sync that the connection makes now is successful.
        assert_eq!(main.commit_phase_two(), code, "{has_failed}");
    }
}

#[test]
fn log_by_a_copy_of_its_name_is_left_alone() {
    let database = Database::new();
    let path = format!("{}-wal", database.path().display());
    let [name, copy] = [(); 2].map(|()| CString::new(path.as_str()).unwrap());
    let connection = database.open_with(Options {
        group_commit: true,
        log_name: name.as_ptr().addr(),
        ..Options::default()
    });
    assert!(connection.main.has_log_in_group(&name));
    assert!(!connection.main.has_log_in_group(&copy));
}

#[test]
fn connection_that_waits_keeps_no_other_reservation() {
    let database = Database::new();
    let (waits, stalls) = (database.open_reserving(), database.open_reserving());
    database.peer_locks();
    assert_eq!(waits.acquire_write(), ffi::BUSY);
    assert_eq!(stalls.acquire_write(), ffi::BUSY);
    database.peer_unlocks();
    // Its reservation has ended before its time.
    assert_eq!(waits.read(), ffi::BUSY, "the reservation begins");
    assert_eq!(waits.acquire_write(), ffi::OK);
    assert_eq!(waits.release_write(), ffi::OK);
    assert_eq!(stalls.read(), ffi::BUSY, "the reservation begins");
    assert!(database.has_owner());
    // Without an end, and with its mutex held.
    waits.main.set_lock_timeout(-1);
    let main = waits.main.clone();
    let (send, code) = std::sync::mpsc::channel();
    let waiter = thread::spawn(move || send.send(main.shm_lock(0, 1, ACQUIRE)).unwrap());
    assert_eq!(code.recv_timeout(20_000 * MS), Ok(ffi::OK));
    waiter.join().unwrap();
}
