//! What the shell cannot ask: the same on libSQL's own log and on ours.
//! Frames as they are in the log (`libsql_wal_get_frame` and its like), WAL
//! hooks, logs that stay, and checkpoints that are interrupted.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs;
use std::path::Path;
use std::ptr::{self, NonNull};

use wal_libsql::{Connection, Value, ffi};

const FRAME_LEN: c_uint = 24 + 4096;

/// A connection on the engine's own log.
fn own_log(path: &Path) -> Connection {
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
    let mut db = ptr::null_mut();
    // SAFETY: the name ends with a zero.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, ptr::null()) };
    assert_eq!(code, ffi::SQLITE_OK);
    // SAFETY: it is open, and used here only.
    unsafe { Connection::from_raw(NonNull::new(db).unwrap()) }
}

fn our_log(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

fn frame_count(db: &Connection) -> c_uint {
    let mut count = 0;
    // SAFETY: the connection is open, and there is room for the answer.
    let code = unsafe { ffi::libsql_wal_frame_count(db.as_raw().as_ptr(), &raw mut count) };
    assert_eq!(code, ffi::SQLITE_OK);
    count
}

fn frame(db: &Connection, frame: c_uint) -> Result<Vec<u8>, c_int> {
    let mut bytes = vec![0_u8; FRAME_LEN as usize];
    // SAFETY: the connection is open, and there is room for a frame.
    let code = unsafe {
        ffi::libsql_wal_get_frame(
            db.as_raw().as_ptr(),
            frame,
            bytes.as_mut_ptr().cast(),
            FRAME_LEN,
        )
    };
    match code {
        ffi::SQLITE_OK => Ok(bytes),
        code => Err(code),
    }
}

/// The code, and whether another frame is there already.
fn insert(db: &Connection, frame: c_uint, bytes: &mut [u8]) -> (c_int, bool) {
    let mut conflict = 0;
    // SAFETY: the connection is open, and a frame is as long as that.
    let code = unsafe {
        let bytes = bytes.as_mut_ptr().cast();
        ffi::libsql_wal_insert_frame(
            db.as_raw().as_ptr(),
            frame,
            bytes,
            FRAME_LEN,
            &raw mut conflict,
        )
    };
    (code, conflict != 0)
}

/// What a replica says of each frame, and then holds.
type Told = (Vec<(c_int, bool)>, c_uint, Vec<Vec<Value>>);

fn replicate(open: fn(&Path) -> Connection, frames: &[Vec<u8>]) -> Told {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("db"));
    // SAFETY: the connection is open.
    let code = unsafe { ffi::libsql_wal_insert_begin(db.as_raw().as_ptr()) };
    assert_eq!(code, ffi::SQLITE_OK);
    let mut told = Vec::new();
    for (number, bytes) in (1..).zip(frames) {
        let mut bytes = bytes.clone();
        told.push(insert(&db, number, &mut bytes));
        told.push(insert(&db, number, &mut bytes));
        bytes[30] ^= 1;
        told.push(insert(&db, number, &mut bytes));
    }
    // SAFETY: the connection is open.
    let code = unsafe { ffi::libsql_wal_insert_end(db.as_raw().as_ptr()) };
    assert_eq!(code, ffi::SQLITE_OK);
    let count = frame_count(&db);
    (told, count, db.query("SELECT a, length(b) FROM t").unwrap())
}

#[test]
fn frames_go_from_log_to_log() {
    for from in [own_log, our_log] {
        let dir = tempfile::tempdir().unwrap();
        let db = from(&dir.path().join("db"));
        db.execute(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE t(a INTEGER PRIMARY KEY, b);
             INSERT INTO t VALUES (1, zeroblob(20000)); INSERT INTO t VALUES (2, zeroblob(9000));",
        )
        .unwrap();
        let count = frame_count(&db);
        let frames: Vec<_> = (1..=count).map(|at| frame(&db, at).unwrap()).collect();
        for none in [0, count + 1] {
            assert_eq!(frame(&db, none), Err(ffi::SQLITE_IOERR_SHORT_READ));
        }
        assert!(frames.len() > 5);
        let (ours, own) = (replicate(our_log, &frames), replicate(own_log, &frames));
        assert_eq!(ours, own);
    }
}

