//! `walctl doctor`: each of its findings is made with real processes and found, and healthy
//! databases have none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::{Python, reports, text, walctl};
use integration::disk::{FileSystem, fill, with_disk};
use integration::needs::Need;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;
use wal_core::storage::beside;

/// What the findings of the test machine itself are, and no fault of a database.
const OF_MACHINE: [&str; 2] = ["old-sqlite", "disk-nearly-full"];

struct Scene {
    _folder: tempfile::TempDir,
    database: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        Scene {
            _folder: folder,
            database,
        }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        beside(&self.database, suffix)
    }

    /// A connection of stock SQLite in this process that makes no checkpoints.
    fn stock(&self) -> Connection {
        stock(&self.database)
    }

    /// A process with a connection in WAL mode that has written.
    fn python(&self) -> Python {
        let mut python = Python::connect(&self.database);
        python.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
        python.run("db.execute('PRAGMA wal_autocheckpoint=0')");
        python.run("db.execute('CREATE TABLE IF NOT EXISTS t (x)')");
        python.run("db.execute('INSERT INTO t VALUES (1)')");
        python
    }

    fn doctor(&self, arguments: &[&str]) -> Diagnosis {
        Diagnosis::of(&self.database, arguments)
    }
}

fn stock(database: &Path) -> Connection {
    let stock = Connection::open(database).unwrap();
    let setup = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (0)";
    stock.execute_batch(setup).unwrap();
    stock
}

/// What doctor has said.
struct Diagnosis {
    output: Output,
    report: Value,
}

impl Diagnosis {
    fn of(database: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = walctl("doctor", database, &arguments);
        let [report] = &reports(&output)[..] else {
            panic!("one report: {output:?}")
        };
        let report = report.clone();
        Diagnosis { output, report }
    }

    /// The names of the findings, without those of the machine.
    fn names(&self) -> Vec<&str> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        findings
            .map(|finding| finding["name"].as_str().unwrap())
            .filter(|name| !OF_MACHINE.contains(name))
            .collect()
    }

    #[track_caller]
    fn finding(&self, name: &str) -> &Value {
        let mut findings = self.report["findings"].as_array().unwrap().iter();
        let found = findings.find(|finding| finding["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {:#}", self.report))
    }

    /// Fails unless the finding is there with this severity, about these processes, and the
    /// exit code is that of the worst one.
    #[track_caller]
    fn has(&self, name: &str, severity: &str, pids: &[u32]) -> &Value {
        let finding = self.finding(name);
        assert_eq!(finding["severity"], severity, "{finding:#}");
        let expected = serde_json::json!(pids);
        assert_eq!(finding["pids"], expected, "{finding:#}");
        let code = match self.report["verdict"].as_str().unwrap() {
            "danger" => 5,
            "warning" => 4,
            _ => 0,
        };
        assert_eq!(self.output.status.code(), Some(code), "{:#}", self.report);
        for field in ["what", "why", "advice"] {
            assert_ne!(finding[field], "", "{finding:#}");
        }
        finding
    }

    #[track_caller]
    fn lacks(&self, name: &str) {
        assert!(!self.names().contains(&name), "{:#}", self.report);
    }

    #[track_caller]
    fn is_healthy(&self) {
        assert_eq!(self.names(), [""; 0], "{:#}", self.report);
    }
}

fn python_is_there(unchecked: &str) -> bool {
    Need::Python.is_met(unchecked)
}

/// The process after it has ended, and was waited for.
fn signal(python: &Python, signal: Signal) {
    kill(Pid::from_raw(python.pid().try_into().unwrap()), signal).unwrap();
}

/// Waits until the process has the state `T`.
fn wait_until_stopped(pid: u32) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('T')
        {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{stat}");
        std::thread::yield_now();
    }
}

/// Copies the database and its log as a crash would leave them.
fn crash_copy(scene: &Scene) -> Scene {
    let copy = Scene::new();
    for suffix in ["", "-wal"] {
        fs::copy(scene.file(suffix), copy.file(suffix)).unwrap();
    }
    copy
}

#[test]
fn healthy_database_at_rest_has_no_finding() {
    let scene = Scene::new();
    drop(scene.stock());
    let diagnosis = scene.doctor(&[]);
    diagnosis.is_healthy();
    assert_eq!(diagnosis.report["users"], 0);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("pages");
    wal::Database::open_pages(&store).unwrap().close().unwrap();
    Diagnosis::of(&store, &[]).is_healthy();
}

