//! Write transactions that wait, run again, and do not wait for themselves.
#![cfg(feature = "shm")]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wal::{
    BusyHandler, Cancel, CheckpointMode, CheckpointOptions, Database, DatabaseKind, Error, Lock,
    Options, PageNo, Synchronous, WriteTx,
};

/// Longer than any test: a wait that lasts so long has failed.
const LONG: Duration = Duration::from_secs(120);
/// By when a wait for oneself has ended, however busy the machine is.
const SOON: Duration = Duration::from_secs(30);

fn open(path: &Path) -> Database {
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .synchronous(Synchronous::Normal);
    options.busy_timeout(LONG).open(path).unwrap()
}

fn database() -> (TempDir, PathBuf, Database) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let database = open(&path);
    let page = database.write(|tx| tx.allocate()).unwrap();
    assert_eq!(page, page_two());
    (directory, path, database)
}

fn page_two() -> PageNo {
    PageNo::new(2).unwrap()
}

fn add_one(tx: &mut WriteTx) -> wal::Result<()> {
    tx.page_mut(page_two())?[0] += 1;
    Ok(())
}

fn value(database: &Database) -> u8 {
    database.begin_read().unwrap().page(page_two()).unwrap()[0]
}

fn is_own_write<T>(result: &wal::Result<T>) -> bool {
    matches!(result, Err(Error::OwnWrite { .. }))
}

#[test]
fn writer_with_a_timeout_of_its_own_gives_up_by_it() {
    let (_directory, path, database) = database();
    let other = open(&path);
    let write = thread::spawn(move || other.begin_write().unwrap())
        .join()
        .unwrap();
    let started = Instant::now();
    let refused = database.begin_write_with(Duration::from_millis(20));
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert!(started.elapsed() < LONG / 2, "the timeout of the options");
    drop(write);
    database
        .begin_write_with(Duration::ZERO)
        .unwrap()
        .rollback();
}

#[test]
fn writer_with_a_function_of_its_own_asks_it() {
    let (_directory, path, database) = database();
    let other = open(&path);
    let write = thread::spawn(move || other.begin_write().unwrap())
        .join()
        .unwrap();
    let write = Mutex::new(Some(write));
    let busy = BusyHandler::ask(move |lock, tries| {
        assert_eq!(lock, Lock::Write);
        if tries == 3 {
            drop(write.lock().unwrap().take());
        }
        tries <= 3
    });
    database.begin_write_with(busy).unwrap().rollback();
}

#[test]
fn writer_with_a_switch_of_its_own_is_cancelled() {
    let (_directory, path, database) = database();
    let other = open(&path);
    let write = thread::spawn(move || other.begin_write().unwrap())
        .join()
        .unwrap();
    let cancel = Cancel::new();
    let busy = BusyHandler::timeout(LONG).cancelled_by(&cancel);
    let waiting = thread::spawn(move || database.begin_write_with(busy).map(drop));
    cancel.cancel();
    let waited = waiting.join().unwrap();
    assert!(matches!(waited, Err(Error::Cancelled)), "{waited:?}");
    drop(write);
}

#[test]
fn closure_is_committed_once_it_succeeds() {
    let (_directory, path, database) = database();
    database.write(add_one).unwrap();
    assert_eq!(value(&open(&path)), 1);
}

#[test]
fn closure_that_fails_is_rolled_back_and_runs_once() {
    let (_directory, _path, database) = database();
    let mut runs = 0;
    let failed = database.write(|tx| {
        runs += 1;
        add_one(tx)?;
        Err::<(), Box<dyn StdError>>("no".into())
    });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    assert_eq!((runs, value(&database)), (1, 0));
}

/// A closure that fails with `errors` in turn, and then succeeds.
fn runs_until_success<E: From<Error> + 'static>(
    database: &Database,
    errors: Vec<E>,
) -> (usize, Result<(), E>) {
    let mut errors = errors.into_iter();
    let mut runs = 0;
    let result = database.write(|tx| {
        runs += 1;
        add_one(tx)?;
        errors.next().map_or(Ok(()), Err)
    });
    (runs, result)
}

#[test]
fn closure_runs_again_after_what_a_new_run_can_cure() {
    let (_directory, path, database) = database();
    let busy = || Error::Busy {
        path: path.clone(),
        lock: Lock::Recover,
        holders: Vec::new(),
    };
    let (runs, result) = runs_until_success(&database, vec![Error::BusySnapshot, busy()]);
    result.unwrap();
    assert_eq!((runs, value(&database)), (3, 1));

    let boxed: Vec<Box<dyn StdError>> = vec![busy().into(), Error::BusySnapshot.into()];
    let (runs, result) = runs_until_success(&database, boxed);
    result.unwrap();
    assert_eq!((runs, value(&database)), (3, 2));

    let boxed: Vec<Box<dyn StdError + Send + Sync>> = vec![busy().into()];
    let (runs, result) = runs_until_success(&database, boxed);
    result.unwrap();
    assert_eq!((runs, value(&database)), (2, 3));
}

