//! A sync fails once: the statement fails with it, and the next one works, as on the
//! engine's own log. Ours has written the log again by then: the system may have
//! dropped what it could not write.
//!
//! A process of its own, in which `fsync` and its like are those of this file.
#![cfg(all(feature = "shm", feature = "inproc", target_os = "linux"))]
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc;
use wal_libsql::{BackendKind, Connection, OpenOptions, Value, ffi};

/// What this thread does to files, and what is to fail.
#[derive(Default)]
struct Calls {
    /// The end of the name of the file whose next sync fails.
    fails: Option<&'static str>,
    /// The same of the file that cannot be opened, for once.
    fails_to_open: Option<&'static str>,
    /// What was written to the log since a sync has failed.
    written: Vec<Range<i64>>,
    /// What of that was synced since.
    synced: Vec<Range<i64>>,
}

thread_local! {
    static CALLS: RefCell<Calls> = RefCell::default();
}

fn name_of(fd: c_int) -> String {
    let name = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn sync(fd: c_int, number: libc::c_long) -> c_int {
    let name = name_of(fd);
    let fails = CALLS.with_borrow_mut(|calls| {
        let fails = calls.fails.is_some_and(|end| name.ends_with(end));
        if fails {
            calls.fails = None;
            calls.written.clear();
            calls.synced.clear();
        } else if name.ends_with("-wal") {
            calls.synced.clone_from(&calls.written);
        }
        fails
    });
    if fails {
        Errno::EIO.set();
        return -1;
    }
    // SAFETY: the call takes a descriptor.
    let code = unsafe { libc::syscall(number, fd) };
    c_int::try_from(code).unwrap()
}

// SAFETY: it does what the C library's does, for those who call it by that name.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

// SAFETY: as above. Files are made with a mode, and others ignore it.
#[unsafe(no_mangle)]
unsafe extern "C" fn openat(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: paths end with a zero.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    let fails = CALLS.try_with(|calls| {
        let Ok(mut calls) = calls.try_borrow_mut() else {
            return false;
        };
        let fails = |end: &mut &str| name.ends_with(end.as_bytes());
        calls.fails_to_open.take_if(fails).is_some()
    });
    if fails.unwrap_or(false) {
        Errno::EIO.set();
        return -1;
    }
    // SAFETY: the call takes these arguments.
    let fd = unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, mode) };
    c_int::try_from(fd).unwrap_or(-1)
}

/// # Safety
/// As for `pwritev`.
unsafe fn write(fd: c_int, parts: *const libc::iovec, count: c_int, at: i64) -> isize {
    // SAFETY: the call takes these arguments, the last one in two halves.
    let written = unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, count, at, 0) };
    if written > 0 && name_of(fd).ends_with("-wal") {
        CALLS.with_borrow_mut(|calls| calls.written.push(at..at + written));
    }
    isize::try_from(written).unwrap()
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, parts: *const libc::iovec, count: c_int, at: i64) -> isize {
    // SAFETY: as the caller says.
    unsafe { write(fd, parts, count, at) }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(
    fd: c_int,
    parts: *const libc::iovec,
    count: c_int,
    at: i64,
) -> isize {
    // SAFETY: as the caller says.
    unsafe { write(fd, parts, count, at) }
}

/// How far `ranges` cover a file from its start, without a hole.
fn covered(mut ranges: Vec<Range<i64>>) -> i64 {
    ranges.sort_by_key(|range| range.start);
    ranges
        .iter()
        .fold(0, |end, range| match range.start <= end {
            true => end.max(range.end),
            false => end,
        })
}

type Open = fn(&Path) -> Connection;

fn own_log(path: &Path) -> Connection {
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
    let mut db = ptr::null_mut();
    // SAFETY: the name ends with a zero.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, ptr::null()) };
    assert_eq!(code, ffi::SQLITE_OK);
    // SAFETY: it is open.
    unsafe { ffi::sqlite3_extended_result_codes(db, 1) };
    // SAFETY: it is open, and used here only.
    unsafe { Connection::from_raw(NonNull::new(db).unwrap()) }
}

fn our_log(path: &Path) -> Connection {
    OpenOptions::new(BackendKind::Shared).open(path).unwrap()
}

fn in_process(path: &Path) -> Connection {
    OpenOptions::new(BackendKind::InProcess).open(path).unwrap()
}

const LOG: &str = "-wal";
const DATABASE: &str = "/db";

/// A statement, and whether a sync of a file fails during it.
const SCRIPT: &[(&str, Option<&str>)] = &[
    ("INSERT INTO t VALUES (1)", None),
    ("INSERT INTO t VALUES (2)", Some(LOG)),
    ("SELECT a FROM t", None),
    ("INSERT INTO t VALUES (3)", None),
    ("BEGIN", None),
    ("INSERT INTO t VALUES (4)", None),
    ("COMMIT", Some(LOG)),
    ("SELECT a FROM t", None),
    ("PRAGMA wal_checkpoint(PASSIVE)", None),
    ("INSERT INTO t VALUES (5)", Some(LOG)),
    ("INSERT INTO t VALUES (6)", None),
    ("PRAGMA wal_checkpoint(FULL)", Some(LOG)),
    ("PRAGMA wal_checkpoint(FULL)", None),
    ("INSERT INTO t VALUES (7)", None),
    ("PRAGMA wal_checkpoint(TRUNCATE)", Some(DATABASE)),
    ("PRAGMA wal_checkpoint(TRUNCATE)", None),
    ("INSERT INTO t VALUES (8)", None),
    ("PRAGMA journal_mode = DELETE", Some(DATABASE)),
    ("PRAGMA journal_mode = WAL", None),
    ("INSERT INTO t VALUES (9)", None),
    ("SELECT a FROM t", None),
];

fn run(open: Open, prepare: &str) -> Vec<Result<Vec<Vec<Value>>, c_int>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open(&path);
    db.execute(prepare).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        .unwrap();
    let mut answers = Vec::new();
    for &(sql, fails) in SCRIPT {
        CALLS.with_borrow_mut(|calls| calls.fails = fails);
        let answer = db.query(sql).map_err(|e| e.code);
        assert_eq!(
            CALLS.with_borrow(|calls| calls.fails),
            None,
            "{sql}: no sync"
        );
        answers.push(answer);
    }
    CALLS.with_borrow_mut(|calls| calls.fails = Some(LOG));
    drop(db);
    CALLS.with_borrow_mut(|calls| calls.fails = None);
    let rows = own_log(&path).query("SELECT a FROM t").unwrap();
    answers.push(Ok(rows));
    answers
}

