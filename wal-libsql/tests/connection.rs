//! The wrapper around a connection of the engine.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

use wal_libsql::{BackendKind, Connection, OpenOptions, Value, ffi};

fn in_memory() -> Connection {
    Connection::open(":memory:").unwrap()
}

fn new_database(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        .unwrap();
    db
}

/// A connection that does not wait.
fn hasty(path: &Path) -> Connection {
    OpenOptions::new(BackendKind::Shared).open(path).unwrap()
}

#[test]
fn positional_parameters_take_each_kind_of_value() {
    let db = in_memory();
    db.execute("CREATE TABLE t(a, b, c, d, e, f)").unwrap();
    let row: [Value; 6] = [
        Value::Null,
        (-7).into(),
        0.5.into(),
        "zwölf".into(),
        [0_u8, 255].as_slice().into(),
        Vec::<u8>::new().into(),
    ];
    db.execute_with("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", &row)
        .unwrap();
    assert_eq!(db.query("SELECT * FROM t").unwrap(), [row]);
    let kinds = "SELECT typeof(a) || typeof(b) || typeof(c) || typeof(d) || typeof(e) FROM t";
    let text = "nullintegerrealtextblob".into();
    assert_eq!(db.query(kinds).unwrap(), [[text]]);
    assert_eq!(Value::from(None::<i64>), Value::Null);
    assert_eq!(Value::from(Some(true)), Value::Integer(1));
}

#[test]
fn named_parameters_are_bound_by_name_and_stay() {
    let db = in_memory();
    let mut select = db.prepare("SELECT :a, @b, $c, :a").unwrap();
    assert_eq!(select.parameter_count(), 3);
    assert_eq!(select.parameter_index("@b").unwrap(), 2);
    for (name, value) in [(":a", 1), ("@b", 2), ("$c", 3)] {
        select.bind_named(name, &value.into()).unwrap();
    }
    let numbers = |select: &wal_libsql::Statement<'_>| select.row();
    assert!(select.step().unwrap());
    assert_eq!(numbers(&select), [1, 2, 3, 1].map(Value::from));
    select.reset();
    select.bind_named("@b", &Value::Null).unwrap();
    assert!(select.step().unwrap());
    let expected = [1.into(), Value::Null, 3.into(), 1.into()];
    assert_eq!(numbers(&select), expected);
    select.reset();
    select.clear_bindings();
    assert!(select.step().unwrap());
    assert_eq!(numbers(&select), [const { Value::Null }; 4]);
}

#[test]
fn parameter_that_is_not_there_is_out_of_range() {
    let db = in_memory();
    let mut select = db.prepare("SELECT ?, :a").unwrap();
    let code = |result: Result<(), wal_libsql::SqlError>| result.map_err(|error| error.code);
    let range = Err(ffi::SQLITE_RANGE);
    assert_eq!(code(select.bind(3, &1.into())), range);
    assert_eq!(code(select.bind(0, &1.into())), range);
    assert_eq!(code(select.bind_named("a", &1.into())), range);
    assert_eq!(code(select.bind_all(&[1.into()])), range);
    assert_eq!(code(select.bind_all(&[])), range);
    assert_eq!(
        code(select.bind_named(":a\0", &1.into())),
        Err(ffi::SQLITE_MISUSE)
    );
    assert_eq!(code(db.query("SELECT ?").map(drop)), range);
    select.bind_all(&[1.into(), 2.into()]).unwrap();
    assert!(select.step().unwrap());
    assert_eq!(select.row(), [1, 2].map(Value::from));
    assert_eq!(code(select.bind(1, &1.into())), Err(ffi::SQLITE_MISUSE));
}

#[test]
fn columns_have_names() {
    let db = in_memory();
    db.execute("CREATE TABLE t(a, b)").unwrap();
    let select = db.prepare("SELECT a, b AS \"bé\", 1 + 1 FROM t").unwrap();
    assert_eq!(select.columns(), 3);
    assert_eq!(select.column_names(), ["a", "bé", "1 + 1"]);
    assert_eq!(select.column_name(3), None);
    assert_eq!(select.column_name(-1), None);
    let insert = db.prepare("INSERT INTO t VALUES (1, 2)").unwrap();
    assert!(insert.column_names().is_empty());
}