#[test]
fn closure_never_runs_again_once_its_commit_may_be_there() {
    let (_directory, path, database) = database();
    let source = || Box::new(Error::BusySnapshot);
    let unknown = Error::CommitOutcomeUnknown {
        path: path.clone(),
        source: source(),
    };
    let not_durable = Error::DurabilityUnknown {
        path,
        source: source(),
    };
    for error in [unknown, not_durable] {
        let (runs, result) = runs_until_success(&database, vec![error]);
        assert_eq!(runs, 1);
        result.unwrap_err();
    }
}

#[test]
fn closure_runs_again_within_one_timeout() {
    let (_directory, _path, database) = database();
    let runs = AtomicU32::new(0);
    let started = Instant::now();
    let given_up = database.write_with(Duration::from_millis(50), |_tx| {
        runs.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>(Error::BusySnapshot)
    });
    assert!(matches!(given_up, Err(Error::BusySnapshot)));
    assert!(runs.load(Ordering::Relaxed) > 1);
    assert!(started.elapsed() < LONG / 2);
}

#[test]
fn closures_of_several_threads_lose_no_update() {
    let (_directory, path, _database) = database();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let database = open(&path);
                for _ in 0..20 {
                    let read = database.begin_read().unwrap();
                    let before = read.page(page_two()).unwrap()[0];
                    drop(read);
                    // Computed outside of the transaction, as an optimistic writer does.
                    let mut before = Some(before);
                    let added = database.write(|tx| {
                        let now = tx.page(page_two())?[0];
                        let seen = before.take().unwrap_or(now);
                        if seen != now {
                            return Err(Error::BusySnapshot);
                        }
                        tx.page_mut(page_two())?[0] = seen + 1;
                        Ok(())
                    });
                    added.unwrap();
                }
            });
        }
    });
    assert_eq!(value(&open(&path)), 80);
}

#[test]
fn second_write_of_a_thread_is_refused_before_its_timeout() {
    let (_directory, path, database) = database();
    let second = open(&path);
    let write = database.begin_write().unwrap();
    let started = Instant::now();
    for handle in [&database, &database.clone(), &second] {
        let refused = handle.begin_write();
        assert!(is_own_write(&refused), "{refused:?}");
    }
    let refused = second.write(add_one);
    assert!(is_own_write(&refused), "{refused:?}");
    let apply = second.begin_apply();
    assert!(matches!(apply, Err(Error::OwnWrite { .. })), "{apply:?}");
    assert!(started.elapsed() < SOON, "it waited for itself");
    drop(write);
    second.begin_write().unwrap().rollback();
}

#[test]
fn upgraded_transaction_of_a_thread_is_its_own_write() {
    let (_directory, _path, database) = database();
    let write = database.begin_read().unwrap().upgrade().unwrap();
    let started = Instant::now();
    let refused = database.begin_write();
    assert!(is_own_write(&refused), "{refused:?}");
    assert!(started.elapsed() < SOON, "it waited for itself");
    write.commit().unwrap();
    database.begin_write().unwrap().rollback();
}

#[test]
fn closure_that_begins_to_write_is_refused_at_once() {
    let (_directory, path, database) = database();
    let second = open(&path);
    // A function that always waits: without the refusal this would never end.
    let forever = || BusyHandler::ask(|_, tries| tries < 1_000_000);
    let mut runs = 0;
    let nested = database.write(|_tx| {
        runs += 1;
        for handle in [&database, &second] {
            let refused = handle.begin_write_with(forever());
            assert!(is_own_write(&refused), "{refused:?}");
            // A call that does not wait does not wait for its own thread either.
            let busy = handle.try_begin_write();
            assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
        }
        database.write_with(forever(), add_one)
    });
    assert!(is_own_write(&nested), "{nested:?}");
    assert_eq!((runs, value(&database)), (1, 0));
    database.write(add_one).unwrap();
}

#[test]
fn checkpoint_does_not_wait_for_the_write_of_its_thread() {
    let (_directory, _path, database) = database();
    let started = Instant::now();
    let report = database.write(|_tx| {
        let truncate = CheckpointOptions::new(CheckpointMode::Truncate).busy(LONG);
        database.checkpoint_with(truncate)
    });
    let held_back = report.unwrap().held_back_by.unwrap();
    assert_eq!(held_back.lock, Lock::Write);
    assert!(started.elapsed() < SOON, "it waited for itself");
}