/// Between two commits of a busy process: without pauses a log may grow for want of a moment
/// to restart it.
const PAUSE: Duration = Duration::from_millis(5);

/// Stock SQLite in three processes and this library read and write, open and close.
#[test]
fn busy_healthy_database_has_no_finding() {
    if !python_is_there("false alarms beside writers in Python") {
        return;
    }
    const LOOKS: u32 = 30;
    let scene = Scene::new();
    drop(scene.stock());
    let ends = AtomicBool::new(false);
    let mut children: Vec<std::process::Child> =
        (0..2).map(|_| busy_python(&scene.database)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let stock = Connection::open(&scene.database).unwrap();
                stock.busy_timeout(Duration::from_secs(60)).unwrap();
                for _ in 0..50 {
                    stock.execute("INSERT INTO t VALUES (2)", []).unwrap();
                    std::thread::sleep(PAUSE);
                }
            }
        });
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let ours = wal::Database::open(&scene.database).unwrap();
                for _ in 0..50 {
                    let mut write = ours.begin_write().unwrap();
                    for page in [1, 2] {
                        write.page_mut(wal::PageNo::new(page).unwrap()).unwrap();
                    }
                    write.commit().unwrap();
                    drop(ours.begin_read().unwrap());
                    std::thread::sleep(PAUSE);
                }
                ours.close().unwrap();
            }
        });
        let looks = std::panic::catch_unwind(|| {
            let mut busy = 0;
            for _ in 0..LOOKS {
                let diagnosis = scene.doctor(&[]);
                diagnosis.is_healthy();
                busy += u32::from(diagnosis.report["users"].as_u64() >= Some(2));
            }
            assert!(
                busy > LOOKS / 2,
                "{busy} of {LOOKS} looks have seen two users"
            );
        });
        ends.store(true, Ordering::Relaxed);
        for child in &mut children {
            let _ = child.kill();
            let _ = child.wait();
        }
        looks.unwrap();
    });
    let stock = Connection::open(&scene.database).unwrap();
    let check = stock.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok");
}

fn busy_python(database: &Path) -> std::process::Child {
    const BUSY: &str = "
import sqlite3, sys, time
up = True
while True:
    db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
    for i in range(50):
        db.execute('INSERT INTO t VALUES (zeroblob(500))')
        db.execute('SELECT count(*) FROM t').fetchone()
        if i == 0 and up: print('up', flush=True); up = False
        time.sleep(float(sys.argv[2]))
    db.execute('DELETE FROM t')
    db.close()
";
    let mut command = Command::new("python3");
    command.args(["-c", BUSY]).arg(database);
    command.arg(PAUSE.as_secs_f64().to_string());
    let mut python = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 2];
    python.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    python
}

#[test]
fn idle_users_of_each_kind_are_no_finding() {
    if !python_is_there("false alarms about idle users") {
        return;
    }
    let scene = Scene::new();
    let mut writer = scene.python();
    // It has read nothing, so it holds no lock.
    let _opened = Python::connect(&scene.database);
    let ours = wal::Database::open(&scene.database).unwrap();
    scene.doctor(&[]).is_healthy();
    ours.close().unwrap();
    // Descriptors of this library are kept without locks.
    let diagnosis = scene.doctor(&[]);
    diagnosis.is_healthy();
    assert_eq!(
        diagnosis.output.status.code(),
        Some(4 * i32::from(has_old_sqlite(&diagnosis)))
    );
    // Those of an index that was removed since, too.
    writer.run("db.close()");
    assert!(!scene.file("-shm").exists());
    scene.doctor(&[]).is_healthy();
}

fn has_old_sqlite(diagnosis: &Diagnosis) -> bool {
    let findings = diagnosis.report["findings"].as_array().unwrap();
    findings
        .iter()
        .any(|finding| finding["name"] == "old-sqlite")
}

#[test]
fn process_that_closed_the_database_file_has_lost_its_locks() {
    if !python_is_there("lost locks") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    scene.doctor(&[]).lacks("lost-locks");
    python.run("import sys; open(sys.argv[1], 'rb').close()");
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("lost-locks", "danger", &[python.pid()]);
    let what = finding["what"].as_str().unwrap();
    assert!(
        what.contains("SHARED on the database") && !what.contains("DMS"),
        "{what}"
    );
    python.run("open(sys.argv[1] + '-shm', 'rb').close()");
    let diagnosis = scene.doctor(&[]);
    let what = diagnosis.finding("lost-locks")["what"].to_string();
    assert!(what.contains("SHARED") && what.contains("DMS"), "{what}");
}

