//! `walctl top` without a terminal, beside stock SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::{Python, check, command, reports, text, walctl};
use integration::needs::Need;
use serde_json::{Value, json};

#[test]
fn looks_show_the_reader_that_pins_the_log() {
    if !Need::Python.is_met("the readers and writers of top in Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut writer = Python::connect(&database);
    writer.run("db.execute('PRAGMA journal_mode=wal'); db.execute('CREATE TABLE t(x)')");
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT * FROM t').fetchall())");
    writer.run("db.execute('INSERT INTO t VALUES (1)'); db.execute('BEGIN IMMEDIATE')");

    let output = walctl(
        "top",
        &database,
        &["--json", "--count", "2", "--interval", "50ms"],
    );
    let [first, second] = &reports(&output)[..] else {
        panic!("two looks: {output:?}")
    };
    assert_eq!(first["rates"], Value::Null);
    assert_eq!(second["rates"]["commits"], 0.0);
    let roles = second["roles"].as_array().unwrap();
    let of = |role: &str, pid: u32| {
        let mut roles = roles.iter();
        roles.any(|row| row["role"] == role && row["pid"] == json!(pid))
    };
    assert!(
        of("writer", writer.pid()) && of("reader", reader.pid()),
        "{roles:?}"
    );
    let blocker = &second["figures"]["checkpoints"][0]["blocked_by"];
    assert_eq!(blocker["holders"], json!([reader.pid()]));

    let output = walctl("top", &database, &["--count", "1"]);
    let line = text(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains("checkpoint held back by READ(1)"), "{line}");
}

#[test]
fn looks_go_on_while_the_database_is_replaced() {
    if !Need::Python.is_met("the databases of top, made by Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let make = |rows: u32| {
        let mut python = Python::connect(&database);
        python.run("db.execute('PRAGMA journal_mode=wal'); db.execute('CREATE TABLE t(x)')");
        python.run(&format!(
            "[db.execute('INSERT INTO t VALUES (randomblob(5000))') for _ in range({rows})]"
        ));
        python
    };
    let python = make(1);
    let mut child = command(["top", "--json", "--interval", "20ms", "--count", "3000"])
        .arg(&database)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |condition: &dyn Fn(&Value) -> bool| {
        lines.any(|line| {
            let report: Value = serde_json::from_str(&line.unwrap()).unwrap();
            check(&report);
            condition(&report)
        })
    };
    assert!(until(&|report| report["figures"]["index"] == "valid"));
    drop(python);
    for file in ["app.db", "app.db-wal", "app.db-shm"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let _python = make(50);
    let is_new = |report: &Value| report["figures"]["log"]["frames"].as_u64() > Some(50);
    assert!(until(&is_new), "3000 looks show the new database");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn missing_database_is_an_error_at_the_first_look() {
    let folder = tempfile::tempdir().unwrap();
    let output = walctl("top", &folder.path().join("app.db"), &["--count", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
