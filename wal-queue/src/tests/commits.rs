//! Commits and their syncs, reservations, and a SQLite that waits in its lock calls.

use super::*;

#[test]
fn commit_alone_notifies_of_itself() {
    let database = Database::new();
    let connection = database.open();
    let queue = database.queue();
    let commits = queue.wait_state().unwrap().commits().word();
    let notified = || commits.load(Ordering::SeqCst);
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
    assert!(!has_live_waiter(&database));
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
    let (send, code) = mpsc::channel();
    let waiter = thread::spawn(move || send.send(main.shm_lock(0, 1, ACQUIRE)).unwrap());
    assert_eq!(code.recv_timeout(20_000 * MS), Ok(ffi::OK));
    waiter.join().unwrap();
}