#[test]
fn receiver_of_a_drain_that_writes_is_refused_at_once() {
    let (_directory, _path, database) = database();
    let mut tail = database.tail().unwrap();
    database.write(add_one).unwrap();
    let options = wal::DrainOptions::new();
    let nested = tail.drain_log(&options, |_frames| database.write(add_one));
    assert!(matches!(nested, Err(Error::OwnWrite { .. })), "{nested:?}");
    tail.drain_log(&options, |_frames| Ok::<_, Error>(()))
        .unwrap();
    drop(tail);
    database.write(add_one).unwrap();
    assert_eq!(value(&database), 2);
}

#[test]
fn progress_of_a_checkpoint_that_writes_is_refused_at_once() {
    let (_directory, _path, database) = database();
    database.write(add_one).unwrap();
    for (mode, refuses) in [
        (CheckpointMode::Passive, false),
        (CheckpointMode::Full, true),
    ] {
        database.write(add_one).unwrap();
        let mut refused = Vec::new();
        let mut progress = |_| refused.push(is_own_write(&database.write(add_one)));
        let checkpoint = CheckpointOptions::new(mode).progress(&mut progress);
        database.checkpoint_with(checkpoint).unwrap();
        assert_eq!(refused, [refuses], "{mode:?}");
    }
    database.write(add_one).unwrap();
}

#[test]
fn errors_tell_whether_to_try_again_or_to_begin_again() {
    let path = PathBuf::from("pages");
    let busy = Error::OwnWrite { path: path.clone() };
    assert!(busy.is_busy() && !busy.must_begin_again());
    let gone = [
        Error::BusySnapshot,
        Error::SnapshotTooOld { path: path.clone() },
        Error::SnapshotGone { path: path.clone() },
    ];
    assert!(gone.iter().all(|e| e.must_begin_again() && !e.is_busy()));
    let source = Box::new(Error::BusySnapshot);
    let unknown = Error::CommitOutcomeUnknown { path, source };
    assert!(!unknown.must_begin_again() && !unknown.is_busy());
}

#[test]
fn full_log_of_a_thread_that_writes_is_its_own_write() {
    let (_directory, path, _database) = database();
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .auto_checkpoint(0)
        .busy_timeout(LONG);
    let (unlimited, limited) = (options.clone(), options.max_log_frames(1));
    let (unlimited, limited) = (unlimited.open(&path).unwrap(), limited.open(&path).unwrap());
    unlimited.write(add_one).unwrap();
    let started = Instant::now();
    let nested = unlimited.write(|_tx| limited.begin_write().map(drop));
    assert!(is_own_write(&nested), "{nested:?}");
    assert!(started.elapsed() < SOON, "it waited for itself");
}

#[test]
fn thread_waits_for_its_write_that_moved_to_another_thread() {
    let (_directory, _path, database) = database();
    let mut write = database.begin_write().unwrap();
    let (touched, is_touched) = channel();
    let (ends, end) = channel::<()>();
    let ended = Arc::new(AtomicBool::new(false));
    let other = thread::spawn({
        let ended = ended.clone();
        move || {
            add_one(&mut write).unwrap();
            touched.send(()).unwrap();
            // For longer than an untouched transaction of one's own is waited for.
            let _ = end.recv_timeout(Duration::from_millis(400));
            ended.store(true, Ordering::SeqCst);
            write.commit().unwrap();
        }
    });
    is_touched.recv().unwrap();
    let next = database.begin_write().unwrap();
    assert!(ended.load(Ordering::SeqCst));
    next.rollback();
    drop(ends);
    other.join().unwrap();
    assert_eq!(value(&database), 1);
}

#[test]
fn thread_that_ended_its_write_waits_for_another_one() {
    let (_directory, path, database) = database();
    for ends_elsewhere in [false, true] {
        let write = database.begin_write().unwrap();
        match ends_elsewhere {
            false => drop(write),
            true => thread::spawn(move || drop(write)).join().unwrap(),
        }
        let other = open(&path);
        let writes = thread::spawn(move || other.begin_write().unwrap());
        let write = writes.join().unwrap();
        // For longer than an untouched transaction of its own is waited for.
        let refused = database.begin_write_with(Duration::from_millis(400));
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        drop(write);
    }
}

#[test]
fn question_mark_turns_a_refused_upgrade_into_its_error() {
    fn upgrade(database: &Database) -> wal::Result<()> {
        let read = database.begin_read()?;
        database.write(add_one)?;
        read.upgrade()?.commit().map(drop)
    }
    fn upgrade_boxed(database: &Database) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let read = database.begin_read()?;
        database.write(add_one)?;
        read.upgrade()?.commit()?;
        Ok(())
    }
    let (_directory, _path, database) = database();
    let refused = upgrade(&database).unwrap_err();
    assert!(matches!(refused, Error::BusySnapshot), "{refused:?}");
    assert!(refused.must_begin_again() && !refused.is_busy());
    let refused = upgrade_boxed(&database).unwrap_err();
    assert_eq!(refused.to_string(), Error::BusySnapshot.to_string());
}