#[test]
fn process_that_lost_its_dms_alone_is_found() {
    if !python_is_there("a lost DMS") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    python.run("import sys; open(sys.argv[1] + '-shm', 'rb').close()");
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("lost-locks", "danger", &[python.pid()]);
    assert!(
        finding["what"]
            .as_str()
            .unwrap()
            .contains("DMS on the index")
    );
}

#[test]
fn child_of_a_fork_is_not_accused_of_lost_locks() {
    if !python_is_there("descriptors that a fork has copied") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    let child: u32 = {
        let fork =
            "import os, time; child = os.fork(); time.sleep(600) if child == 0 else print(child)";
        python.run(fork).parse().unwrap()
    };
    let diagnosis = scene.doctor(&[]);
    kill(Pid::from_raw(child.try_into().unwrap()), Signal::SIGKILL).unwrap();
    diagnosis.lacks("lost-locks");
    diagnosis.has("inherited-files", "note", &[child]);
}

/// A program that copies the files has them open without a lock, as a child has for a moment
/// that is about to execute another program.
#[test]
fn files_open_for_moments_are_not_accused() {
    if !python_is_there("a process that has the files open for moments") {
        return;
    }
    const MOMENTS: &str = "
import random, sys, time
print('up', flush=True)
while True:
    files = [open(sys.argv[1] + suffix, 'r+b') for suffix in ('', '-wal', '-shm')]
    time.sleep(random.random() * 0.02)
    for file in files: file.close()
    time.sleep(random.random() * 0.06)
";
    let scene = Scene::new();
    let _user = scene.python();
    let mut command = Command::new("python3");
    command.args(["-c", MOMENTS]).arg(&scene.database);
    let mut moments = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 2];
    moments
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut up)
        .unwrap();
    let healthy = (0..16).filter(|_| scene.doctor(&[]).names().is_empty());
    let healthy = healthy.count();
    moments.kill().unwrap();
    moments.wait().unwrap();
    // All six looks of one fall into such moments once in some thousand times.
    assert!(healthy >= 15, "{healthy} of 16");
}

#[test]
fn deleted_log_and_index_are_found_and_two_generations() {
    if !python_is_there("a log that was deleted under its user") {
        return;
    }
    let scene = Scene::new();
    let mut old = scene.python();
    // Another last user takes itself for the last one, and deletes both.
    old.run("import sys; open(sys.argv[1], 'rb').close()");
    scene.python().run("db.close()");
    let diagnosis = scene.doctor(&[]);
    diagnosis.has("deleted-log", "danger", &[old.pid()]);
    diagnosis.has("deleted-index", "danger", &[old.pid()]);
    diagnosis.lacks("two-generations");
    let new = scene.python();
    let diagnosis = scene.doctor(&[]);
    diagnosis.has("two-generations", "danger", &[old.pid(), new.pid()]);
    let advice = diagnosis.finding("deleted-log")["advice"].to_string();
    assert!(advice.contains("--from-pid"), "{advice}");
}

#[test]
fn deleted_or_replaced_database_is_found() {
    if !python_is_there("a database that was deleted under its user") {
        return;
    }
    let scene = Scene::new();
    let python = scene.python();
    let copy = scene.file("-copy");
    fs::copy(&scene.database, &copy).unwrap();
    fs::rename(&copy, &scene.database).unwrap();
    scene
        .doctor(&[])
        .has("deleted-database", "danger", &[python.pid()]);
    fs::remove_file(&scene.database).unwrap();
    scene
        .doctor(&[])
        .has("deleted-database", "danger", &[python.pid()]);
}

#[test]
fn log_beside_a_foreign_database_is_found() {
    let (ours, other) = (Scene::new(), Scene::new());
    let stock = ours.stock();
    stock
        .execute_batch("CREATE TABLE more (x); CREATE TABLE most (x)")
        .unwrap();
    let copy = crash_copy(&ours);
    copy.doctor(&[]).is_healthy();
    // Each connection counts its first change of page 1 alone.
    for number in 0..5 {
        let others = other.stock();
        others
            .execute_batch(&format!("CREATE TABLE t{number} (x)"))
            .unwrap();
    }
    fs::copy(&other.database, &copy.database).unwrap();
    copy.doctor(&[]).has("foreign-log", "danger", &[]);
}

