//! What the engine's log of errors is told. A process of its own: that log is one for
//! the whole process.
#![cfg(all(feature = "shm", feature = "inproc"))]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, Once};

use wal_core::sync::Unpoison;

use wal_libsql::{BackendKind, Connection, OpenOptions, ffi};

static NOTED: Mutex<Vec<(c_int, String)>> = Mutex::new(Vec::new());

fn noted() -> MutexGuard<'static, Vec<(c_int, String)>> {
    NOTED.lock().unpoison()
}

unsafe extern "C" fn note(_: *mut c_void, code: c_int, message: *const c_char) {
    // SAFETY: messages end with a zero.
    let message = unsafe { CStr::from_ptr(message) };
    noted().push((code, message.to_string_lossy().into_owned()));
}

type Note = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static CONFIGURED: Once = Once::new();
    let guard = ONE.lock().unpoison();
    CONFIGURED.call_once(|| {
        let option = ffi::SQLITE_CONFIG_LOG;
        // SAFETY: the engine is not used yet; the option takes these two.
        let code = unsafe { ffi::sqlite3_config(option, note as Note, ptr::null_mut::<c_void>()) };
        assert_eq!(code, ffi::SQLITE_OK);
    });
    noted().clear();
    guard
}

type Open = fn(&str) -> Connection;

fn own_log(name: &str) -> Connection {
    let name = CString::new(name).unwrap();
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
    let mut db = ptr::null_mut();
    // SAFETY: the name ends with a zero.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, ptr::null()) };
    assert_eq!(code, ffi::SQLITE_OK);
    // SAFETY: it is open, and used here only.
    unsafe { Connection::from_raw(NonNull::new(db).unwrap()) }
}

fn our_log(name: &str) -> Connection {
    OpenOptions::new(BackendKind::Shared).open(name).unwrap()
}

fn in_process(name: &str) -> Connection {
    OpenOptions::new(BackendKind::InProcess).open(name).unwrap()
}

/// A copy of a database that is in use, as a crash would leave it.
fn left_by_a_crash(folder: &Path) -> String {
    let live = folder.join("live");
    let db = own_log(live.to_str().unwrap());
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        .unwrap();
    for suffix in ["", "-wal"] {
        let from = folder.join(format!("live{suffix}"));
        fs::copy(from, folder.join(format!("db{suffix}"))).unwrap();
    }
    folder.join("db").to_str().unwrap().to_owned()
}

#[test]
fn recovered_frames_are_noted_as_by_the_engine_log() {
    let _guard = one_at_a_time();
    let of = |open: Open| {
        let dir = tempfile::tempdir().unwrap();
        let path = left_by_a_crash(dir.path());
        noted().clear();
        let db = open(&path);
        db.query("SELECT * FROM t").unwrap();
        // Nothing is left to recover, nor, beside one that owns the database, to read.
        drop(open(&path).query("SELECT * FROM t"));
        drop(db);
        let told = std::mem::take(&mut *noted());
        let told = told
            .into_iter()
            .filter(|(code, _)| *code != ffi::SQLITE_BUSY);
        let told = told.map(|(code, message)| {
            let folder = dir.path().to_str().unwrap();
            (code, message.replace(folder, ""))
        });
        told.collect::<Vec<_>>()
    };
    let own = of(own_log);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(own[0].0, ffi::SQLITE_NOTICE_RECOVER_WAL);
    assert_eq!(of(our_log), own);
    assert_eq!(of(in_process), own);
}

#[test]
fn empty_log_is_not_noted_as_recovered() {
    let _guard = one_at_a_time();
    for open in [our_log as Open, in_process, own_log] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path().join("db").to_str().unwrap());
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
            .unwrap();
        drop(db);
        assert_eq!(*noted(), []);
    }
}

#[test]
fn log_of_the_engine_is_noted_where_ours_may_not_be() {
    let _guard = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let name = format!("file:{}?psow=0", path.display());
    our_log(&name)
        .execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        .unwrap();
    let told = std::mem::take(&mut *noted());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, ffi::SQLITE_NOTICE);
    assert!(told[0].1.starts_with(path.to_str().unwrap()), "{told:?}");
    drop(own_log(&name));
    assert_eq!(*noted(), []);
}
