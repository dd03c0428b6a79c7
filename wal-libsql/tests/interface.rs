//! What scripts cannot show: backups that are under way, statements that go on,
//! who removes the log, busy handlers, and the backend of one connection.
#![cfg(all(feature = "shm", feature = "inproc"))]
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

use std::ffi::{c_int, c_uint, c_void};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use needs::Need;
use wal_libsql::{BackendKind, Connection, OpenOptions, Value, ffi};

#[allow(dead_code, unreachable_pub)] // A library of all tests of the repository.
#[path = "../../integration/src/needs.rs"]
mod needs;

fn new_database(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        .unwrap();
    db
}

fn number(db: &Connection, sql: &str) -> i64 {
    match db.query(sql).unwrap()[..] {
        [ref row] => match row[..] {
            [Value::Integer(number)] => number,
            _ => panic!("{row:?}"),
        },
        ref rows => panic!("{rows:?}"),
    }
}

/// What stock SQLite's shell says, errors too; `None` if there is none.
fn shell(path: &Path, sql: &str) -> Option<String> {
    if !Need::Shell.is_met("what stock SQLite says of files with our log") {
        return None;
    }
    let output = Command::new("sqlite3")
        .args(["-batch", "-init", "/dev/null"])
        .arg(path)
        .arg(sql)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some(String::from_utf8(said).unwrap().trim().to_owned())
}

#[track_caller]
fn assert_shell_says(path: &Path, sql: &str, expected: &str) {
    if let Some(said) = shell(path, sql) {
        assert_eq!(said, expected);
    }
}

#[test]
fn a_backup_is_whole_while_another_connection_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (from_path, to_path) = (dir.path().join("from"), dir.path().join("to"));
    let from = new_database(&from_path);
    from.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t SELECT i, hex(zeroblob(50)) FROM n",
    )
    .unwrap();
    let writer = Connection::open(&from_path).unwrap();
    let to = Connection::open(&to_path).unwrap();
    // SAFETY: both connections are open.
    let backup = unsafe {
        ffi::sqlite3_backup_init(
            to.as_raw().as_ptr(),
            c"main".as_ptr(),
            from.as_raw().as_ptr(),
            c"main".as_ptr(),
        )
    };
    assert!(!backup.is_null());
    let mut steps = 0;
    loop {
        // SAFETY: the backup is not finished.
        match unsafe { ffi::sqlite3_backup_step(backup, 20) } {
            ffi::SQLITE_OK if steps == 3 => writer.execute("DELETE FROM t WHERE a = 7").unwrap(),
            ffi::SQLITE_OK => {}
            ffi::SQLITE_DONE => break,
            code => panic!("code {code} at step {steps}"),
        }
        steps += 1;
    }
    // SAFETY: this is its last use.
    let finished = unsafe { ffi::sqlite3_backup_finish(backup) };
    assert_eq!(finished, ffi::SQLITE_OK);
    drop(to);
    let sql = "PRAGMA integrity_check; SELECT count(*) FROM t";
    assert_shell_says(&to_path, sql, "ok\n4999");
}

#[test]
fn connections_of_a_process_see_snapshots_and_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let one = new_database(&path);
    let two = OpenOptions::new(BackendKind::Shared).open(&path).unwrap();
    one.execute("INSERT INTO t VALUES (1, 1)").unwrap();
    two.execute("BEGIN").unwrap();
    assert_eq!(number(&two, "SELECT count(*) FROM t"), 1);
    one.execute("BEGIN; INSERT INTO t VALUES (2, 2)").unwrap();
    let busy = two.execute("INSERT INTO t VALUES (3, 3)").unwrap_err();
    assert_eq!(busy.code, ffi::SQLITE_BUSY);
    one.execute("COMMIT").unwrap();
    assert_eq!(
        number(&two, "SELECT count(*) FROM t"),
        1,
        "the snapshot stays"
    );
    let stale = two.execute("INSERT INTO t VALUES (3, 3)").unwrap_err();
    assert_eq!(stale.code, ffi::SQLITE_BUSY_SNAPSHOT);
    one.execute("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    assert_eq!(
        number(&two, "SELECT count(*) FROM t"),
        1,
        "a checkpoint spares it"
    );
    two.execute("COMMIT; INSERT INTO t VALUES (3, 3)").unwrap();
    assert_eq!(number(&one, "SELECT count(*) FROM t"), 3);
    assert_shell_says(&path, "SELECT count(*) FROM t", "3");
}

/// A statement that is under way goes on at the state that its own connection
/// has committed.
#[test]
fn a_statement_goes_on_over_a_commit_of_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let db = new_database(&dir.path().join("db"));
    db.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        .unwrap();
    for checkpoint in [
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ] {
        db.execute(checkpoint).unwrap();
        let mut rows = db.prepare("SELECT a FROM t ORDER BY a").unwrap();
        assert!(rows.step().unwrap());
        for _ in 0..3 {
            db.execute("UPDATE t SET b = b || 'x'").unwrap();
            let other = Connection::open(dir.path().join("db")).unwrap();
            assert!(other.query("PRAGMA wal_checkpoint(PASSIVE)").is_ok());
        }
        assert!(rows.step().unwrap());
        assert_eq!(rows.value(0), Value::Integer(2));
        drop(rows);
        assert_eq!(number(&db, "SELECT count(DISTINCT length(b)) FROM t"), 1);
    }
    assert_eq!(number(&db, "SELECT length(b) FROM t WHERE a = 1"), 7);
}