#[test]
fn log_of_another_page_size_is_found() {
    let (ours, other) = (Scene::new(), Scene::new());
    let _stock = ours.stock();
    let copy = crash_copy(&ours);
    let others = Connection::open(&other.database).unwrap();
    others
        .execute_batch("PRAGMA page_size = 1024; CREATE TABLE t (x)")
        .unwrap();
    fs::copy(&other.database, &copy.database).unwrap();
    let diagnosis = copy.doctor(&[]);
    let finding = diagnosis.has("foreign-log", "danger", &[]);
    assert!(
        finding["what"].as_str().unwrap().contains("page size"),
        "{finding}"
    );
}

#[test]
fn log_beside_an_empty_database_is_found() {
    let scene = Scene::new();
    let _stock = scene.stock();
    let copy = crash_copy(&scene);
    fs::write(&copy.database, "").unwrap();
    copy.doctor(&[]).has("empty-database", "danger", &[]);
}

#[test]
fn first_commit_of_a_page_store_beside_an_empty_file_is_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    let store = wal::Database::open_pages(&database).unwrap();
    store.begin_write().unwrap().commit().unwrap();
    Diagnosis::of(&database, &[]).is_healthy();
    store.close().unwrap();
}

#[test]
fn log_replaced_in_place_under_its_index_is_found() {
    if !python_is_there("a log that was written over") {
        return;
    }
    let (scene, other) = (Scene::new(), Scene::new());
    let _python = scene.python();
    let _stock = other.stock();
    let bytes = fs::read(other.file("-wal")).unwrap();
    fs::File::options()
        .write(true)
        .open(scene.file("-wal"))
        .unwrap()
        .write_all(&bytes)
        .unwrap();
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("foreign-log", "danger", &[]);
    assert!(
        finding["what"].as_str().unwrap().contains("salts"),
        "{finding}"
    );
}

