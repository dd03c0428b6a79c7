//! `walctl verify` on sound and damaged files, and beside live users.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Python, reports, text, walctl};
use integration::folder::FolderState;
use integration::needs::Need;
use rusqlite::Connection;
use serde_json::Value;

fn verify(database: &Path) -> Value {
    let output = walctl("verify", database, &["--json"]);
    let [report] = &reports(&output)[..] else {
        panic!("one report: {output:?}")
    };
    let code = match report["state"].as_str() {
        Some("damage") => 5,
        _ => 0,
    };
    assert_eq!(output.status.code(), Some(code), "{report}");
    report.clone()
}

/// The checks that found damage, with what they found.
fn damage(report: &Value) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().unwrap().iter();
    let damaged = checks.filter(|check| check["state"] == "damage");
    let field = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    damaged
        .map(|check| (field(check, "check"), field(check, "text")))
        .collect()
}

fn damaged_checks(report: &Value) -> Vec<String> {
    damage(report).into_iter().map(|(check, _)| check).collect()
}

/// Changes a byte of the file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn recovery_is_foretold_as_sqlite_recovers() {
    for fixture in fixtures::all().unwrap() {
        let name = &fixture.facts.name;
        let copy = fixture.copy().unwrap();
        let before = FolderState::of(copy.folder()).unwrap();
        let report = verify(&copy.database());
        assert_eq!(FolderState::of(copy.folder()).unwrap(), before, "{name}");
        let lost = usize::from(name == "flipped-tail");
        assert_eq!(damage(&report).len(), lost, "{name}: {report}");
        let recovery = &report["recovery"];
        assert_eq!(recovery["lost_commits"], lost, "{name}");
        if name != "hot-journal" {
            assert_eq!(
                recovery["pages"], fixture.facts.page_count,
                "{name}: {report}"
            );
        }
        let log = fixture.facts.log.as_ref();
        assert_eq!(
            recovery["frames"],
            log.map_or(0, |log| log.frames_committed),
            "{name}"
        );
        assert_eq!(
            recovery["commits"],
            log.map_or(0, |log| log.commits.len()),
            "{name}"
        );
        let equals = match name.as_str() {
            "with-shm" => Value::Bool(true),
            "stale-shm" => Value::Bool(false),
            _ => Value::Null,
        };
        assert_eq!(recovery["equals_index"], equals, "{name}");
    }
}

#[test]
fn text_has_a_line_for_each_check() {
    let copy = fixtures::named("flipped-tail").unwrap().copy().unwrap();
    let shown = text(&walctl("verify", &copy.database(), &[]));
    let lines: Vec<&str> = shown.lines().skip(1).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
      DAMAGE log        frame 9: its checksum does not continue that of the frame before; a recovery drops 1 commit behind it
                        copy all files before the database is opened again; `walctl recover` gives the state before the damage, a backup may have more
      ok     leftovers  there are none
      ok     index      there is none: the next user builds it from the log
      ok     page 1     in frame 1 of the log; a SQLite database in WAL mode with pages of 1024 bytes
      ok     size       14 pages; 12 in the database file, 8 in the log
      ok     free pages there are none
      ok     recovery   it takes 8 frames with 2 commits and gives 14 pages
    ");
}

#[test]
fn commit_that_the_log_does_not_bear_out_is_damage() {
    let copy = fixtures::named("with-shm").unwrap().copy().unwrap();
    assert_eq!(damage(&verify(&copy.database())), []);
    let log = fs::read(copy.log()).unwrap();
    // The last transaction is frames 16 and 17.
    let frame = 1024 + 24;
    fs::write(copy.log(), &log[..32 + 15 * frame]).unwrap();
    let report = verify(&copy.database());
    assert_eq!(damaged_checks(&report), ["index", "recovery"]);
    assert!(
        damage(&report)[0]
            .1
            .contains("publishes 17 frames, and the log has 15"),
        "{report}"
    );
    fs::write(copy.log(), &log).unwrap();
    flip(&copy.log(), 32 + 11 * frame + 100);
    assert_eq!(
        damaged_checks(&verify(&copy.database())),
        ["log", "index", "recovery"]
    );
    fs::write(copy.log(), &log).unwrap();
    flip(&copy.log(), 18);
    assert_eq!(
        damaged_checks(&verify(&copy.database())),
        ["log", "index", "recovery"]
    );
    fs::remove_file(copy.log()).unwrap();
    assert_eq!(
        damaged_checks(&verify(&copy.database())),
        ["index", "recovery"]
    );
}

