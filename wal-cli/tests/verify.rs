//! `walctl verify` on sound and damaged files, and beside live users.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Looks at a database while a process executes `work` again and again: how often the look was
/// complete, and how often the database was too busy. None of the looks may find damage.
fn looks_beside(setup: &str, work: &str, looks: u32) -> (u32, u32) {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut writer = Python::connect(&database);
    writer.run("db.execute('PRAGMA journal_mode=wal').fetchone()");
    writer.run("db.execute('PRAGMA synchronous=off')");
    writer.run("db.execute('PRAGMA wal_autocheckpoint=0').fetchone()");
    writer.run("db.execute('CREATE TABLE t (x)')");
    writer.run(setup);
    // Leftovers, which the next transactions overwrite.
    writer.run("db.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()");
    let (mut complete, mut busy) = (0, 0);
    for _ in 0..looks {
        let done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.run(work);
                while !done.load(Ordering::Relaxed) && work.contains("checkpoint") {
                    writer.run(work);
                }
            });
            let output = walctl("verify", &database, &["--json"]);
            done.store(true, Ordering::Relaxed);
            output
        });
        match output.status.code() {
            Some(0) => complete += 1,
            Some(3) => busy += 1,
            _ => panic!("{}", text(&output)),
        }
    }
    assert_eq!(damage(&verify(&database)), []);
    (complete, busy)
}

#[test]
fn log_that_grows_is_sound_at_each_moment() {
    if !Need::Python.is_met("verify beside a live writer") {
        return;
    }
    // Each transaction spans more than what one thread checks at a time.
    let setup = "db.execute('INSERT INTO t VALUES (zeroblob(18000000))')";
    let work = "db.execute('UPDATE t SET x = randomblob(5000000)')";
    assert_eq!(looks_beside(setup, work, 3), (3, 0));
}

#[test]
fn log_that_is_restarted_is_sound_or_too_busy() {
    if !Need::Python.is_met("verify beside a live writer") {
        return;
    }
    // The log is restarted by each transaction but the first.
    let work = concat!(
        "for _ in range(20): ",
        "db.execute('UPDATE t SET x = randomblob(3000 + abs(random()) % 30000)'); ",
        "db.execute('INSERT INTO t SELECT randomblob(9000) FROM t LIMIT 3'); ",
        "db.execute('DELETE FROM t WHERE rowid % 5 = abs(random()) % 5'); ",
        "db.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchone()",
    );
    let setup = "db.execute('INSERT INTO t VALUES (1)')";
    let (complete, busy) = looks_beside(setup, work, 20);
    assert_eq!(complete + busy, 20);
}

/// While a process uses the index, frames behind the published ones are being written, and a
/// look may see a later one and not an earlier one.
#[test]
fn commit_behind_a_fault_is_lost_only_if_no_process_writes_it() {
    use wal_core::format::{Checksum, DecodedHeader, FrameHeader, LogHeader};
    if !Need::Python.is_met("verify beside a live writer") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut holder = Python::connect(&database);
    holder.run("db.execute('PRAGMA journal_mode=wal').fetchone()");
    holder.run("db.execute('CREATE TABLE t (x)')");
    let path = folder.path().join("app.db-wal");
    let log = fs::read(&path).unwrap();
    let DecodedHeader::Valid(header, _) = LogHeader::decode(log[..32].first_chunk().unwrap())
    else {
        panic!("no header")
    };
    // A frame that is still to come, and the one behind it.
    let content = vec![5; header.page_size.len()];
    let commit = FrameHeader {
        page: wal::PageNo::new(2).unwrap(),
        commit_size: 2,
        salts: header.salts,
    };
    let (head, _) = commit.encode(header.byte_order, Checksum::ZERO, &content);
    let hole = vec![0; 24 + content.len()];
    fs::write(&path, [&log[..], &hole, &head, &content].concat()).unwrap();
    assert_eq!(damage(&verify(&database)), []);
    drop(holder);
    let report = verify(&database);
    assert_eq!(damaged_checks(&report), ["log"], "{report}");
    assert_eq!(report["recovery"]["lost_commits"], 1);
}