#[test]
fn log_without_a_database_is_found() {
    let scene = Scene::new();
    let _stock = scene.stock();
    let copy = crash_copy(&scene);
    fs::remove_file(&copy.database).unwrap();
    copy.doctor(&[]).has("log-without-database", "danger", &[]);
    fs::remove_file(copy.file("-wal")).unwrap();
    let output = walctl("doctor", &copy.database, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn index_without_its_log_is_found() {
    let scene = Scene::new();
    let stock = scene.stock();
    let copy = crash_copy(&scene);
    fs::copy(scene.file("-shm"), copy.file("-shm")).unwrap();
    copy.doctor(&[]).is_healthy();
    fs::remove_file(copy.file("-wal")).unwrap();
    copy.doctor(&[]).has("missing-log", "warning", &[]);
    stock
        .query_row("PRAGMA wal_checkpoint", [], |_| Ok(()))
        .unwrap();
    fs::copy(scene.file("-shm"), copy.file("-shm")).unwrap();
    copy.doctor(&[]).has("missing-log", "note", &[]);
}

#[test]
fn log_that_was_cut_under_its_index_is_found() {
    if !python_is_there("a log that was cut") {
        return;
    }
    let scene = Scene::new();
    let _python = scene.python();
    let log = fs::File::options()
        .write(true)
        .open(scene.file("-wal"))
        .unwrap();
    let len = log.metadata().unwrap().len();
    log.set_len(len - 1).unwrap();
    scene.doctor(&[]).has("log-cut", "danger", &[]);
    log.set_len(len).unwrap();
    scene.doctor(&[]).lacks("log-cut");
}

#[test]
fn unsound_headers_of_the_index_are_found() {
    if !python_is_there("a damaged index") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    let mut index = fs::File::options()
        .write(true)
        .open(scene.file("-shm"))
        .unwrap();
    let mut store = |offset| {
        index.seek(SeekFrom::Start(offset)).unwrap();
        index.write_all(&[0x5a; 4]).unwrap();
    };
    // The counter of commits in the first copy, then in the second one.
    store(8);
    scene.doctor(&[]).has("interrupted-commit", "note", &[]);
    store(48 + 8);
    scene.doctor(&[]).has("damaged-index", "warning", &[]);
    python.run("db.execute('SELECT count(*) FROM t').fetchone()");
    scene.doctor(&[]).is_healthy();
}

#[test]
fn long_log_names_the_reader_that_pins_it() {
    if !python_is_there("a reader that pins the log") {
        return;
    }
    let scene = Scene::new();
    let stock = scene.stock();
    let mut reader = Python::connect(&scene.database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    grow(&stock, 4100);
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("long-log", "warning", &[reader.pid()]);
    let what = finding["what"].as_str().unwrap();
    assert!(what.contains("READ(") && what.contains("frame"), "{what}");
    reader.run("db.execute('COMMIT')");
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("long-log", "warning", &[]);
    assert!(
        finding["what"]
            .as_str()
            .unwrap()
            .contains("no process makes one"),
        "{finding}"
    );
    stock
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    scene.doctor(&[]).is_healthy();
}

/// Several processes hold WRITE in turn, beside a long log that is in the database. None of
/// them commits, so the log is not restarted.
#[test]
fn long_log_accuses_no_writer_that_takes_its_turn() {
    if !python_is_there("writers that take turns beside a long log") {
        return;
    }
    const TURNS: &str = "exec(\"import threading\\ndef work():\\n c = sqlite3.connect(path, \
         isolation_level=None, timeout=60)\\n while True:\\n  c.execute('BEGIN IMMEDIATE')\\n  \
         c.execute('ROLLBACK')\\nthreading.Thread(target=work, daemon=True).start()\")";
    let scene = Scene::new();
    let stock = scene.stock();
    grow(&stock, 4100);
    stock
        .query_row("PRAGMA wal_checkpoint", [], |_| Ok(()))
        .unwrap();
    let writers: Vec<Python> = (0..4)
        .map(|_| {
            let mut writer = Python::connect(&scene.database);
            writer.run(&format!("path = {:?}", scene.database));
            writer.run(TURNS);
            writer
        })
        .collect();
    for _ in 0..5 {
        let diagnosis = scene.doctor(&[]);
        let finding = diagnosis.has("long-log", "note", &[]);
        let what = finding["what"].as_str().unwrap();
        assert!(!what.contains("WRITE"), "{what}");
        diagnosis.lacks("long-write");
    }
    drop(writers);
}

/// Adds about so many frames to the log.
fn grow(stock: &Connection, frames: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO t SELECT zeroblob(4000) FROM n";
    stock.execute(sql, [frames]).unwrap();
}

#[test]
fn long_file_with_a_short_log_is_a_note() {
    let scene = Scene::new();
    let stock = scene.stock();
    grow(&stock, 17_000);
    stock
        .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
        .unwrap();
    stock.execute("INSERT INTO t VALUES (1)", []).unwrap();
    let diagnosis = scene.doctor(&[]);
    diagnosis.has("long-log-file", "note", &[]);
    diagnosis.lacks("long-log");
}

#[test]
fn reader_of_an_old_state_is_found_and_its_age_is_honest() {
    if !python_is_there("a reader of an old state") {
        return;
    }
    let scene = Scene::new();
    let stock = scene.stock();
    let mut reader = Python::connect(&scene.database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    let old = ["--old-reader", "100ms"];
    scene.doctor(&old).lacks("old-reader");
    stock.execute("INSERT INTO t VALUES (1)", []).unwrap();
    let diagnosis = scene.doctor(&old);
    let finding = diagnosis.has("old-reader", "warning", &[reader.pid()]);
    assert!(
        finding["what"].as_str().unwrap().contains("for at least"),
        "{finding}"
    );
    scene.doctor(&[]).lacks("old-reader");
    // The log was written long ago, so the reader has begun before that.
    let past = SystemTime::now() - Duration::from_secs(3600);
    let log = fs::File::options()
        .write(true)
        .open(scene.file("-wal"))
        .unwrap();
    log.set_modified(past).unwrap();
    scene
        .doctor(&[])
        .has("old-reader", "warning", &[reader.pid()]);
    reader.run("db.execute('COMMIT')");
    scene.doctor(&[]).lacks("old-reader");
}

#[test]
fn stopped_holders_are_found() {
    if !python_is_there("stopped processes") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    signal(&python, Signal::SIGSTOP);
    wait_until_stopped(python.pid());
    scene
        .doctor(&[])
        .has("stopped-holder", "note", &[python.pid()]);
    signal(&python, Signal::SIGCONT);
    python.run("db.execute('BEGIN IMMEDIATE')");
    scene.doctor(&[]).lacks("stopped-holder");
    signal(&python, Signal::SIGSTOP);
    wait_until_stopped(python.pid());
    let diagnosis = scene.doctor(&[]);
    signal(&python, Signal::SIGCONT);
    let finding = diagnosis.has("stopped-holder", "warning", &[python.pid()]);
    assert!(
        finding["what"].as_str().unwrap().contains("WRITE"),
        "{finding}"
    );
}

#[test]
fn writer_that_holds_write_for_long_is_found() {
    if !python_is_there("a writer that holds WRITE") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    python.run("db.execute('BEGIN IMMEDIATE')");
    scene
        .doctor(&[])
        .has("long-write", "warning", &[python.pid()]);
    python.run("db.execute('COMMIT')");
    scene.doctor(&[]).is_healthy();
}

#[test]
fn version_of_sqlite_is_that_of_the_process() {
    if !python_is_there("the version of SQLite in a process") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    let version = python.run("print(sqlite3.sqlite_version)");
    let parts: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    let is_old = match parts[..] {
        [3, 44, patch] => patch < 6,
        [3, 50, patch] => patch < 7,
        _ => parts < vec![3, 51, 3],
    };
    let diagnosis = scene.doctor(&[]);
    assert_eq!(has_old_sqlite(&diagnosis), is_old, "{version}");
    if is_old {
        let finding = diagnosis.has("old-sqlite", "warning", &[python.pid()]);
        let what = finding["what"].as_str().unwrap();
        assert!(what.contains(&format!("SQLite {version} (/")), "{what}");
    }
}

/// The program of this test has a current SQLite in it.
#[test]
fn current_sqlite_in_the_program_itself_is_no_finding() {
    let scene = Scene::new();
    let _stock = scene.stock();
    let diagnosis = scene.doctor(&["--budget", "60s"]);
    assert!(!has_old_sqlite(&diagnosis), "{:#}", diagnosis.report);
    assert_eq!(diagnosis.report["unseen"], serde_json::json!([]));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let builds = wal_shm::inspect::Builds::default().of_process(std::process::id(), deadline);
    let versions: Vec<String> = builds.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(versions, [format!("SQLite {}", rusqlite::version())]);
}

#[test]
fn mixed_owners_and_modes_are_found() {
    let scene = Scene::new();
    let _stock = scene.stock();
    let index = scene.file("-shm");
    let mode = fs::metadata(&scene.database).unwrap().permissions().mode();
    fs::set_permissions(&scene.database, fs::Permissions::from_mode(0o666)).unwrap();
    for suffix in ["-wal", "-shm"] {
        fs::set_permissions(scene.file(suffix), fs::Permissions::from_mode(0o666)).unwrap();
    }
    scene.doctor(&[]).lacks("mixed-owners");
    fs::set_permissions(&index, fs::Permissions::from_mode(0o644)).unwrap();
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("mixed-owners", "warning", &[]);
    assert!(
        finding["what"].as_str().unwrap().contains("-shm"),
        "{finding}"
    );
    fs::set_permissions(&scene.database, fs::Permissions::from_mode(mode)).unwrap();
    if Need::Root.is_met("files of another owner") {
        fs::set_permissions(&index, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&scene.database, Some(1), Some(1)).unwrap();
        scene.doctor(&[]).has("mixed-owners", "warning", &[]);
    }
}

#[test]
fn directory_that_the_owner_cannot_write_is_found() {
    if !Need::Root.is_met("a directory of another owner") {
        return;
    }
    let scene = Scene::new();
    drop(scene.stock());
    std::os::unix::fs::chown(&scene.database, Some(1), Some(1)).unwrap();
    scene
        .doctor(&[])
        .has("unwritable-directory", "warning", &[]);
    std::os::unix::fs::chown(scene.database.parent().unwrap(), Some(1), Some(1)).unwrap();
    scene.doctor(&[]).is_healthy();
}

#[test]
fn database_with_several_names_is_found() {
    let scene = Scene::new();
    drop(scene.stock());
    let link = scene.file(".link");
    std::os::unix::fs::symlink(&scene.database, &link).unwrap();
    Diagnosis::of(&link, &[]).has("symbolic-link", "note", &[]);
    fs::hard_link(&scene.database, scene.file(".second")).unwrap();
    scene.doctor(&[]).has("hard-links", "warning", &[]);
}

#[test]
fn hot_journal_beside_a_database_in_wal_mode_is_found() {
    if !python_is_there("a hot journal") {
        return;
    }
    let scene = Scene::new();
    let mut python = Python::connect(&scene.database);
    python.run(
        "db.execute('CREATE TABLE t (x)'); db.execute('INSERT INTO t VALUES (zeroblob(100000))')",
    );
    scene.doctor(&[]).has("rollback-mode", "note", &[]);
    // It is written out before the commit, as the cache is small.
    python.run("db.execute('PRAGMA cache_size=1'); db.execute('BEGIN'); db.execute('UPDATE t SET x=zeroblob(100001)')");
    scene.doctor(&[]).lacks("hot-journal");
    signal(&python, Signal::SIGKILL);
    drop(python);
    scene.doctor(&[]).has("hot-journal", "warning", &[]);
    let other = Scene::new();
    drop(other.stock());
    fs::copy(scene.file("-journal"), other.file("-journal")).unwrap();
    other.doctor(&[]).has("hot-journal", "danger", &[]);
}

#[test]
fn leftovers_of_backups_are_found_unless_they_are_in_use() {
    let scene = Scene::new();
    drop(scene.stock());
    let left = scene.file("-new-by-wal-1-1");
    fs::write(&left, "x").unwrap();
    scene.doctor(&[]).has("leftovers", "note", &[]);
    fs::remove_file(&left).unwrap();
    let made = wal_core::storage::NewFile::beside(&scene.file(".copy"), None).unwrap();
    scene.doctor(&[]).is_healthy();
    drop(made);
}

#[test]
fn overlay_is_a_note_until_the_file_is_copied() {
    let system = FileSystem::Overlay;
    if !system.need().is_met("a database on an overlay") {
        return;
    }
    with_disk(system, 64 << 20, |folder| {
        let database = folder.join("app.db");
        let opened = stock(&database);
        Diagnosis::of(&database, &[]).lacks("overlay-file-system");
        drop(opened);
        Diagnosis::of(&database, &[]).has("overlay-file-system", "note", &[]);
    })
    .unwrap();
}

#[test]
fn full_disk_is_found() {
    let system = FileSystem::Tmpfs;
    if !system.need().is_met("a full disk") {
        return;
    }
    with_disk(system, 64 << 20, |folder| {
        let database = folder.join("app.db");
        drop(stock(&database));
        let names = |diagnosis: &Diagnosis| diagnosis.report["findings"].to_string();
        let before = names(&Diagnosis::of(&database, &[]));
        assert!(!before.contains("\"warning\""), "{before}");
        fill(folder, 8 << 20).unwrap();
        let diagnosis = Diagnosis::of(&database, &[]);
        diagnosis.has("disk-nearly-full", "warning", &[]);
    })
    .unwrap();
}

#[test]
fn process_near_its_descriptor_limit_is_found() {
    if !python_is_there("a process without free descriptors") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    python.run("import os, resource; used = len(os.listdir('/proc/self/fd')) - 1; resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))");
    scene
        .doctor(&[])
        .has("descriptor-limit", "warning", &[python.pid()]);
}

#[test]
fn process_in_another_pid_namespace_is_a_note() {
    let need = Need::Namespaces(&["--pid", "--fork"]);
    if !need.is_met("a process in a container") || !python_is_there("a process in a container") {
        return;
    }
    let scene = Scene::new();
    let _outside = scene.python();
    let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM t').fetchall()
print('up', flush=True); sys.stdin.read()";
    let mut inside = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "python3", "-c", script])
        .arg(&scene.database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 2];
    inside.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let diagnosis = scene.doctor(&[]);
    drop(inside.stdin.take());
    inside.wait().unwrap();
    let finding = diagnosis.finding("other-containers");
    assert_eq!(finding["severity"], "note");
    assert_eq!(finding["pids"].as_array().unwrap().len(), 1, "{finding}");
}

#[test]
fn long_log_names_the_holder_of_ckpt() {
    if !python_is_there("a process that holds CKPT") {
        return;
    }
    let scene = Scene::new();
    let stock = scene.stock();
    grow(&stock, 4100);
    let mut holder = Python::connect(&scene.database);
    holder.run("import fcntl, sys; shm = open(sys.argv[1] + '-shm', 'r+b'); fcntl.lockf(shm, fcntl.LOCK_EX, 1, 121)");
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("long-log", "warning", &[holder.pid()]);
    assert!(
        finding["what"].as_str().unwrap().contains("holds CKPT"),
        "{finding}"
    );
}

/// The parent of a `vfork` cannot be interrupted until its child ends.
#[test]
fn writer_in_an_uninterruptible_wait_is_found() {
    if !python_is_there("a process in state D") {
        return;
    }
    let scene = Scene::new();
    let mut python = scene.python();
    python.run("db.execute('BEGIN IMMEDIATE')");
    // The child answers, and ends at the end of its input.
    python.run("import ctypes; ctypes.CDLL(None).vfork()");
    let diagnosis = scene.doctor(&[]);
    let finding = diagnosis.has("disk-wait", "warning", &[python.pid()]);
    assert!(
        finding["what"].as_str().unwrap().contains("WRITE"),
        "{finding}"
    );
}

/// Waits in the queue of writers for ever, where `DOCTOR_WAITS` names a database.
#[test]
fn process_that_waits_in_the_queue() {
    if let Some(database) = std::env::var_os("DOCTOR_WAITS") {
        let ours = wal::Database::open_pages(Path::new(&database)).unwrap();
        drop(ours.begin_write());
    }
}

#[test]
fn queue_entry_of_a_dead_process_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    let store = wal::Database::open_pages(&database).unwrap();
    let write = store.begin_write().unwrap();
    let mut waits = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_that_waits_in_the_queue"])
        .env("DOCTOR_WAITS", &database)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let side = wal_shm::inspect::SideView::of(&database).unwrap().unwrap();
        let queue = side.wait_state().writer_queue();
        let waiting = queue.waiting_writers(wal_core::wait::now());
        if waiting
            .iter()
            .any(|writer| writer.process.pid() == Some(waits.id()))
        {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{waiting:?}");
        std::thread::yield_now();
    }
    Diagnosis::of(&database, &[]).lacks("dead-waiter");
    waits.kill().unwrap();
    waits.wait().unwrap();
    Diagnosis::of(&database, &[]).has("dead-waiter", "note", &[waits.id()]);
    drop(write);
    store.close().unwrap();
}

#[test]
fn stopped_reader_of_this_library_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pages");
    let store = wal::Database::open_pages(&database).unwrap();
    store.begin_write().unwrap().commit().unwrap();
    let mut reads = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_that_reads", "--nocapture"])
        .env("DOCTOR_READS", &database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(reads.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("reads now")));
    let pid = reads.id();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGSTOP).unwrap();
    wait_until_stopped(pid);
    let diagnosis = Diagnosis::of(&database, &[]);
    reads.kill().unwrap();
    reads.wait().unwrap();
    let finding = diagnosis.has("stopped-holder", "warning", &[pid]);
    let why = finding["why"].as_str().unwrap();
    assert!(why.contains("delayed"), "{finding}");
    store.close().unwrap();
}

