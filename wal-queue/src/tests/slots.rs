//! The slot of a waiter that gives up, dies, is skipped, or ends, and the wake-up that follows.

use super::*;

#[test]
fn waiter_that_gives_up_leaves_its_slot() {
    let (database, connection) = refused();
    assert_eq!(sleep(5), Some(0));
    // The last try of the busy timeout. The thread may sleep once more, within a moment.
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    thread::sleep(5 * MS);
    assert!(!has_live_waiter(&database));
}

#[test]
fn waiter_whose_time_is_over_leaves_its_slot() {
    let (database, _connection) = refused();
    assert_eq!(sleep(5), Some(0));
    thread::sleep(5 * MS);
    assert!(!has_live_waiter(&database));
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
    let (database, connection) = first_in_queue();
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
    let (database, connection) = first_in_queue();
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
    assert_eq!(connection.acquire_write(), ffi::OK);
    let releases = || assert_eq!(connection.release_write(), ffi::OK);
    assert!(wakes_a_waiter(&database, releases));
}

#[test]
fn waiter_that_closes_wakes_the_next_one() {
    let (database, connection) = first_in_queue();
    assert!(wakes_a_waiter(&database, || drop(connection)));
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
    assert!(!has_live_waiter(&database));
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
    assert!(!Arc::ptr_eq(&old, &database.queue()));
}

#[test]
fn side_file_is_not_kept_by_a_thread_that_has_waited() {
    let (database, connection) = refused();
    assert_eq!(sleep(2), Some(0));
    assert_eq!(connection.acquire_write(), ffi::BUSY);
    let old = Arc::downgrade(&database.queue());
    // The last closer removes the side file; a peer may do so as well.
    connection.main.unmapping(true);
    drop(connection);
    assert_eq!(old.strong_count(), 0, "the queue of a removed side file");
    assert!(!wal_core::storage::beside(&database.path(), "-coord").exists());
}

#[test]
fn thread_that_comes_back_late_queues_at_the_end() {
    let (database, connection) = refused();
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