#[test]
fn changes_and_rowids_are_those_of_the_last_statement() {
    let db = in_memory();
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        .unwrap();
    assert_eq!((db.changes(), db.last_insert_rowid()), (0, 0));
    db.execute_with("INSERT INTO t VALUES (?, 1), (?, 2)", &[5.into(), 9.into()])
        .unwrap();
    assert_eq!((db.changes(), db.last_insert_rowid()), (2, 9));
    db.execute("UPDATE t SET b = 3 WHERE a = 5").unwrap();
    assert_eq!((db.changes(), db.last_insert_rowid()), (1, 9));
    db.query("SELECT * FROM t").unwrap();
    assert_eq!(db.changes(), 1);
    assert_eq!(db.total_changes(), 3);
}

#[test]
fn execute_runs_each_statement_up_to_the_first_error() {
    let db = in_memory();
    db.execute(" -- nothing\n ; ; ").unwrap();
    db.execute("").unwrap();
    let sql = "CREATE TABLE t(a); INSERT INTO t VALUES (1); SELECT * FROM t; -- the end";
    db.execute(sql).unwrap();
    let failed = db.execute("INSERT INTO t VALUES (2); INSERT INTO u VALUES (3); DELETE FROM t");
    assert_eq!(failed.unwrap_err().message, "no such table: u");
    assert_eq!(
        db.query("SELECT a FROM t").unwrap(),
        [[1], [2]].map(|row| row.map(Value::from))
    );
    assert_eq!(
        db.prepare("-- nothing").unwrap_err().code,
        ffi::SQLITE_MISUSE
    );
    assert_eq!(
        db.execute("SELECT 1\0").unwrap_err().code,
        ffi::SQLITE_MISUSE
    );
}

#[test]
fn busy_errors_are_told_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (one, two) = (new_database(&path), hasty(&path));
    two.execute("BEGIN; SELECT * FROM t").unwrap();
    one.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 1)")
        .unwrap();
    let locked = two.execute("INSERT INTO t VALUES (2, 2)").unwrap_err();
    assert_eq!((locked.code, locked.is_busy()), (ffi::SQLITE_BUSY, true));
    one.execute("COMMIT").unwrap();
    let stale = two.execute("INSERT INTO t VALUES (2, 2)").unwrap_err();
    assert_eq!(
        (stale.code, stale.is_busy()),
        (ffi::SQLITE_BUSY_SNAPSHOT, true)
    );
    two.execute("ROLLBACK").unwrap();
    assert!(
        !two.execute("INSERT INTO t VALUES (1, 1)")
            .unwrap_err()
            .is_busy()
    );
    assert!(!two.execute("INSERT INTO").unwrap_err().is_busy());
}

#[test]
fn connection_keeps_its_settings_as_a_raw_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    let timeout = Duration::from_millis(100);
    let db = hasty(&path);
    db.busy_timeout(timeout).unwrap();
    db.execute("CREATE TEMP TABLE own(a)").unwrap();
    let before = db.as_raw();
    let raw = db.into_raw();
    assert_eq!(raw, before);
    // SAFETY: `into_raw` gave it, and no other code has it.
    let db = unsafe { Connection::from_raw(raw) };
    db.execute("INSERT INTO own VALUES (1)").unwrap();
    holder.execute("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    assert!(db.execute("BEGIN IMMEDIATE").unwrap_err().is_busy());
    assert!(began.elapsed() >= timeout, "{:?}", began.elapsed());
    drop((db, holder));
    // Both are closed: the last one has removed the log.
    assert!(!dir.path().join("db-wal").exists());
}

/// The engine keeps a connection whose statements are left, without what it waits by.
#[test]
fn statement_left_by_a_closed_connection_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    let db = hasty(&path);
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    let mut statement = ptr::null_mut();
    let (raw, sql) = (db.as_raw().as_ptr(), c"INSERT INTO t VALUES (1, 1)");
    // SAFETY: the connection is open, the text ends with a zero.
    let code = unsafe {
        ffi::sqlite3_prepare_v2(raw, sql.as_ptr(), -1, &raw mut statement, ptr::null_mut())
    };
    assert_eq!(code, ffi::SQLITE_OK);
    holder.execute("BEGIN IMMEDIATE").unwrap();
    drop(db);
    // SAFETY: the statement is not finalized.
    let code = unsafe { ffi::sqlite3_step(statement) };
    assert_eq!(code & 0xff, ffi::SQLITE_BUSY);
    // SAFETY: its last use.
    unsafe { ffi::sqlite3_finalize(statement) };
}