unsafe extern "C" fn note_frames(
    noted: *mut c_void,
    _db: *mut ffi::sqlite3,
    _name: *const c_char,
    frames: c_int,
) -> c_int {
    // SAFETY: what the test gave, which outlives the connection.
    unsafe { &mut *noted.cast::<Vec<c_int>>() }.push(frames);
    ffi::SQLITE_OK
}

/// What the hook is told of commits, one of them written to the log in part
/// before, and of the first ones after the log began anew.
fn hooked(open: fn(&Path) -> Connection) -> Vec<c_int> {
    let dir = tempfile::tempdir().unwrap();
    let mut noted: Vec<c_int> = Vec::new();
    let db = open(&dir.path().join("db"));
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        .unwrap();
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    // SAFETY: the connection is open, and closed before `noted` goes.
    unsafe {
        ffi::sqlite3_wal_hook(
            db.as_raw().as_ptr(),
            Some(note_frames),
            (&raw mut noted).cast(),
        )
    };
    for sql in [
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO t VALUES (2, zeroblob(50000))",
        "BEGIN; INSERT INTO t VALUES (3, 3); ROLLBACK",
        "SELECT * FROM t",
        "PRAGMA wal_checkpoint(RESTART)",
        "DELETE FROM t WHERE a = 1",
        "UPDATE t SET b = 2",
    ] {
        db.execute(sql).unwrap();
    }
    drop(db);
    noted
}

#[test]
fn the_wal_hook_is_told_the_frames_of_each_commit() {
    let (ours, own) = (hooked(our_log), hooked(own_log));
    assert_eq!(ours, own);
    assert_eq!(ours.len(), 4);
}

/// The files that are left, and how long; the side file is ours alone.
fn left_in(dir: &Path) -> Vec<(String, u64)> {
    let mut left: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let len = entry.metadata().unwrap().len();
            (entry.file_name().into_string().unwrap(), len)
        })
        .filter(|(name, _)| !name.ends_with("-coord"))
        .collect();
    left.sort();
    left
}

fn keep_log(db: &Connection) {
    let mut keep: c_int = 1;
    // SAFETY: the connection is open, and there is room for the answer.
    let code = unsafe {
        let keep = (&raw mut keep).cast();
        ffi::sqlite3_file_control(
            db.as_raw().as_ptr(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_PERSIST_WAL,
            keep,
        )
    };
    assert_eq!(code, ffi::SQLITE_OK);
}

fn forbid_checkpoint_on_close(db: &Connection) {
    let option = ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    let nowhere = ptr::null_mut::<c_int>();
    // SAFETY: the connection is open; the option takes a number and a place
    // for the answer, which may be null.
    let code = unsafe { ffi::sqlite3_db_config(db.as_raw().as_ptr(), option, 1 as c_int, nowhere) };
    assert_eq!(code, ffi::SQLITE_OK);
}

fn limit_log(db: &Connection) {
    keep_log(db);
    db.execute("PRAGMA journal_size_limit = 1000").unwrap();
}

#[test]
fn the_log_stays_behind_the_last_connection_if_it_is_to() {
    // A limit from before the log is there holds too.
    let limited = "PRAGMA journal_size_limit = 1000";
    for (before, ask) in [
        ("", forbid_checkpoint_on_close as fn(&Connection)),
        ("", keep_log),
        ("", limit_log),
        (limited, keep_log),
    ] {
        let left = [our_log, own_log].map(|open| {
            let dir = tempfile::tempdir().unwrap();
            let db = open(&dir.path().join("db"));
            db.execute(before).unwrap();
            db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
                .unwrap();
            ask(&db);
            drop(db);
            left_in(dir.path())
        });
        assert_eq!(left[0], left[1]);
        assert!(left[0].iter().any(|(name, _)| name == "db-wal"));
    }
}

#[test]
fn a_log_without_a_database_is_removed() {
    for open in [our_log, own_log] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("db-wal"), [1; 5000]).unwrap();
        let db = open(&dir.path().join("db"));
        db.execute("SELECT * FROM sqlite_schema").unwrap();
        assert_eq!(left_in(dir.path()), [("db".to_owned(), 0)]);
    }
}

