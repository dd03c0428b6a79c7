//! A child that a fork has made. The only test here, so that no other thread
//! holds a mutex of the engine at the fork.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used)]

use nix::libc::_exit;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use wal_libsql::{Connection, Value, ffi};

/// The child can neither read nor close anything away from its parent.
#[test]
fn a_child_is_refused_and_takes_nothing_from_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let idle = Connection::open(&path).unwrap();
    idle.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        .unwrap();
    let writing = Connection::open(&path).unwrap();
    writing.execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    // SAFETY: the child uses nothing that another thread may hold, and ends
    // without running what the process would run at its end.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let refused = idle.query("SELECT * FROM t").map_err(|error| error.code);
            drop((idle, writing));
            let code = i32::from(refused != Err(ffi::SQLITE_MISUSE));
            // SAFETY: it does not return.
            unsafe { _exit(code) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        }
    }
    assert!(dir.path().join("db-wal").exists());
    let busy = idle.execute("PRAGMA busy_timeout = 0; INSERT INTO t VALUES (2)");
    assert_eq!(busy.unwrap_err().code, ffi::SQLITE_BUSY);
    writing.execute("COMMIT").unwrap();
    let rows = idle.query("SELECT a FROM t").unwrap();
    assert_eq!(rows, [[Value::Integer(1)]]);
}
