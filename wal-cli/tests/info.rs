//! `walctl info` beside stock SQLite and this library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use common::{Python, reports, text, walctl};
use integration::needs::Need;
use rusqlite::Connection;
use serde_json::{Value, json};

fn info(database: &Path) -> Value {
    let output = walctl("info", database, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    let [report] = &reports(&output)[..] else {
        panic!("one report: {output:?}")
    };
    report.clone()
}

/// A connection of stock SQLite that checkpoints only when it is told to.
fn connect(database: &Path) -> Connection {
    let stock = Connection::open(database).unwrap();
    let setup = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE IF NOT EXISTS t (x)";
    stock.execute_batch(setup).unwrap();
    stock
}

fn insert(stock: &Connection, rows: u32) {
    for _ in 0..rows {
        let insert = "INSERT INTO t VALUES (randomblob(3000))";
        stock.execute(insert, []).unwrap();
    }
}

/// What stock SQLite says of the log, and of the size of the database.
fn by_pragma(stock: &Connection) -> Value {
    let row = |sql: &str, column| stock.query_row(sql, [], move |row| row.get::<_, i64>(column));
    let noop = "PRAGMA wal_checkpoint(NOOP)";
    json!({
        "frames": row(noop, 1).unwrap(),
        "backfilled": row(noop, 2).unwrap(),
        "pages": row("PRAGMA page_count", 0).unwrap(),
        "page_size": row("PRAGMA page_size", 0).unwrap(),
    })
}

fn by_info(database: &Path) -> Value {
    let report = info(database);
    json!({
        "frames": report["log"]["frames"],
        "backfilled": report["log"]["backfilled"],
        "pages": report["database"]["pages"],
        "page_size": report["database"]["page_size"],
    })
}

#[test]
fn figures_agree_with_the_pragmas_of_stock_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let stock = connect(&database);
    let mut checked = 0;
    let mut agree = |what: &str| {
        assert_eq!(by_info(&database), by_pragma(&stock), "{what}");
        checked += 1;
    };
    agree("a new database");
    insert(&stock, 40);
    agree("a log that was never checkpointed");
    {
        let reader = Connection::open(&database).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let rows: i64 = reader
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 40);
        insert(&stock, 20);
        let _: i64 = stock
            .query_row("PRAGMA wal_checkpoint", [], |row| row.get(2))
            .unwrap();
        agree("a log of which a reader keeps a part");
        let report = info(&database);
        let (frames, backfilled) = (&report["log"]["frames"], &report["log"]["backfilled"]);
        assert!(backfilled.as_u64() < frames.as_u64(), "{report}");
    }
    let _: i64 = stock
        .query_row("PRAGMA wal_checkpoint", [], |row| row.get(2))
        .unwrap();
    agree("a log that is in the database");
    insert(&stock, 1);
    agree("a log that was restarted");
    let _: i64 = stock
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(2))
        .unwrap();
    agree("a log that was truncated");
    stock.execute_batch("DELETE FROM t; VACUUM").unwrap();
    agree("a database that has shrunk");
    assert_eq!(checked, 7);
}

