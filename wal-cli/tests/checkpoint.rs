//! `walctl checkpoint` beside stock SQLite and this library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Python, reports, text, walctl};
use integration::needs::Need;
use rusqlite::Connection;
use serde_json::Value;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A database with commits in its log, held by a connection.
fn live(folder: &Path) -> (PathBuf, Connection) {
    let database = folder.join("app.db");
    let stock = Connection::open(&database).unwrap();
    let setup = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE t (x); INSERT INTO t VALUES (1)";
    stock.execute_batch(setup).unwrap();
    (database, stock)
}

fn checkpoint(database: &Path, arguments: &[&str]) -> (i32, Value) {
    let arguments = [&["--json"], arguments].concat();
    let output = walctl("checkpoint", database, &arguments);
    let report = reports(&output).pop();
    let report = report.unwrap_or_else(|| panic!("{output:?}"));
    (output.status.code().unwrap(), report)
}

#[test]
fn each_mode_leaves_what_it_promises() {
    for (mode, frames, is_cut) in [
        ("passive", 3, false),
        ("full", 3, false),
        ("restart", 0, false),
        ("truncate", 0, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (database, stock) = live(folder.path());
        let (code, report) = checkpoint(&database, &["--mode", mode]);
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["log_frames"], frames, "{report}");
        assert_eq!(report["backfilled"], report["log_frames"], "{report}");
        let log = fs::metadata(folder.path().join("app.db-wal")).unwrap();
        assert_eq!(log.len() == 0, is_cut, "{report}");
        assert_eq!(names(folder.path()), ["app.db", "app.db-shm", "app.db-wal"]);
        stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
        let rows: i64 = stock
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 2);
    }
}

#[test]
fn process_that_holds_it_back_is_named() {
    if !Need::Python.is_met("a checkpoint behind a reader in Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
    let arguments = ["--mode", "truncate", "--timeout", "50ms"];
    let (code, report) = checkpoint(&database, &arguments);
    assert_eq!(code, 3, "{report}");
    assert_eq!(
        (&report["log_frames"], &report["backfilled"]),
        (&4.into(), &3.into())
    );
    let held_back = &report["held_back_by"];
    assert_eq!(held_back["frame"], 3);
    assert_eq!(held_back["holders"][0]["pid"], reader.pid());
    let shown = text(&walctl("checkpoint", &database, &arguments));
    let line = format!(
        "held back by READ(1) at frame 3 of process {} (",
        reader.pid()
    );
    assert!(shown.contains(&line), "{shown}");

    reader.run("db.execute('COMMIT')");
    let (code, report) = checkpoint(&database, &arguments);
    assert_eq!(code, 0, "{report}");
}

#[test]
fn writer_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    stock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (code, report) = checkpoint(&database, &["--mode", "restart", "--timeout", "50ms"]);
    assert_eq!(code, 3, "{report}");
    assert_eq!(report["held_back_by"]["lock"], "WRITE");
    assert_eq!(
        report["held_back_by"]["holders"][0]["pid"],
        std::process::id()
    );
    stock.execute_batch("COMMIT").unwrap();
}

#[test]
fn database_that_no_process_uses_is_left_without_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    // As a crash leaves it.
    let copy = tempfile::tempdir().unwrap();
    for name in ["app.db", "app.db-wal"] {
        fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(stock);
    drop(database);
    let (code, report) = checkpoint(&copy.path().join("app.db"), &[]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(names(copy.path()), ["app.db"]);
    let stock = Connection::open(copy.path().join("app.db")).unwrap();
    let rows: i64 = stock
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn file_that_has_no_log_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollback.db");
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(stock);
    fs::write(folder.path().join("empty.db"), b"").unwrap();
    for name in ["rollback.db", "empty.db", "nothing.db"] {
        let output = walctl("checkpoint", &folder.path().join(name), &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(name), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    assert_eq!(names(folder.path()), ["empty.db", "rollback.db"]);
}