/// A database with free pages, in the database file alone.
fn with_free_pages(folder: &Path) -> PathBuf {
    let database = folder.join("app.db");
    let stock = Connection::open(&database).unwrap();
    stock
        .execute_batch(
            "PRAGMA page_size = 1024; PRAGMA journal_mode = wal; CREATE TABLE t (x);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
            INSERT INTO t SELECT randomblob(900) FROM n; DELETE FROM t WHERE rowid > 10;",
        )
        .unwrap();
    drop(stock);
    database
}

#[test]
fn damage_to_page_one_and_to_free_pages_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let database = with_free_pages(folder.path());
    let sound = fs::read(&database).unwrap();
    let report = verify(&database);
    assert_eq!(damage(&report), []);
    let trunk = u32::from_be_bytes(sound[32..36].try_into().unwrap()) as usize;
    let trunk = (trunk - 1) * 1024;
    let faults: [(usize, &str); 7] = [
        (3, "page 1"),      // the magic string
        (21, "page 1"),     // a payload fraction
        (31, "free pages"), // the number of pages: some of them are beyond it
        (35, "free pages"), // the first trunk page
        (39, "free pages"), // the number of free pages
        (trunk + 4, "free pages"),
        (trunk + 8, "free pages"),
    ];
    for (at, check) in faults {
        fs::write(&database, &sound).unwrap();
        flip(&database, at);
        let report = verify(&database);
        assert!(
            damaged_checks(&report).contains(&check.to_owned()),
            "{at}: {report}"
        );
    }
    fs::write(&database, &sound[..sound.len() - 1024]).unwrap();
    let report = verify(&database);
    assert!(
        damaged_checks(&report).contains(&"size".to_owned()),
        "{report}"
    );
}

#[test]
fn page_store_is_checked_by_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    let store = wal::Database::open_pages(&path).unwrap();
    let commit: wal::Result<()> = store.write(|tx| {
        let page = tx.allocate()?;
        tx.page_mut(page)?.fill(7);
        Ok(())
    });
    commit.unwrap();
    let report = verify(&path);
    assert_eq!(damage(&report), []);
    assert_eq!(report["recovery"]["equals_index"], true, "{report}");
    store.close().unwrap();
    assert_eq!(damage(&verify(&path)), []);
    flip(&path, 30);
    assert_eq!(damaged_checks(&verify(&path)), ["page 1"]);
}

#[test]
fn live_database_is_sound_at_each_moment() {
    if !Need::Python.is_met("verify beside live writers") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut first = Python::connect(&database);
    first.run("db.execute('PRAGMA journal_mode=wal').fetchone()");
    first.run("db.execute('CREATE TABLE t (x)')");
    let work = concat!(
        "import sqlite3, sys, time; own = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)",
        "\nprint('begun', flush=True)\nwhile True:",
        "\n own.execute('INSERT INTO t VALUES (randomblob(2000))')",
        "\n own.execute('DELETE FROM t WHERE rowid % 7 = abs(random()) % 7')",
        "\n own.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchone(); time.sleep(.001)"
    );
    let mut busy = std::process::Command::new("python3")
        .args(["-c", work])
        .arg(&database)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut begun = std::io::BufReader::new(busy.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut begun, &mut line).unwrap();
    let mut looks = 0;
    let mut wrong = Vec::new();
    for _ in 0..20 {
        let output = walctl("verify", &database, &["--json", "--budget", "20ms"]);
        match output.status.code() {
            Some(0) => looks += 1,
            // The log was restarted at each attempt.
            Some(3) => {}
            _ => wrong.push(text(&output)),
        }
    }
    busy.kill().unwrap();
    busy.wait().unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(looks > 0);
    assert_eq!(damage(&verify(&database)), []);
}
