//! `walctl frames` on logs of stock SQLite, and beside a live writer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::{Python, reports, text, walctl};
use integration::needs::Need;
use serde_json::Value;

fn listed(database: &Path, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = walctl("frames", database, &arguments);
    assert!(output.status.success(), "{output:?}");
    reports(&output)
}

fn of_kind<'r>(reports: &'r [Value], kind: &str) -> Vec<&'r Value> {
    reports
        .iter()
        .filter(|report| report["kind"] == kind)
        .collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn transactions_of_each_log_are_those_that_sqlite_committed() {
    let mut logs = 0;
    for fixture in fixtures::all().unwrap() {
        let Some(log) = fixture.facts.log.as_ref().filter(|log| log.bytes > 32) else {
            continue;
        };
        logs += 1;
        let copy = fixture.copy().unwrap();
        let listed = listed(&copy.database(), &[]);
        let name = &fixture.facts.name;
        let ends: Vec<(u64, u64)> = of_kind(&listed, "transaction")
            .iter()
            .map(|of| {
                (
                    of["last_frame"].as_u64().unwrap(),
                    of["page_count"].as_u64().unwrap(),
                )
            })
            .collect();
        let expected: Vec<(u64, u64)> = log
            .commits
            .iter()
            .map(|of| (of.frame as u64, u64::from(of.page_count)))
            .collect();
        // The index of one fixture publishes less than its log has.
        assert_eq!(ends, expected, "{name}");
        assert_eq!(
            of_kind(&listed, "frame").len(),
            log.frames_committed,
            "{name}"
        );
        let [end] = of_kind(&listed, "frames-end")[..] else {
            panic!("{name}: {listed:?}")
        };
        let behind = end["uncommitted"].as_u64().unwrap() + end["leftovers"].as_u64().unwrap();
        assert_eq!(behind, log.frames_beyond as u64, "{name}");
    }
    assert!(logs >= 12, "{logs}");
}

#[test]
fn newest_version_of_each_page_is_what_sqlite_reads() {
    let fixture = fixtures::named("pages-1024").unwrap();
    let copy = fixture.copy().unwrap();
    for (page, digest) in (1..).zip(&fixture.facts.pages) {
        let page = page.to_string();
        let versions = listed(&copy.database(), &["--page", &page, "--hex"]);
        let newest: Vec<_> = versions
            .iter()
            .filter(|of| of["is_newest"] == true)
            .collect();
        let [newest] = newest[..] else {
            panic!("page {page}: {versions:?}")
        };
        assert_eq!(newest, versions.last().unwrap(), "page {page}");
        let content = bytes_of(newest["content"].as_str().unwrap());
        assert_eq!(&fixtures::page_digest(&content), digest, "page {page}");
    }
}

#[test]
fn leftovers_are_listed_with_their_generation() {
    let copy = fixtures::named("several-generations")
        .unwrap()
        .copy()
        .unwrap();
    let text = text(&walctl("frames", &copy.database(), &["--all"]));
    let lines = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("of the generation before"), 5, "{text}");
    assert_eq!(lines("of 2 generations ago"), 27, "{text}");
    let plain = common::text(&walctl("frames", &copy.database(), &[]));
    assert!(!plain.contains("generations ago"), "{plain}");
    assert!(plain.ends_with("  behind them 32 leftovers: its salts are of another generation\n"));
}

#[test]
fn text_shows_transactions_versions_and_contents() {
    let copy = fixtures::named("with-shm").unwrap().copy().unwrap();
    let shown = |arguments: &[&str]| text(&walctl("frames", &copy.database(), arguments));
    let all = shown(&[]);
    let lines: Vec<&str> = all.lines().skip(1).take(6).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    transaction 1: frames 1 to 4, 4 pages, 4.1 KiB; 4 pages after it, in the database
      frame 1        page 1
      frame 2        page 2
      frame 3        page 3
      frame 4        page 4        commit
    transaction 2: frames 5 to 11, 7 pages, 7.2 KiB; 8 pages after it, in the database
    ");
    insta::assert_snapshot!(shown(&["--frame", "2", "--hex"]), @r"
      frame 2        page 2        transaction 1      checksum eab03c1906bc545b content 2f640000fa880000 in the database
        00000  0d 00 00 00 00 04 00 00 00 00 00 00 00 00 00 00  ................
        00010  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
        *
    ");
    let page = shown(&["--page", "1"]);
    assert_eq!(page.lines().count(), 3, "{page}");
    assert!(page.lines().last().unwrap().ends_with("newest"), "{page}");
    let beyond = walctl("frames", &copy.database(), &["--frame", "99"]);
    assert_eq!(beyond.status.code(), Some(1));
    let everything = walctl("frames", &copy.database(), &["--hex"]);
    assert_eq!(everything.status.code(), Some(2), "of which frame?");
}

#[test]
fn reader_that_takes_one_line_ends_the_list() {
    let copy = fixtures::named("pages-512").unwrap().copy().unwrap();
    let mut child = common::command(["frames", "--all"])
        .arg(copy.database())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::with_capacity(16, child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    drop(output);
    let ended = child.wait_with_output().unwrap();
    assert!(
        ended.status.success() && ended.stderr.is_empty(),
        "{ended:?}"
    );
}

#[test]
fn list_beside_a_writer_ends_with_a_commit() {
    if !Need::Python.is_met("frames beside a live writer") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut writer = Python::connect(&database);
    writer.run("db.execute('PRAGMA journal_mode=wal').fetchone()");
    writer.run("db.execute('CREATE TABLE t (x)')");
    writer.run("db.execute('PRAGMA cache_size=1').fetchone()");
    writer.run("db.execute('BEGIN')");
    // The spilled frames are in the log, and not committed.
    writer.run("for _ in range(100): db.execute('INSERT INTO t VALUES (randomblob(3000))')");
    let listed = |arguments: &[&str]| listed(&database, arguments);
    let before = listed(&[]);
    let all = listed(&["--all"]);
    let is_uncommitted = |of: &&Value| of["fault"] == "uncommitted";
    assert!(all.iter().filter(is_uncommitted).count() > 10, "{all:?}");
    writer.run("db.execute('COMMIT')");
    let after = listed(&[]);
    let transactions = |reports: &[Value]| of_kind(reports, "transaction").len();
    assert_eq!(transactions(&after), transactions(&before) + 1);
    writer.run("db.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()");
    let restarted = listed(&[]);
    let backfilled = |of: &Value| of["is_backfilled"] == true;
    assert!(
        of_kind(&restarted, "transaction")
            .into_iter()
            .all(backfilled)
    );
}
