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

#[test]
fn screen_ends_with_its_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    let store = wal::Database::open_pages(&database).unwrap();
    let terminal = nix::pty::openpty(None, None).unwrap();
    // Else the screen would keep its own terminal.
    let on_exec = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&terminal.master, on_exec).unwrap();
    let mut command = command(["top"]);
    command.arg(&database).env("TERM", "xterm");
    let of_child = || Stdio::from(terminal.slave.try_clone().unwrap());
    let screen = command.stdin(of_child()).stdout(of_child());
    let mut child = screen.stderr(Stdio::null()).spawn().unwrap();
    drop(terminal.slave);
    drop(command);
    // It has drawn something, so it reads keys.
    let mut drawn = [0; 64];
    let mut of_screen = std::fs::File::from(terminal.master);
    assert!(std::io::Read::read(&mut of_screen, &mut drawn).unwrap() > 0);
    drop(of_screen);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline, "it runs on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    store.close().unwrap();
}
