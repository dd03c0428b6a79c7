//! `walctl wait` and `walctl tail` beside stock SQLite and this library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{reports, walctl};
use rusqlite::Connection;
use serde_json::Value;

/// Longer than anything takes that a test waits for.
const LONG: Duration = Duration::from_secs(60);

fn live(folder: &Path) -> (PathBuf, Connection) {
    let database = folder.join("app.db");
    let stock = Connection::open(&database).unwrap();
    let setup = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE t (x); INSERT INTO t VALUES (1)";
    stock.execute_batch(setup).unwrap();
    (database, stock)
}

/// A command that prints one report after the other.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(arguments: &[&str], database: &Path) -> Self {
        let mut command = common::command(arguments.iter().copied());
        command
            .args(["--json"])
            .arg(database)
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let mut printed = printed.lines().map_while(Result::ok);
            printed.try_for_each(|line| send.send(line))
        });
        Following { child, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(LONG).expect("it prints a report");
        let report = serde_json::from_str(&line).unwrap();
        common::check(&report);
        report
    }

    /// Waits until it sleeps, after which it sees each commit.
    fn until_asleep(&self) {
        let deadline = Instant::now() + LONG;
        let channel = format!("/proc/{}/wchan", self.child.id());
        while !fs::read_to_string(&channel).unwrap().contains("poll") {
            assert!(Instant::now() < deadline, "it does not wait");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commit_of_stock_sqlite_ends_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let mut waiting = Following::start(&["wait"], &database);
    waiting.until_asleep();
    // None of these is a commit.
    stock
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let rows: i64 = stock
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
    assert!(waiting.child.try_wait().unwrap().is_none());
    stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
    let report = waiting.next();
    assert_eq!((&report["frame"], &report["pages"]), (&1.into(), &2.into()));
    assert_eq!(waiting.child.wait().unwrap().code(), Some(0));
}

#[test]
fn commit_of_this_library_ends_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    let store = wal::Database::open_pages(&path).unwrap();
    let mut waiting = Following::start(&["wait"], &path);
    waiting.until_asleep();
    let mut write = store.begin_write().unwrap();
    write.allocate().unwrap();
    write.commit().unwrap();
    assert!(waiting.next()["frame"].as_u64() > Some(0));
    assert_eq!(waiting.child.wait().unwrap().code(), Some(0));
    store.close().unwrap();
}

#[test]
fn log_that_is_removed_and_made_again_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let waiting = Following::start(&["wait"], &database);
    waiting.until_asleep();
    // The last closer removes the log and the index.
    drop(stock);
    assert!(!folder.path().join("app.db-wal").exists());
    let stock = Connection::open(&database).unwrap();
    stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
    assert!(waiting.next()["frame"].as_u64() > Some(0));
}

#[test]
fn wait_without_a_commit_ends_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let output = walctl("wait", &database, &["--timeout", "20ms"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    drop(stock);
    let rollback = folder.path().join("rollback.db");
    let stock = Connection::open(&rollback).unwrap();
    stock.execute_batch("CREATE TABLE t (x)").unwrap();
    let output = walctl("wait", &rollback, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("rollback mode"), "{message}");
}

#[test]
fn tail_lists_the_commits_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let insert = "INSERT INTO t VALUES (randomblob(10000))";
    stock.execute(insert, []).unwrap();
    let output = walctl("tail", &database, &["--json"]);
    let frames = |reports: &[Value]| -> Vec<(u64, u64, u64)> {
        let figure = |report: &Value, name: &str| report[name].as_u64().unwrap();
        let of = |of| {
            (
                figure(of, "first_frame"),
                figure(of, "frames"),
                figure(of, "pages"),
            )
        };
        reports.iter().map(of).collect()
    };
    let all = reports(&output);
    assert_eq!(frames(&all), [(1, 2, 2), (3, 1, 2), (4, 4, 4)]);
    let bytes: u64 = all
        .iter()
        .map(|report| report["bytes"].as_u64().unwrap())
        .sum();
    let log = fs::metadata(folder.path().join("app.db-wal")).unwrap();
    assert_eq!(bytes + 32, log.len());
    let last = walctl("tail", &database, &["--json", "-n", "1"]);
    assert_eq!(reports(&last), all[2..]);
}

#[test]
fn tail_follows_each_commit_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let tail = Following::start(&["tail", "--follow", "-n", "1"], &database);
    assert_eq!(tail.next()["first_frame"], 3);
    for frame in 4..8 {
        stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
        let commit = tail.next();
        assert_eq!(
            (&commit["event"], &commit["first_frame"]),
            (&"commit".into(), &frame.into())
        );
    }
    stock
        .execute_batch("PRAGMA wal_checkpoint(RESTART)")
        .unwrap();
    stock.execute("INSERT INTO t VALUES (3)", []).unwrap();
    let restart = tail.next();
    assert_eq!(
        (&restart["event"], &restart["missed"]),
        (&"restart".into(), &0.into())
    );
    let commit = tail.next();
    assert_eq!(
        (&commit["event"], &commit["first_frame"]),
        (&"commit".into(), &1.into())
    );
}

#[test]
fn wait_that_is_idle_uses_no_processor_time() {
    let folder = tempfile::tempdir().unwrap();
    let (database, _stock) = live(folder.path());
    let waiting = Following::start(&["wait"], &database);
    waiting.until_asleep();
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", waiting.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = switches();
    // The time in which it is watched, and no wait for something to happen.
    std::thread::sleep(Duration::from_millis(500));
    let woken = switches() - before;
    assert!(woken <= 3, "woken {woken} times in half a second");
}

#[test]
fn commit_before_a_truncated_log_ends_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (database, stock) = live(folder.path());
    let mut waiting = Following::start(&["wait"], &database);
    waiting.until_asleep();
    // It sees the database only after both.
    let pid = nix::unistd::Pid::from_raw(waiting.child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
    stock
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    let report = waiting.next();
    assert_eq!(report["frame"], 0, "{report}");
    assert_eq!(waiting.child.wait().unwrap().code(), Some(0));
}
