//! A system without locks of open file descriptions (WSL 1, old sandboxes): the engine's log
//! names the option to set, and with that option everything works.
#![cfg(all(feature = "shm", target_os = "linux"))]
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ptr;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::libc;
use wal_libsql::{BackendKind, LockKind, OpenOptions, Value, WalOptions, ffi};

// SAFETY: it does what the C library's does, but for two commands which fail. The third
// argument is a number or a pointer, which a register holds.
#[unsafe(no_mangle)]
extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    if [libc::F_OFD_SETLK, libc::F_OFD_GETLK].contains(&command) {
        Errno::EINVAL.set();
        return -1;
    }
    // SAFETY: the caller gives what the command asks for.
    let answer = unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) };
    c_int::try_from(answer).unwrap_or(-1)
}

static NOTED: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" fn note(_: *mut c_void, _: c_int, message: *const c_char) {
    // SAFETY: the engine's messages end with a zero.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    NOTED.lock().unwrap().push_str(&message);
}

fn rows(options: WalOptions) -> Result<Vec<Vec<Value>>, c_int> {
    let dir = tempfile::tempdir().unwrap();
    let open = OpenOptions::new(BackendKind::Shared).wal(options);
    let code = |e: wal_libsql::SqlError| e.code;
    let path = dir.path().join("db");
    for _ in 0..2 {
        let db = open.open(&path).map_err(code)?;
        db.execute("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t(a)")
            .map_err(code)?;
        db.execute("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)")
            .map_err(code)?;
    }
    open.open(&path)
        .map_err(code)?
        .query("SELECT a FROM t")
        .map_err(code)
}

#[test]
fn connection_names_the_option_and_works_with_it() {
    let note: unsafe extern "C" fn(*mut c_void, c_int, *const c_char) = note;
    let nowhere = ptr::null_mut::<c_void>();
    // SAFETY: the engine is not initialised yet; the option takes a function and a pointer.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOG, note, nowhere) };
    assert_eq!(code, ffi::SQLITE_OK);
    rows(WalOptions::new(BackendKind::Shared)).unwrap_err();
    let noted = NOTED.lock().unwrap().clone();
    assert!(noted.contains("lock_kind(LockKind::Classic)"), "{noted}");

    let classic = WalOptions::new(BackendKind::Shared).lock_kind(LockKind::Classic);
    let one = vec![Value::Integer(1)];
    assert_eq!(rows(classic).unwrap(), [one.clone(), one]);
}
