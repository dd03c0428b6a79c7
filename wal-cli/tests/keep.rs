//! `walctl keep` beside unmodified applications.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::Python;
use integration::needs::Need;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longer than anything takes that a test waits for.
const LONG: Duration = Duration::from_secs(60);

/// `walctl keep`, and what it prints.
struct Keep {
    child: Child,
    lines: Receiver<String>,
}

impl Keep {
    fn start(database: &Path, arguments: &[&str]) -> Self {
        let mut command = common::command(["keep", "--json"]);
        command.args(arguments).arg(database).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let mut printed = printed.lines().map_while(Result::ok);
            printed.try_for_each(|line| send.send(line))
        });
        Keep { child, lines }
    }

    /// Reads events up to one that is called `name`.
    fn until(&mut self, name: &str) -> Value {
        let mut before = Vec::new();
        loop {
            let line = self.lines.recv_timeout(LONG);
            let line = line.unwrap_or_else(|e| panic!("{e} before `{name}`: {before:#?}"));
            let event: Value = serde_json::from_str(&line).unwrap();
            common::check(&event);
            if event["event"] == name {
                return event;
            }
            before.push(event);
        }
    }

    /// Asks it to end, as systemd does.
    fn stop(mut self) -> Value {
        kill(
            Pid::from_raw(self.child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        let stopped = self.until("stopped");
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0));
        stopped
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A database whose application never checkpoints.
fn application(folder: &Path) -> (PathBuf, Python) {
    let database = folder.join("app.db");
    let mut python = Python::connect(&database);
    python.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
    python.run("print(db.execute('PRAGMA wal_autocheckpoint=0').fetchone())");
    python.run("db.execute('CREATE TABLE t (x)')");
    (database, python)
}

/// Commits about a megabyte.
fn commit(python: &mut Python) {
    let insert = "db.execute('INSERT INTO t VALUES (randomblob(10000))')";
    python.run(&format!("for _ in range(80): {insert}"));
}

/// Waits until less than a megabyte of the log counts.
fn until_short(database: &Path) {
    let deadline = Instant::now() + LONG;
    loop {
        let report = common::reports(&common::walctl("info", database, &["--json"])).remove(0);
        let frames = report["log"]["frames"].as_u64().unwrap();
        if frames * 4120 < 1 << 20 {
            return;
        }
        assert!(Instant::now() < deadline, "{frames} frames are in the log");
    }
}

fn log_len(database: &Path) -> u64 {
    let log = database.with_extension("db-wal");
    fs::metadata(log).map_or(0, |log| log.len())
}

#[test]
fn log_of_an_application_that_never_checkpoints_stays_short() {
    if !Need::Python.is_met("a log that is kept short beside Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut python) = application(folder.path());
    for _ in 0..8 {
        commit(&mut python);
    }
    let grown = log_len(&database);
    assert!(grown > 8 << 20, "without it the log grows: {grown}");

    let mut keep = Keep::start(&database, &["--max-log", "4MiB"]);
    keep.until("watching");
    let first = keep.until("restarted");
    assert!(
        first["writers_held_up_s"].as_f64().unwrap() > 0.0,
        "{first}"
    );
    for _ in 0..3 {
        commit(&mut python);
        commit(&mut python);
        until_short(&database);
    }
    let stopped = keep.stop();
    let totals = &stopped["totals"];
    assert!(totals["restarts"].as_u64() >= Some(2), "{stopped}");
    assert!(totals["frames"].as_u64() > Some(10 * 80 * 3), "{stopped}");
    let shortened = log_len(&database);
    assert!(shortened < grown, "{shortened} of {grown}");
    let rows = python.run("print(db.execute('SELECT count(*) FROM t').fetchone()[0])");
    assert_eq!(rows, "1120");
    assert_eq!(
        python.run("print(db.execute('PRAGMA integrity_check').fetchone())"),
        "('ok',)"
    );
    // No side file where the applications have none.
    assert!(!folder.path().join("app.db-coord").exists());
}

#[test]
fn reader_that_keeps_the_log_long_is_named_once() {
    if !Need::Python.is_met("a log that a reader in Python keeps long") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut python) = application(folder.path());
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    commit(&mut python);
    let mut keep = Keep::start(&database, &["--max-log", "1MiB"]);
    let event = keep.until("held back");
    let held_back = &event["held_back_by"];
    assert_eq!(held_back["holders"][0]["pid"], reader.pid(), "{event}");
    assert_eq!(held_back["frame"], 2, "{event}");
    reader.run("db.execute('COMMIT')");
    keep.until("restarted");
    let stopped = keep.stop();
    assert!(stopped["totals"]["frames"].as_u64() > Some(80), "{stopped}");
}

#[test]
fn database_is_waited_for_and_found_again_when_it_is_replaced() {
    if !Need::Python.is_met("a database that Python makes and replaces") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut keep = Keep::start(&folder.path().join("app.db"), &["--max-log", "1MiB"]);
    let waiting = keep.until("waiting");
    assert!(
        waiting["reason"].as_str().unwrap().contains("app.db"),
        "{waiting}"
    );
    let (database, mut python) = application(folder.path());
    keep.until("watching");
    // A restored copy takes the name.
    python.run("db.close()");
    let restored = tempfile::tempdir_in(folder.path()).unwrap();
    let (copy, mut other) = application(restored.path());
    other.run("db.close()");
    fs::rename(copy, &database).unwrap();
    let mut python = Python::connect(&database);
    python.run("print(db.execute('PRAGMA wal_autocheckpoint=0').fetchone())");
    commit(&mut python);
    keep.until("restarted");
    keep.stop();
}

#[test]
fn keep_that_is_idle_uses_no_processor_time() {
    if !Need::Python.is_met("an idle keep beside Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, _python) = application(folder.path());
    let mut keep = Keep::start(&database, &[]);
    keep.until("watching");
    let switches = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", keep.child.id())).unwrap();
        let of_task = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        tasks.map(|task| of_task(task.unwrap())).sum::<u64>()
    };
    let before = switches();
    // The time in which it is watched, and no wait for something to happen.
    std::thread::sleep(Duration::from_millis(500));
    let woken = switches() - before;
    assert!(woken <= 5, "woken {woken} times in half a second");
    keep.stop();
}

#[test]
fn last_application_to_close_removes_the_log_beside_keep() {
    if !Need::Python.is_met("an application in Python that closes its database") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut python) = application(folder.path());
    let mut keep = Keep::start(&database, &["--max-log", "1MiB"]);
    keep.until("watching");
    for _ in 0..3 {
        commit(&mut python);
        until_short(&database);
    }
    // Only a checkpoint of `keep` could be open still, and closes as the last one then.
    python.run("db.close()");
    let deadline = Instant::now() + LONG;
    while database.with_extension("db-wal").exists() || database.with_extension("db-shm").exists() {
        assert!(Instant::now() < deadline, "the log is still there");
    }
    keep.stop();
}