/// Holds a read transaction for ever, where `DOCTOR_READS` names a database.
#[test]
fn process_that_reads() {
    if let Some(database) = std::env::var_os("DOCTOR_READS") {
        let ours = wal::Database::open_pages(Path::new(&database)).unwrap();
        let _read = ours.begin_read().unwrap();
        println!("reads now");
        loop {
            std::thread::park();
        }
    }
}

#[test]
fn look_without_time_ends_and_says_what_it_has_not_seen() {
    let scene = Scene::new();
    let _stock = scene.stock();
    let mut others: Vec<_> = (0..300)
        .map(|_| Command::new("sleep").arg("600").spawn().unwrap())
        .collect();
    let diagnosis = scene.doctor(&["--budget", "1ms"]);
    for other in &mut others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    diagnosis.is_healthy();
    let unseen = diagnosis.report["unseen"].to_string();
    assert!(unseen.contains("in time"), "{:#}", diagnosis.report);
    assert!(diagnosis.report["took_s"].as_f64() < Some(5.0));
}

#[test]
fn text_says_what_was_found_and_what_was_checked() {
    let scene = Scene::new();
    drop(scene.stock());
    fs::write(scene.file("-new-by-wal-1-1"), "x").unwrap();
    let output = walctl("doctor", &scene.database, &["--color", "never"]);
    let folder = scene.database.parent().unwrap().canonicalize().unwrap();
    let shown = text(&output).replace(folder.to_str().unwrap(), "/data");
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"6 looks in \S+( \S+)?", "6 looks in [time]");
    settings.add_filter(r"(?s)\n\w+ +disk-nearly-full.*?room\n", "");
    settings.bind(|| {
        insta::assert_snapshot!(shown, @r"
        /data/app.db
          healthy: there are notes only

        note    leftovers: backups that were interrupted have left /data/app.db-new-by-wal-1-1
                because they take room; no process uses them
                do the next backup to this directory removes them, or you do

        checked: 23 checks, no process that uses it, 6 looks in [time]
        ");
    });
}