fn frame_count(db: &Connection) -> c_uint {
    let mut count = 0;
    // SAFETY: the connection is open, and there is room for the answer.
    let code = unsafe { ffi::libsql_wal_frame_count(db.as_raw().as_ptr(), &raw mut count) };
    assert_eq!(code, ffi::SQLITE_OK);
    count
}

#[test]
fn frames_behind_a_savepoint_are_cut_when_it_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let db = new_database(&dir.path().join("db"));
    db.execute("PRAGMA cache_size = 10; BEGIN").unwrap();
    db.execute("INSERT INTO t VALUES (1, zeroblob(200000))")
        .unwrap();
    db.execute("SAVEPOINT s").unwrap();
    let before = frame_count(&db);
    db.execute("INSERT INTO t VALUES (2, zeroblob(200000))")
        .unwrap();
    assert!(
        frame_count(&db) > before,
        "nothing was written before the commit"
    );
    db.execute("ROLLBACK TO s").unwrap();
    assert_eq!(frame_count(&db), before);
    db.execute("COMMIT").unwrap();
    assert_eq!(number(&db, "SELECT sum(length(b)) FROM t"), 200_000);
}

#[test]
fn the_last_connection_removes_the_log_and_others_leave_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let log = dir.path().join("db-wal");
    let one = new_database(&path);
    let two = Connection::open(&path).unwrap();
    assert_eq!(number(&two, "SELECT count(*) FROM t"), 0);
    drop(one);
    assert!(log.exists(), "another connection is there");
    let ours = wal::Database::open(&path).unwrap();
    drop(two);
    assert!(log.exists(), "a `wal::Database` is there");
    ours.close().unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn read_only_connections_read_beside_a_writer_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let writer = new_database(&path);
    writer.execute("INSERT INTO t VALUES (1, 1)").unwrap();
    let reader = OpenOptions::new(BackendKind::Shared)
        .read_only()
        .open(&path)
        .unwrap();
    assert_eq!(number(&reader, "SELECT count(*) FROM t"), 1);
    let refused = reader.execute("INSERT INTO t VALUES (2, 2)").unwrap_err();
    assert_eq!(refused.code, ffi::SQLITE_READONLY);
    drop(writer);
    assert_eq!(number(&reader, "SELECT count(*) FROM t"), 1);
    drop(reader);
    assert_shell_says(&path, "SELECT count(*) FROM t", "1");
}

#[test]
fn a_new_log_has_the_permissions_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(new_database(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute("INSERT INTO t VALUES (1, 1)").unwrap();
    for suffix in ["-wal", "-shm"] {
        let mode = fs::metadata(format!("{}{suffix}", path.display()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660, "{suffix}");
    }
}

#[test]
fn a_connection_in_process_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let in_process = OpenOptions::new(BackendKind::InProcess);
    let db = in_process.open(&path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        .unwrap();
    db.execute("INSERT INTO t VALUES (1, 1)").unwrap();
    let other = in_process.open(&path).unwrap();
    let busy = other.query("SELECT * FROM t").unwrap_err();
    assert_eq!(busy.code & 0xff, ffi::SQLITE_BUSY);
    drop(other);
    let said = shell(&path, "SELECT * FROM t");
    assert!(said.is_none_or(|said| said.contains("locked")));
    db.execute("INSERT INTO t VALUES (2, 2); PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    assert!(!dir.path().join("db-shm").exists());
    drop(db);
    let sql = "PRAGMA integrity_check; SELECT count(*) FROM t";
    assert_shell_says(&path, sql, "ok\n2");
}

/// The engine's locks and classic ones belong to the process, so the system does not keep
/// them apart.
#[test]
fn handle_with_classic_locks_is_refused_beside_a_connection() {
    for backend in [BackendKind::Shared, BackendKind::InProcess] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        drop(new_database(&path));
        let db = OpenOptions::new(backend).open(&path).unwrap();
        db.execute("INSERT INTO t VALUES(1, 1)").unwrap();
        let classic = wal::Options::new()
            .lock_kind(wal::LockKind::Classic)
            .busy_timeout(std::time::Duration::ZERO);
        let refused = classic.open(&path).unwrap_err();
        assert!(matches!(refused, wal::Error::Locked { .. }), "{refused}");
        assert_eq!(number(&db, "SELECT count(*) FROM t"), 1);
        drop(db);
        drop(classic.open(&path).unwrap());
    }
}

#[test]
fn a_checkpoint_asks_the_busy_handler_about_readers() {
    unsafe extern "C" fn give_up(asked: *mut c_void, tries: c_int) -> c_int {
        // SAFETY: what the test gave, which outlives the connection.
        unsafe { *asked.cast::<c_int>() += 1 };
        c_int::from(tries < 2)
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut asked: c_int = 0;
    let db = new_database(&path);
    let reader = Connection::open(&path).unwrap();
    reader.execute("BEGIN").unwrap();
    assert_eq!(number(&reader, "SELECT count(*) FROM t"), 0);
    db.execute("INSERT INTO t VALUES (1, 1)").unwrap();
    // SAFETY: the connection is open, and closed before `asked` goes.
    unsafe {
        ffi::sqlite3_busy_handler(db.as_raw().as_ptr(), Some(give_up), (&raw mut asked).cast())
    };
    let row = db.query("PRAGMA wal_checkpoint(FULL)").unwrap();
    assert_eq!(row[0][0], Value::Integer(1), "{row:?}");
    assert_eq!(asked, 3);
    reader.execute("COMMIT").unwrap();
    let row = db.query("PRAGMA wal_checkpoint(FULL)").unwrap();
    assert_eq!(row[0][0], Value::Integer(0), "{row:?}");
    drop(db);
}