/// The page size is the log's then.
#[test]
fn a_first_page_that_was_lost_is_in_the_log() {
    for open in [our_log, own_log] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = open(&path);
        db.execute("PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        db.execute("INSERT INTO t VALUES (1)").unwrap();
        forbid_checkpoint_on_close(&db);
        drop(db);
        fs::write(&path, [0; 1024]).unwrap();
        let db = open(&path);
        let rows = db.query("SELECT a FROM t").unwrap();
        assert_eq!(rows, [[Value::Integer(1)]]);
    }
}

fn cache_misses(db: &Connection) -> c_int {
    let (mut misses, mut highest) = (0, 0);
    let what = ffi::SQLITE_DBSTATUS_CACHE_MISS;
    // SAFETY: the connection is open, and there is room for the answers.
    let code = unsafe {
        ffi::sqlite3_db_status(
            db.as_raw().as_ptr(),
            what,
            &raw mut misses,
            &raw mut highest,
            0,
        )
    };
    assert_eq!(code, ffi::SQLITE_OK);
    misses
}

#[test]
fn the_cache_outlives_commits_of_the_connection() {
    for open in [our_log, own_log] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("db"));
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        db.execute("INSERT INTO t VALUES (1)").unwrap();
        let misses = cache_misses(&db);
        db.execute("INSERT INTO t VALUES (2); SELECT * FROM t; DELETE FROM t")
            .unwrap();
        assert_eq!(cache_misses(&db), misses);
    }
}

/// The code, the frames in the log, and those in the database file.
fn checkpoint(db: &Connection) -> (c_int, c_int, c_int) {
    let (mut frames, mut backfilled) = (0, 0);
    let (main, mode) = (c"main".as_ptr(), ffi::SQLITE_CHECKPOINT_PASSIVE);
    // SAFETY: the connection is open, and there is room for the answers.
    let code = unsafe {
        ffi::sqlite3_wal_checkpoint_v2(
            db.as_raw().as_ptr(),
            main,
            mode,
            &raw mut frames,
            &raw mut backfilled,
        )
    };
    (code, frames, backfilled)
}

#[test]
fn a_checkpoint_of_a_connection_that_was_interrupted() {
    for open in [own_log, our_log] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("db"));
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_interrupt(db.as_raw().as_ptr()) };
        assert_eq!(checkpoint(&db), (ffi::SQLITE_INTERRUPT, -1, -1));
        assert_eq!(checkpoint(&db), (ffi::SQLITE_OK, 2, 2));
    }
}

unsafe extern "C" fn interrupt(db: *mut c_void, tries: c_int) -> c_int {
    // SAFETY: the connection that calls this.
    unsafe { ffi::sqlite3_interrupt(db.cast()) };
    // Only who does not heed it comes as far as that.
    c_int::from(tries < 10)
}

#[test]
fn a_checkpoint_that_waits_can_be_interrupted() {
    for open in [our_log, own_log] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("db"));
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        let reader = open(&dir.path().join("db"));
        reader.execute("BEGIN; SELECT * FROM t").unwrap();
        db.execute("INSERT INTO t VALUES (1)").unwrap();
        // SAFETY: the connection is open, and is what the handler is given.
        unsafe {
            ffi::sqlite3_busy_handler(
                db.as_raw().as_ptr(),
                Some(interrupt),
                db.as_raw().as_ptr().cast(),
            )
        };
        let interrupted = db.query("PRAGMA wal_checkpoint(TRUNCATE)").unwrap_err();
        assert_eq!(interrupted.code, ffi::SQLITE_INTERRUPT);
        reader.execute("COMMIT").unwrap();
        let row = db.query("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert_eq!(row[0][0], Value::Integer(0));
    }
}
