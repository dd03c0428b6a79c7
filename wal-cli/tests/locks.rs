//! `walctl locks` beside stock SQLite and this library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Python, reports, text, walctl};
use integration::needs::Need;
use serde_json::{Value, json};

fn locks(database: &Path) -> Value {
    let output = walctl("locks", database, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    reports(&output).remove(0)
}

/// The locks as `file lock mode kind pid`.
fn lines(report: &Value) -> Vec<String> {
    let word = |value: &Value| value.to_string().trim_matches('"').to_owned();
    let locks = report["locks"].as_array().unwrap().iter();
    let fields = ["file", "lock", "mode", "kind", "pid"];
    locks
        .map(|lock| fields.map(|field| word(&lock[field])).join(" "))
        .collect()
}

#[test]
fn each_lock_of_stock_sqlite_is_listed_with_its_process() {
    if !Need::Python.is_met("the locks of a writer in Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut python = Python::connect(&database);
    python.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
    python.run("db.execute('CREATE TABLE t (x)')");
    let pid = python.pid();
    let idle = ["database SHARED shared POSIX", "shm DMS shared POSIX"];
    let expected = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|line| format!("{line} {pid}")).collect()
    };
    assert_eq!(lines(&locks(&database)), expected(&idle));

    python.run("db.execute('BEGIN IMMEDIATE')");
    let report = locks(&database);
    let writing = [
        "database SHARED shared POSIX",
        "shm WRITE exclusive POSIX",
        "shm READ(1) shared POSIX",
        "shm DMS shared POSIX",
    ];
    assert_eq!(lines(&report), expected(&writing));
    assert_eq!(report["locks"][2]["frame"], 2);
    assert_eq!(report["locks"][1]["first_byte"], 120);
    let command = report["processes"][0]["command"].as_str().unwrap();
    assert!(command.contains("python3"), "{command}");
    assert!(report["processes"][0]["started"].is_string());
}

#[test]
fn lock_of_an_open_file_description_is_found_by_its_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    let store = wal::Database::open_pages(&database).unwrap();
    let write = store.begin_write().unwrap();
    let report = locks(&database);
    let pid = std::process::id();
    let lines = lines(&report);
    for line in [
        "shm WRITE exclusive OFD",
        "shm DMS shared OFD",
        "coord ATTACHED shared OFD",
    ] {
        let line = format!("{line} {pid}");
        assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    }
    assert_eq!(report["unseen"], json!([]));
    drop(write);
    store.close().unwrap();
}

#[test]
fn writer_that_waits_in_the_queue_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    let store = wal::Database::open_pages(&database).unwrap();
    let write = store.begin_write().unwrap();
    let waiting = store.clone();
    let thread = std::thread::spawn(move || waiting.begin_write().map(drop));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let report = loop {
        let report = locks(&database);
        if report["waiting"] != json!([]) {
            break report;
        }
        assert!(std::time::Instant::now() < deadline, "{report}");
    };
    assert_eq!(report["waiting"][0]["pid"], std::process::id());
    let shown = text(&walctl("locks", &database, &[]));
    assert!(shown.contains("Writers that wait in the queue"), "{shown}");
    drop(write);
    thread.join().unwrap().unwrap();
    store.close().unwrap();
}

#[test]
fn database_that_no_process_uses_has_no_locks() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    wal::Database::open_pages(&database)
        .unwrap()
        .close()
        .unwrap();
    assert_eq!(lines(&locks(&database)), [""; 0]);
    assert!(text(&walctl("locks", &database, &[])).contains("no locks"));
}

#[test]
fn command_line_cannot_steer_the_terminal() {
    if !Need::Python.is_met("a process with a hostile command line") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut python = Python::connect_with(&database, &["-X", "\u{1b}[2Jgone"]);
    python.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
    python.run("db.execute('CREATE TABLE t (x)')");
    let shown = text(&walctl("locks", &database, &["--color", "never"]));
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert!(shown.contains("\\u{1b}[2Jgone"), "{shown:?}");
}
