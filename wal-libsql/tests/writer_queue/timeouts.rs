//! How long a statement waits for other connections, and what ends the wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wal_libsql::{SqlError, Value, ffi};

use super::{alone, new_database, open};

/// How long `run` takes to find that it is busy.
fn time_until_busy(run: impl Fn() -> Result<(), SqlError>) -> Duration {
    let began = Instant::now();
    let busy = run().unwrap_err();
    assert!(busy.is_busy(), "{busy}");
    began.elapsed()
}

/// Never shorter, and not longer by more than a twentieth where the machine has time.
fn assert_is_exact(timeout: Duration, run: impl Fn() -> Result<(), SqlError>) {
    let times: Vec<Duration> = (0..10)
        .map(|_| time_until_busy(&run))
        .scan(false, |is_over, time| {
            let goes_on = !*is_over;
            *is_over = time <= timeout.mul_f64(1.05);
            goes_on.then_some(time)
        })
        .collect();
    println!("{timeout:?}: {times:?}");
    assert!(times.iter().all(|time| *time >= timeout), "{times:?}");
    let shortest = times.iter().min().unwrap();
    assert!(*shortest <= timeout.mul_f64(1.05), "{times:?}");
}

#[test]
fn timeout_of_a_writer_is_what_was_asked_for() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    holder.execute("BEGIN IMMEDIATE").unwrap();
    for timeout in [50, 200, 1000].map(Duration::from_millis) {
        let db = open(&path, timeout);
        assert_is_exact(timeout, || db.execute("BEGIN IMMEDIATE"));
        assert_is_exact(timeout, || db.execute("UPDATE t SET n = n + 1"));
        db.execute(&format!("PRAGMA busy_timeout = {}", timeout.as_millis()))
            .unwrap();
        assert_is_exact(timeout, || db.execute("BEGIN IMMEDIATE"));
    }
    let db = open(&path, Duration::from_secs(60));
    db.busy_timeout(Duration::ZERO).unwrap();
    assert!(time_until_busy(|| db.execute("BEGIN IMMEDIATE")) < Duration::from_secs(30));
}

/// Also in the middle of the queue, and with a lock that is no `WRITE`.
#[test]
fn timeout_behind_a_waiter_and_beside_a_reader_is_exact() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    let timeout = Duration::from_millis(300);
    let db = open(&path, timeout);
    holder
        .execute("BEGIN IMMEDIATE; UPDATE t SET n = n + 1")
        .unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            let first = open(&path, Duration::from_secs(60));
            first.execute("BEGIN IMMEDIATE").unwrap();
            assert!(ended.load(Ordering::SeqCst), "it was not blocked");
        });
        assert_is_exact(timeout, || db.execute("BEGIN IMMEDIATE"));
        ended.store(true, Ordering::SeqCst);
        holder.execute("COMMIT").unwrap();
        first.join().unwrap();
    });
    holder.execute("BEGIN; SELECT * FROM t").unwrap();
    db.execute("UPDATE t SET n = n + 1").unwrap();
    // What it returns is a row.
    let checkpoint = || {
        let row = db.query("PRAGMA wal_checkpoint(TRUNCATE)")?;
        assert_eq!(row[0][0], Value::Integer(1), "{row:?}");
        Err(SqlError {
            code: ffi::SQLITE_BUSY,
            message: "the row has the busy flag".to_owned(),
        })
    };
    assert_is_exact(timeout, checkpoint);
}

/// With `WRITE` of the first database held, for that of the second one.
#[test]
fn writer_waits_for_an_attached_database() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("db"), dir.path().join("other"));
    drop(new_database(&path));
    let holder = new_database(&other);
    holder.execute("BEGIN IMMEDIATE").unwrap();
    let timeout = Duration::from_millis(200);
    let db = open(&path, timeout);
    let attach = "ATTACH ? AS other";
    db.execute_with(attach, &[other.to_str().unwrap().into()])
        .unwrap();
    assert_is_exact(timeout, || db.execute("BEGIN IMMEDIATE"));
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    thread::scope(|scope| {
        let writer =
            scope.spawn(move || db.execute("BEGIN IMMEDIATE; UPDATE other.t SET n = 7; COMMIT"));
        holder.execute("COMMIT").unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(
        holder.query("SELECT n FROM t").unwrap(),
        [[Value::Integer(7)]]
    );
}

#[test]
fn interrupt_ends_the_wait_of_a_writer() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    holder.execute("BEGIN IMMEDIATE").unwrap();
    let db = open(&path, Duration::from_secs(60));
    let raw = db.as_raw().as_ptr().expose_provenance();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // A call before the statement begins has no effect.
            while !ended.load(Ordering::SeqCst) {
                // SAFETY: the connection is open until this thread has ended.
                unsafe { ffi::sqlite3_interrupt(std::ptr::with_exposed_provenance_mut(raw)) };
                thread::sleep(Duration::from_millis(1));
            }
        });
        let began = Instant::now();
        let interrupted = db.execute("BEGIN IMMEDIATE").unwrap_err();
        let took = began.elapsed();
        ended.store(true, Ordering::SeqCst);
        assert_eq!(interrupted.code, ffi::SQLITE_INTERRUPT, "{interrupted}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    });
    holder.execute("COMMIT").unwrap();
    db.execute("UPDATE t SET n = n + 1").unwrap();
}

/// The application's handler stays, also over a read of the pragma.
#[test]
fn handler_of_the_application_is_asked() {
    unsafe extern "C" fn ask(asked: *mut std::ffi::c_void, tries: i32) -> i32 {
        // SAFETY: what the test gave, which outlives the connection.
        unsafe { *asked.cast::<i32>() += 1 };
        i32::from(tries < 2)
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    holder.execute("BEGIN IMMEDIATE").unwrap();
    let mut asked = 0_i32;
    let db = open(&path, Duration::from_secs(60));
    // SAFETY: the connection is open, and is closed before `asked` goes.
    unsafe { ffi::sqlite3_busy_handler(db.as_raw().as_ptr(), Some(ask), (&raw mut asked).cast()) };
    assert_eq!(
        db.query("PRAGMA busy_timeout").unwrap(),
        [[Value::Integer(0)]]
    );
    time_until_busy(|| db.execute("BEGIN IMMEDIATE"));
    drop(db);
    assert_eq!(asked, 3);
}