#[test]
fn statement_after_a_failed_sync_works_as_on_the_engine_log() {
    for prepare in [
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = FULL; PRAGMA locking_mode = EXCLUSIVE",
    ] {
        let own = run(own_log, prepare);
        for (open, name) in [(our_log as Open, "shared"), (in_process, "in process")] {
            let ours = run(open, prepare);
            let both = ours.iter().zip(&own).enumerate();
            for (at, (ours, own)) in both {
                let sql = SCRIPT.get(at).map_or("in the end", |(sql, _)| sql);
                assert_eq!(ours, own, "{name}, {prepare}: {sql} at {at}");
            }
        }
    }
}

/// Frames that were committed before are written again, with the header of the log.
#[test]
fn log_is_written_again_before_the_next_commit_is_durable() {
    for (open, prepare) in [
        (our_log as Open, "PRAGMA locking_mode = NORMAL"),
        (our_log, "PRAGMA locking_mode = EXCLUSIVE"),
        (in_process, "PRAGMA locking_mode = NORMAL"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = open(&path);
        db.execute(prepare).unwrap();
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        // Visible, and not synced yet.
        db.execute("PRAGMA synchronous = NORMAL; INSERT INTO t VALUES (1)")
            .unwrap();
        let committed = fs::metadata(dir.path().join("db-wal")).unwrap().len();
        db.execute("PRAGMA synchronous = FULL").unwrap();
        CALLS.with_borrow_mut(|calls| calls.fails = Some(LOG));
        let failed = db.execute("INSERT INTO t VALUES (2)").unwrap_err();
        assert_eq!(failed.code, ffi::SQLITE_IOERR_FSYNC);
        db.execute("INSERT INTO t VALUES (3)").unwrap();
        let covered = covered(CALLS.with_borrow(|calls| calls.synced.clone()));
        let committed = i64::try_from(committed).unwrap();
        assert!(covered >= committed, "{covered} of {committed} bytes");
    }
}

/// What the connection has told its log is told to the one that takes its place.
#[test]
fn size_limit_of_the_log_outlives_a_failed_sync() {
    let of = |open: Open| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = open(&path);
        db.execute("PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        db.execute("PRAGMA journal_size_limit = 10000").unwrap();
        CALLS.with_borrow_mut(|calls| calls.fails = Some(LOG));
        db.execute("INSERT INTO t VALUES (2)").unwrap_err();
        db.execute("INSERT INTO t VALUES (zeroblob(100000))")
            .unwrap();
        db.execute("PRAGMA wal_checkpoint(RESTART)").unwrap();
        db.execute("INSERT INTO t VALUES (3)").unwrap();
        fs::metadata(dir.path().join("db-wal")).unwrap().len()
    };
    assert_eq!(of(our_log), of(own_log));
}

/// The index that is still in use is on the heap, where no other process sees it.
#[test]
fn log_that_cannot_be_opened_again_leaves_the_database_owned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = in_process(&path);
    db.execute("PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        .unwrap();
    CALLS.with_borrow_mut(|calls| calls.fails = Some(LOG));
    db.execute("INSERT INTO t VALUES (1)").unwrap_err();
    CALLS.with_borrow_mut(|calls| calls.fails_to_open = Some(LOG));
    let failed = db.query("SELECT * FROM t").unwrap_err();
    assert_eq!(failed.code, ffi::SQLITE_CANTOPEN);
    let busy = own_log(&path).query("SELECT * FROM t").unwrap_err();
    assert_eq!(busy.code & 0xff, ffi::SQLITE_BUSY);
    db.execute("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(db.query("SELECT a FROM t").unwrap(), [[Value::Integer(2)]]);
}
