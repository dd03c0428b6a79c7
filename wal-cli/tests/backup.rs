//! `walctl backup` beside writers, of databases without users, and interrupted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Python, reports, text, walctl};
use integration::disk::{FileSystem, with_disk};
use integration::folder::FolderState;
use integration::needs::Need;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;

/// How long a test waits for what another process does.
const PATIENCE: Duration = Duration::from_secs(60);

/// The accounts of the database that the writers change, with 100 on each.
const ACCOUNTS: i64 = 200;

/// Makes a database of accounts in WAL mode, and closes it.
fn bank(folder: &Path) -> PathBuf {
    let path = folder.join("app.db");
    let stock = Connection::open(&path).unwrap();
    let setup = format!(
        "PRAGMA journal_mode = wal;
         CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, filler BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})
         INSERT INTO account SELECT i, 100, randomblob(2000) FROM n;"
    );
    stock.execute_batch(&setup).unwrap();
    stock.close().unwrap();
    path
}

/// Fails unless the file at `path` is a sound database that is the state of one commit.
fn check_bank(path: &Path) {
    let copy = Connection::open(path).unwrap();
    let check = "PRAGMA integrity_check";
    let check: String = copy.query_row(check, [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let sums = "SELECT count(*), sum(amount) FROM account";
    let sums = copy.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(sums.unwrap(), (ACCOUNTS, ACCOUNTS * 100));
}

fn backup(database: &Path, destination: &Path, options: &[&str]) -> Output {
    let mut arguments = vec![destination.to_str().unwrap()];
    arguments.extend(options);
    walctl("backup", database, &arguments)
}

/// Runs a backup that has to succeed; its report.
fn report(database: &Path, destination: &Path, options: &[&str]) -> Value {
    let options: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
    let output = backup(database, destination, &options);
    assert!(output.status.success(), "{output:?}");
    let reports = reports(&output);
    assert_eq!(reports.len(), 1);
    reports.into_iter().next().unwrap()
}

/// The message of a backup that has to fail, which is one line.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// A backup that has begun to copy, at a rate that lets it take a minute.
fn begin_slow(database: &Path, destination: &Path) -> Child {
    // Two megabytes: the second one has to wait.
    let rows = "UPDATE account SET filler = randomblob(12000)";
    Connection::open(database)
        .unwrap()
        .execute(rows, [])
        .unwrap();
    let child = common::command(["backup"])
        .args([database, destination])
        .args(["--rate", "30K"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the copy", || {
        unfinished(destination.parent().unwrap()).is_some()
    });
    child
}

/// The unfinished copy in `folder`, once bytes are in it.
fn unfinished(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let is_copy = |file: &fs::DirEntry| {
        let name = file.file_name().to_string_lossy().contains("-new-by-wal-");
        name && file.metadata().is_ok_and(|metadata| metadata.len() > 0)
    };
    files.find(is_copy).map(|file| file.path())
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A Python process that moves money until it is killed.
fn writer(database: &Path, synchronous: &str) -> Child {
    let program = "
import random, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute('PRAGMA synchronous = ' + sys.argv[2])
db.execute('PRAGMA wal_autocheckpoint = 50')
while True:
    db.execute('BEGIN IMMEDIATE')
    for sign in (1, -1):
        account = random.randrange(1, 201)
        db.execute('UPDATE account SET amount = amount + ? WHERE id = ?', (sign, account))
    db.execute('COMMIT')
";
    let writer = Command::new("python3")
        .args(["-c", program])
        .arg(database)
        .arg(synchronous)
        .spawn();
    writer.unwrap()
}

fn backups_are_sound_beside_writers(synchronous: &str) {
    if !Need::Python.is_met("backups beside writers in Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let observer = Connection::open(&database).unwrap();
    let version = || -> i64 {
        let sql = "PRAGMA data_version";
        observer.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let mut writers: Vec<Child> = (0..3).map(|_| writer(&database, synchronous)).collect();
    let before = version();
    wait_for("a commit", || version() != before);
    let mut commits = std::collections::BTreeSet::new();
    for round in 0..8 {
        let copy = folder.path().join(format!("copy-{round}.db"));
        let report = report(&database, &copy, &[]);
        assert_eq!(
            names(folder.path()).len(),
            4 + round,
            "no other file is left"
        );
        check_bank(&copy);
        let length = fs::metadata(&copy).unwrap().len();
        assert_eq!(report["bytes"], length);
        assert_eq!(report["pages"], length / 4096);
        commits.insert(report["generation"].to_string() + &report["frame"].to_string());
        // Opened by the check.
        let before = version();
        wait_for("a commit", || version() != before);
    }
    assert_eq!(commits.len(), 8, "each backup is of another commit");
    for writer in &mut writers {
        assert!(writer.try_wait().unwrap().is_none(), "no writer has failed");
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
}

#[test]
fn backup_beside_normal_writers_is_one_commit() {
    backups_are_sound_beside_writers("NORMAL");
}

#[test]
fn backup_beside_full_writers_is_one_commit() {
    backups_are_sound_beside_writers("FULL");
}

#[test]
fn idle_database_is_copied_and_nothing_is_made_beside_it() {
    let (source, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = bank(source.path());
    let before = FolderState::of(source.path()).unwrap();
    let copy = copies.path().join("copy.db");
    let report = report(&database, &copy, &[]);
    let after = FolderState::of(source.path()).unwrap();
    assert_eq!(before.changes(&after), [""; 0]);
    assert_eq!(report["generation"], Value::Null);
    assert_eq!(fs::read(&database).unwrap(), fs::read(&copy).unwrap());
    assert_eq!(names(copies.path()), ["copy.db"]);
    check_bank(&copy);
}

#[test]
fn database_on_read_only_media_is_copied() {
    let media = FileSystem::Tmpfs;
    if !media.need().is_met("backups from read-only media") {
        return;
    }
    let copies = tempfile::tempdir().unwrap();
    let checked = with_disk(media, 0, |disk| {
        let database = bank(disk);
        let remount = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(disk)
            .status();
        assert!(remount.unwrap().success());
        report(&database, &copies.path().join("copy.db"), &[]);
    });
    checked.unwrap();
    check_bank(&copies.path().join("copy.db"));
}

#[test]
fn files_of_a_killed_process_are_copied_with_their_log() {
    if !Need::Python.is_met("backups of what a killed process leaves") {
        return;
    }
    let (source, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = bank(source.path());
    let mut killed = Python::connect(&database);
    killed.run("db.execute('UPDATE account SET amount = 0 WHERE id = 1')");
    killed.run("db.execute('UPDATE account SET amount = 200 WHERE id = 2')");
    drop(killed);
    let before = FolderState::of(source.path()).unwrap();
    let copy = copies.path().join("copy.db");
    report(&database, &copy, &[]);
    let after = FolderState::of(source.path()).unwrap();
    assert_eq!(before.changes(&after), [""; 0]);
    check_bank(&copy);
    let amount = "SELECT amount FROM account WHERE id = 2";
    let copied = Connection::open(&copy).unwrap();
    let amount: i64 = copied.query_row(amount, [], |row| row.get(0)).unwrap();
    assert_eq!(amount, 200, "the commit was only in the log");
}

#[test]
fn idle_database_that_gets_a_writer_is_copied_anew() {
    if !Need::Python.is_met("a writer that comes during a backup") {
        return;
    }
    let (source, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = bank(source.path());
    let copy = copies.path().join("copy.db");
    // The last megabyte of two is due after a second.
    let wide = "UPDATE account SET filler = randomblob(10000)";
    Connection::open(&database)
        .unwrap()
        .execute(wide, [])
        .unwrap();
    let child = common::command(["backup"])
        .args([&database, &copy])
        .args(["--rate", "1M", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the copy", || unfinished(copies.path()).is_some());
    let mut late = Python::connect(&database);
    late.run("db.execute('UPDATE account SET amount = amount + 1 WHERE id = 200')");
    late.run("db.execute('UPDATE account SET amount = amount - 1 WHERE id = 1')");
    late.run("db.execute('PRAGMA wal_checkpoint(PASSIVE)')");
    late.run("db.close()");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report = &reports(&output)[0];
    assert_ne!(
        report["generation"],
        Value::Null,
        "it was copied as a reader: {report}"
    );
    check_bank(&copy);
}

#[test]
fn page_store_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    let store = wal::Database::open_pages(&path).unwrap();
    let mut write = store.begin_write().unwrap();
    let page = write.allocate().unwrap();
    write.page_mut(page).unwrap()[..4].copy_from_slice(b"kept");
    write.commit().unwrap();
    let open = folder.path().join("of-open");
    report(&path, &open, &[]);
    store.close().unwrap();
    let idle = folder.path().join("of-idle");
    report(&path, &idle, &[]);
    for copy in [open, idle] {
        let copy = wal::Database::open(&copy).unwrap();
        let read = copy.begin_read().unwrap();
        assert_eq!(&read.page(page).unwrap()[..4], b"kept");
    }
}

#[test]
fn destination_that_exists_is_replaced_only_if_told() {
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let copy = folder.path().join("copy.db");
    report(&database, &copy, &["--replace"]);
    let refused = refusal(&backup(&database, &copy, &[]));
    assert!(refused.contains("copy.db: it exists"), "{refused}");
    let change = "UPDATE account SET filler = x'00'";
    Connection::open(&database)
        .unwrap()
        .execute(change, [])
        .unwrap();
    report(&database, &copy, &["--replace"]);
    assert_eq!(fs::read(&database).unwrap(), fs::read(&copy).unwrap());
}

#[test]
fn destination_that_cannot_be_a_copy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let copy = folder.path().join("copy.db");
    fs::write(folder.path().join("copy.db-wal"), b"a log").unwrap();
    for options in [&[][..], &["--replace"]] {
        let refused = refusal(&backup(&database, &copy, options));
        assert!(refused.contains("copy.db-wal"), "{refused}");
        let refused = refusal(&backup(&database, folder.path(), options));
        assert!(refused.contains("it is a directory"), "{refused}");
    }
    let refused = refusal(&backup(&database, &database, &["--replace"]));
    assert!(refused.contains("it is the database itself"), "{refused}");
    let nowhere = folder.path().join("no/copy.db");
    let refused = refusal(&backup(&database, &nowhere, &[]));
    assert!(refused.contains("No such file"), "{refused}");
    assert_eq!(names(folder.path()), ["app.db", "copy.db-wal"]);
}

#[test]
fn destination_that_a_process_has_open_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let copy = folder.path().join("copy.db");
    report(&database, &copy, &[]);
    let open = Connection::open(&copy).unwrap();
    open.execute_batch("BEGIN; SELECT * FROM account").unwrap();
    let output = backup(&database, &copy, &["--replace"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn rollback_database_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let stock = Connection::open(&database).unwrap();
    stock.execute_batch("CREATE TABLE t (x)").unwrap();
    let refused = refusal(&backup(&database, &folder.path().join("copy.db"), &[]));
    assert!(refused.contains("rollback-journal mode"), "{refused}");
    assert_eq!(names(folder.path()), ["app.db"]);
}

#[test]
fn log_without_an_index_is_refused_and_kept() {
    if !Need::Python.is_met("a log without an index") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let mut killed = Python::connect(&database);
    killed.run("db.execute('UPDATE account SET filler = NULL')");
    drop(killed);
    fs::remove_file(folder.path().join("app.db-shm")).unwrap();
    let refused = refusal(&backup(&database, &folder.path().join("copy.db"), &[]));
    assert!(refused.contains("walctl recover"), "{refused}");
    assert_eq!(names(folder.path()), ["app.db", "app.db-wal"]);
}

#[test]
fn interrupted_backup_leaves_no_file() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let folder = tempfile::tempdir().unwrap();
        let database = bank(folder.path());
        let child = begin_slow(&database, &folder.path().join("copy.db"));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(names(folder.path()), ["app.db"]);
    }
}

#[test]
fn copy_of_a_killed_backup_is_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let copy = folder.path().join("copy.db");
    let mut killed = begin_slow(&database, &copy);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!copy.exists(), "it has no name before it is whole");
    let output = backup(&database, &copy, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(names(folder.path()), ["app.db", "copy.db"]);
    check_bank(&copy);
}

#[test]
fn rate_bounds_the_speed() {
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let bytes = fs::metadata(&database).unwrap().len();
    let rate = (bytes * 2).to_string();
    let report = report(
        &database,
        &folder.path().join("copy.db"),
        &["--rate", &rate],
    );
    assert!(report["elapsed_s"].as_f64().unwrap() >= 0.5, "{report}");
    let never = backup(&database, &folder.path().join("other.db"), &["--rate", "0"]);
    assert_eq!(never.status.code(), Some(2), "{never:?}");
}

#[test]
fn report_says_what_was_copied_and_of_which_commit() {
    let folder = tempfile::tempdir().unwrap();
    let database = bank(folder.path());
    let stock = Connection::open(&database).unwrap();
    stock
        .execute("UPDATE account SET filler = NULL WHERE id = 1", [])
        .unwrap();
    let output = backup(&database, &folder.path().join("copy.db"), &[]);
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"in \d.*", "in [time]");
    settings.add_filter(r"generation [0-9a-f]{16}", "generation [salts]");
    settings.add_filter(r"/\S*/copy", "[folder]/copy");
    settings.bind(|| {
        insta::assert_snapshot!(text(&output), @r"
        copied 102 pages, 408.0 KiB, in [time]
        to      [folder]/copy.db
        commit  frame 1 of log generation [salts]
        ");
    });
}