#[test]
fn forecast_of_each_mode_agrees_with_stock_sqlite() {
    if !Need::Python.is_met("the forecast of checkpoints beside a reader in Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let stock = connect(&database);
    insert(&stock, 10);
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    insert(&stock, 10);
    let report = info(&database);
    let pid = reader.pid();
    for forecast in report["checkpoints"].as_array().unwrap() {
        let blocker = &forecast["blocked_by"];
        assert_eq!(blocker["holders"], json!([pid]), "{forecast}");
        assert_eq!(blocker["frame"], forecast["backfilled"], "{forecast}");
    }
    let copied: i64 = stock
        .query_row("PRAGMA wal_checkpoint", [], |row| row.get(2))
        .unwrap();
    assert_eq!(report["checkpoints"][0]["mode"], "passive");
    assert_eq!(report["checkpoints"][0]["backfilled"], copied);

    reader.run("db.execute('COMMIT')");
    for forecast in info(&database)["checkpoints"].as_array().unwrap() {
        assert_eq!(forecast["blocked_by"], Value::Null, "{forecast}");
    }
}

#[test]
fn process_that_pins_the_log_is_named_with_its_frame() {
    if !Need::Python.is_met("the holder of a read mark in Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut writer = Python::connect(&database);
    writer.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
    writer.run("print(db.execute('PRAGMA wal_autocheckpoint=0').fetchone())");
    writer.run("db.execute('CREATE TABLE t (x)')");
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    writer.run("db.execute('INSERT INTO t VALUES (1)')");
    writer.run("db.execute('BEGIN IMMEDIATE')");

    let output = walctl("info", &database, &[]);
    let text = text(&output)
        .replace(&reader.pid().to_string(), "READER")
        .replace(&writer.pid().to_string(), "WRITER");
    for line in [
        "  log        3 frames, 3 of them not yet in the database; 12.1 KiB on disk",
        "  READ(1)            2  shared  READER",
        "  passive   moves 2 frames, held back at frame 2 by process READER (READ(1))",
        "  restart   moves 2 frames, held back by process WRITER (WRITE)",
    ] {
        assert!(
            text.lines().any(|of| of == line),
            "{line:?} is not in\n{text}"
        );
    }
    assert!(text.contains("  recovery   about "), "{text}");
    assert_eq!(text.matches("python3 ").count(), 2, "{text}");
}

#[test]
fn log_without_an_index_is_read_itself() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let stock = connect(&database);
    insert(&stock, 30);
    let expected = by_pragma(&stock);
    let copy = folder.path().join("copy.db");
    fs::copy(&database, &copy).unwrap();
    fs::copy(
        folder.path().join("app.db-wal"),
        folder.path().join("copy.db-wal"),
    )
    .unwrap();
    assert_eq!(by_info(&copy), expected);
    let report = info(&copy);
    assert_eq!(report["index"], "missing");
    assert_eq!(report["slots"], json!([]));
}

#[test]
fn page_store_of_this_library_has_figures_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    let store = wal::Database::open_pages(&path).unwrap();
    let mut write = store.begin_write().unwrap();
    for _ in 0..9 {
        write.allocate().unwrap();
    }
    write.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let report = info(&path);
    assert_eq!(report["database"]["kind"], "page store");
    assert_eq!(report["database"]["pages"], 10);
    let held = report["slots"].as_array().unwrap().iter();
    let holders: Vec<&Value> = held
        .filter(|slot| slot["held"] != Value::Null)
        .map(|slot| &slot["holders"])
        .collect();
    assert_eq!(holders, [&json!([std::process::id()])]);
    drop(reader);
    store.close().unwrap();
}

#[test]
fn file_that_is_no_database_in_wal_mode_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    Connection::open(path("rollback.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    fs::write(path("empty.db"), b"").unwrap();
    fs::write(path("letter.txt"), b"Dear database,").unwrap();
    fs::write(path("letter.txt-wal"), b"not a log").unwrap();
    fs::write(path("letter.txt-shm"), [0xA5; 32768]).unwrap();
    let kind = |name| text(&walctl("info", &path(name), &[]));
    assert!(kind("rollback.db").contains("SQLite database in rollback mode"));
    assert!(kind("empty.db").contains("empty file"));
    assert!(kind("letter.txt").contains("neither a SQLite database nor a page store"));
    assert_eq!(info(&path("letter.txt"))["index"], "damaged");

    let output = walctl("info", &path("nothing.db"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("nothing.db: cannot find the database"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
    let output = walctl("info", folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn colours_are_for_terminals_and_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let _stock = connect(&database);
    let has_colour = |arguments: &[&str], no_color: Option<&str>| {
        let mut command = common::command(["info"]);
        command.arg(&database).args(arguments);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        text(&command.output().unwrap()).contains('\u{1b}')
    };
    assert!(!has_colour(&[], None), "a pipe is no terminal");
    assert!(has_colour(&["--color", "always"], None));
    assert!(!has_colour(&["--color", "never"], None));
    assert!(!has_colour(&["--json", "--color", "always"], None));
}
