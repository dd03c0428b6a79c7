//! Frames as they are in the log (`libsql_wal_get_frame` and its like), by
//! which libSQL keeps replicas: the same on its own log and on ours.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::ffi::{CString, c_int, c_uint};
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
    let code = unsafe { ffi::libsql_wal_frame_count(db.as_ptr(), &raw mut count) };
    assert_eq!(code, ffi::SQLITE_OK);
    count
}

fn frame(db: &Connection, frame: c_uint) -> Vec<u8> {
    let mut bytes = vec![0_u8; FRAME_LEN as usize];
    // SAFETY: the connection is open, and there is room for a frame.
    let code = unsafe {
        ffi::libsql_wal_get_frame(db.as_ptr(), frame, bytes.as_mut_ptr().cast(), FRAME_LEN)
    };
    assert_eq!(code, ffi::SQLITE_OK);
    bytes
}

/// The code, and whether another frame is there already.
fn insert(db: &Connection, frame: c_uint, bytes: &mut [u8]) -> (c_int, bool) {
    let mut conflict = 0;
    // SAFETY: the connection is open, and a frame is as long as that.
    let code = unsafe {
        let bytes = bytes.as_mut_ptr().cast();
        ffi::libsql_wal_insert_frame(db.as_ptr(), frame, bytes, FRAME_LEN, &raw mut conflict)
    };
    (code, conflict != 0)
}

/// What a replica says of each frame, and then holds.
type Told = (Vec<(c_int, bool)>, c_uint, Vec<Vec<Value>>);

fn replicate(open: fn(&Path) -> Connection, frames: &[Vec<u8>]) -> Told {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("db"));
    // SAFETY: the connection is open.
    let code = unsafe { ffi::libsql_wal_insert_begin(db.as_ptr()) };
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
    let code = unsafe { ffi::libsql_wal_insert_end(db.as_ptr()) };
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
        let frames: Vec<_> = (1..=frame_count(&db)).map(|at| frame(&db, at)).collect();
        assert!(frames.len() > 5);
        let (ours, own) = (replicate(our_log, &frames), replicate(own_log, &frames));
        assert_eq!(ours, own);
    }
}
