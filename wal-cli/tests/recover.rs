//! `walctl recover` compared with what stock SQLite recovers, and from the descriptors of a
//! process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Python, reports, text};
use integration::folder::FolderState;
use integration::needs::Need;
use rusqlite::Connection;
use serde_json::{Value, json};

fn recover(database: &Path, to: &Path, arguments: &[&str]) -> Output {
    let mut command = common::command(["recover", "--json"]);
    command.arg(database).arg("--to").arg(to).args(arguments);
    command.output().unwrap()
}

/// Recovers what has to be consistent.
fn recovered(database: &Path, to: &Path, arguments: &[&str]) -> Value {
    let output = recover(database, to, arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let [report] = &reports(&output)[..] else {
        panic!("one report: {output:?}")
    };
    assert_eq!(report["is_consistent"], true);
    report.clone()
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn integrity(path: &Path) -> String {
    let stock = Connection::open(path).unwrap();
    stock
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

/// What a file and its log become once stock SQLite recovers and checkpoints them.
fn by_stock(database: &Path) -> rusqlite::Result<Vec<u8>> {
    let stock = Connection::open(database)?;
    let _: i64 = stock.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let _: i64 = stock.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(fs::read(database).unwrap())
}

#[test]
fn each_log_gives_the_pages_that_sqlite_recovers() {
    let folder = tempfile::tempdir().unwrap();
    for fixture in fixtures::all().unwrap() {
        let facts = &fixture.facts;
        if facts.journal_bytes.is_some() {
            continue;
        }
        let copy = fixture.copy().unwrap();
        let before = FolderState::of(copy.folder()).unwrap();
        let new = folder.path().join(&facts.name);
        let report = recovered(&copy.database(), &new, &[]);
        assert_eq!(
            FolderState::of(copy.folder()).unwrap(),
            before,
            "{}",
            facts.name
        );
        let digests = fixtures::file_digests(&new, facts.page_size).unwrap();
        assert_eq!(digests, facts.pages, "{}", facts.name);
        assert_eq!(integrity(&new), facts.integrity_check, "{}", facts.name);
        let log = facts.log.as_ref();
        assert_eq!(report["frames"], log.map_or(0, |log| log.frames_committed));
        assert_eq!(
            report["dropped_frames"],
            log.map_or(0, |log| log.frames_beyond)
        );
        assert_eq!(
            report["lost_commits"],
            u64::from(facts.name == "flipped-tail")
        );
    }
}

/// Seeded damage anywhere in the log: bytes changed, zeroed blocks, the end cut off.
#[test]
fn damaged_log_gives_the_bytes_that_sqlite_recovers() {
    let names = [
        "pages-512",
        "pages-1024",
        "shrunk",
        "several-generations",
        "spilled-commit",
    ];
    for seed in 0..60_u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let name = *rng.choice(&names).unwrap();
        let copy = fixtures::named(name).unwrap().copy().unwrap();
        let mut log = fs::read(copy.log()).unwrap();
        match rng.u8(0..3) {
            0 => {
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(0..log.len());
                    log[at] ^= 1 << rng.u8(0..8);
                }
            }
            1 => {
                let at = rng.usize(0..log.len());
                let end = log.len().min(at + 512);
                log[at..end].fill(0);
            }
            _ => log.truncate(rng.usize(0..log.len())),
        }
        fs::write(copy.log(), &log).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new.db");
        let before = FolderState::of(copy.folder()).unwrap();
        let output = recover(&copy.database(), &new, &["--budget", "1ms"]);
        assert_eq!(
            FolderState::of(copy.folder()).unwrap(),
            before,
            "seed {seed}"
        );
        let stock = folder.path().join("stock");
        fixtures::copy_folder(copy.folder(), &stock).unwrap();
        // An empty database is one without tables.
        let expected = by_stock(&stock.join("app.db"));
        let context = format!("seed {seed}, {name}: {output:?}");
        match expected {
            Ok(expected) => {
                assert_eq!(output.status.code(), Some(0), "{context}");
                assert!(fs::read(&new).unwrap() == expected, "{context}");
                assert_eq!(integrity(&new), "ok", "{context}");
            }
            Err(error) => {
                assert_ne!(output.status.code(), Some(0), "{error}: {context}");
            }
        }
    }
}

#[test]
fn page_one_that_is_damaged_in_the_file_is_taken_from_the_log() {
    let fixture = fixtures::named("pages-1024").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (at, kind) in [
        (0, "magic"),
        (16, "page size"),
        (17, "page size"),
        (21, "fraction"),
    ] {
        let copy = fixture.copy().unwrap();
        let mut database = fs::read(copy.database()).unwrap();
        database[at] ^= 0x18;
        fs::write(copy.database(), database).unwrap();
        let new = folder.path().join(format!("{at}"));
        recovered(&copy.database(), &new, &[]);
        let digests = fixtures::file_digests(&new, 1024).unwrap();
        assert_eq!(digests, fixture.facts.pages, "{kind}");
    }
}

#[test]
fn database_without_a_page_one_is_refused_or_reported() {
    let folder = tempfile::tempdir().unwrap();
    let copy = fixtures::named("empty-log").unwrap().copy().unwrap();
    let sound = fs::read(copy.database()).unwrap();
    let damaged = |at: usize| {
        let mut database = sound.clone();
        database[at] ^= 0xff;
        fs::write(copy.database(), database).unwrap();
        let new = folder.path().join(format!("{at}"));
        (recover(&copy.database(), &new, &[]), new)
    };
    let (output, new) = damaged(3);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message(&output).contains("nothing tells its page size"),
        "{output:?}"
    );
    assert!(!new.exists());
    // The number of pages is far beyond the file.
    let (output, new) = damaged(28);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let report = &reports(&output)[0];
    assert_eq!(report["is_consistent"], false);
    assert_eq!(fs::metadata(new).unwrap().len(), sound.len() as u64);
    assert!(
        report["missing_pages"].as_u64().unwrap() > 1_000_000,
        "{report}"
    );
}

#[test]
fn log_of_another_name_is_taken_and_that_of_another_database_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fixtures::named("pages-1024").unwrap();
    let copy = fixture.copy().unwrap();
    let log = folder.path().join("saved-log");
    fs::rename(copy.log(), &log).unwrap();
    let log = log.to_str().unwrap();
    let new = folder.path().join("new.db");
    recovered(&copy.database(), &new, &["--log", log]);
    assert_eq!(
        fixtures::file_digests(&new, 1024).unwrap(),
        fixture.facts.pages
    );
    let other = fixtures::named("rollback-mode").unwrap().copy().unwrap();
    let mut database = fs::read(other.database()).unwrap();
    // A log without a page 1 gives no page size that replaces that of the file.
    database[16..18].copy_from_slice(&[2, 0]);
    fs::write(other.database(), database).unwrap();
    let tail = fixtures::named("several-generations")
        .unwrap()
        .copy()
        .unwrap();
    let without_page_one = without_page_one(&fs::read(tail.log()).unwrap());
    fs::write(other.log(), without_page_one).unwrap();
    let refused = recover(&other.database(), &folder.path().join("none"), &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        message(&refused).contains("of another database"),
        "{refused:?}"
    );
}

/// A log of one transaction with page 2 alone, with the header of `log`.
fn without_page_one(log: &[u8]) -> Vec<u8> {
    use wal_core::format::{DecodedHeader, FrameHeader, LogHeader};
    let header = LogHeader::decode(log[..32].first_chunk().unwrap());
    let DecodedHeader::Valid(header, checksum) = header else {
        panic!("{header:?}")
    };
    let content = vec![3; header.page_size.len()];
    let frame = FrameHeader {
        page: wal_core::PageNo::new(2).unwrap(),
        commit_size: 5,
        salts: header.salts,
    };
    let (head, _) = frame.encode(header.byte_order, checksum, &content);
    [&log[..32], &head, &content].concat()
}

#[test]
fn new_file_that_exists_or_has_a_log_is_refused() {
    let copy = fixtures::named("pages-512").unwrap().copy().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.db");
    fs::write(&new, b"mine").unwrap();
    let output = recover(&copy.database(), &new, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&new).unwrap(), b"mine");
    fs::remove_file(&new).unwrap();
    fs::write(folder.path().join("new.db-wal"), b"a log").unwrap();
    let output = recover(&copy.database(), &new, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(message(&output).contains("new.db-wal"), "{output:?}");
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 1, "nothing is left");
}

/// A process with rows that are committed and not in the database file.
fn holder(folder: &Path) -> (PathBuf, Python) {
    let database = folder.join("app.db");
    let mut holder = Python::connect(&database);
    holder.run("db.execute('PRAGMA journal_mode=wal').fetchone()");
    holder.run("db.execute('PRAGMA wal_autocheckpoint=0').fetchone()");
    holder.run("db.execute('CREATE TABLE t (x)')");
    holder.run("for i in range(100): db.execute('INSERT INTO t VALUES (?)', (i,))");
    (database, holder)
}

fn sum(path: &Path) -> (i64, i64) {
    let stock = Connection::open(path).unwrap();
    stock
        .query_row("SELECT count(*), ifnull(sum(x), 0) FROM t", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap()
}

#[test]
fn log_that_was_removed_is_taken_from_the_process_that_has_it_open() {
    if !Need::Python.is_met("recover from the descriptors of a process") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut holder) = holder(folder.path());
    fs::remove_file(folder.path().join("app.db-wal")).unwrap();
    // It goes on, and so loses more.
    holder.run("db.execute('INSERT INTO t VALUES (1000)')");
    let pid = holder.pid().to_string();
    let new = folder.path().join("new.db");
    let before = fs::read(&database).unwrap();
    let report = recovered(&database, &new, &["--from-pid", &pid]);
    assert_eq!(sum(&new), (101, 4950 + 1000));
    assert_eq!(integrity(&new), "ok");
    assert_eq!(fs::read(&database).unwrap(), before);
    let note = json!(format!(
        "the log that process {pid} has open was removed or replaced"
    ));
    assert!(
        report["notes"].as_array().unwrap().contains(&note),
        "{report}"
    );
    // The database and the index, too.
    fs::remove_file(&database).unwrap();
    fs::remove_file(folder.path().join("app.db-shm")).unwrap();
    holder.run("db.execute('INSERT INTO t VALUES (2000)')");
    let all = folder.path().join("all.db");
    recovered(&database, &all, &["--from-pid", &pid]);
    assert_eq!(sum(&all), (102, 4950 + 3000));
    assert_eq!(integrity(&all), "ok");
    // The process was not disturbed.
    assert_eq!(
        holder.run("print(db.execute('SELECT count(*) FROM t').fetchone())"),
        "(102,)"
    );
}

#[test]
fn log_that_was_replaced_is_told_from_the_one_that_a_process_has() {
    if !Need::Python.is_met("recover from the descriptors of a process") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, holder) = holder(folder.path());
    let log = folder.path().join("app.db-wal");
    fs::remove_file(&log).unwrap();
    fs::write(&log, vec![7; 10_000]).unwrap();
    let new = folder.path().join("new.db");
    recovered(&database, &new, &["--from-pid", &holder.pid().to_string()]);
    assert_eq!(sum(&new), (100, 4950));
}

#[test]
fn database_in_use_is_refused_with_what_to_do() {
    if !Need::Python.is_met("recover beside a live process") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, holder) = holder(folder.path());
    let new = folder.path().join("new.db");
    let output = recover(&database, &new, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let message = message(&output);
    for part in [&holder.pid().to_string(), "walctl backup", "--from-pid"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!new.exists());
    let other = Python::connect(&folder.path().join("other.db"));
    let output = recover(&database, &new, &["--from-pid", &other.pid().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    drop(holder);
    recovered(&database, &new, &[]);
    assert_eq!(sum(&new), (100, 4950));
}

#[test]
fn text_says_what_was_taken_and_what_was_left() {
    let copy = fixtures::named("flipped-tail").unwrap().copy().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = common::command(["recover"]);
    command
        .arg(copy.database())
        .arg("--to")
        .arg(folder.path().join("new.db"));
    let shown = text(&command.output().unwrap());
    let shown = shown
        .replace(copy.folder().to_str().unwrap(), "[FOLDER]")
        .replace(folder.path().to_str().unwrap(), "[NEW]");
    insta::assert_snapshot!(shown, @r"
    [NEW]/new.db: 14 pages, 14.0 KiB
      from   [FOLDER]/app.db and 8 frames with 2 commits of [FOLDER]/app.db-wal
      left   6 frames behind those: 1 commit lost
      note   frame 9 of the log: its checksum does not continue that of the frame before; 1 commit behind it cannot be used
      ok     page 1     in the database file; a SQLite database in WAL mode with pages of 1024 bytes
      ok     size       14 pages; 14 in the database file, 0 in the log
      ok     free pages there are none
    ");
}

/// Changes a byte of the content of frame `frame`.
fn damage_frame(log: &Path, page_size: usize, frame: usize) {
    let mut bytes = fs::read(log).unwrap();
    bytes[32 + (frame - 1) * (page_size + 24) + 24 + 100] ^= 1;
    fs::write(log, bytes).unwrap();
}

#[test]
fn damaged_log_is_left_out_once_a_checkpoint_moved_it() {
    if !Need::Python.is_met("recover beside an index") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut holder) = holder(folder.path());
    let moved = holder.run("print(db.execute('PRAGMA wal_checkpoint').fetchone()[1:])");
    let (frames, backfilled) = moved.trim_matches(['(', ')']).split_once(", ").unwrap();
    assert_eq!(frames, backfilled);
    drop(holder);
    damage_frame(&folder.path().join("app.db-wal"), 4096, 20);
    let new = folder.path().join("new.db");
    let report = recovered(&database, &new, &[]);
    assert_eq!(
        (sum(&new), report["frames"].as_u64()),
        ((100, 4950), Some(0))
    );
    assert_eq!(integrity(&new), "ok");
    let verified = common::walctl("verify", &database, &[]);
    assert_eq!(verified.status.code(), Some(5));
    assert!(
        text(&verified).contains("over which it lays older pages"),
        "{verified:?}"
    );
}

#[test]
fn state_that_mixes_commits_is_not_called_consistent() {
    // A checkpoint has moved 11 of the 17 frames.
    let copy = fixtures::named("with-shm").unwrap().copy().unwrap();
    damage_frame(&copy.log(), 1024, 6);
    let folder = tempfile::tempdir().unwrap();
    let output = recover(&copy.database(), &folder.path().join("mixed"), &[]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(reports(&output)[0]["is_consistent"], false);
    let copy = fixtures::named("with-shm").unwrap().copy().unwrap();
    damage_frame(&copy.log(), 1024, 14);
    let report = recovered(&copy.database(), &folder.path().join("new"), &[]);
    assert_eq!(
        (&report["frames"], &report["lost_commits"]),
        (&json!(11), &json!(2))
    );
}

/// Each transaction adds two rows whose sum is 0.
#[test]
fn files_of_a_process_that_writes_give_whole_commits() {
    if !Need::Python.is_met("recover from the descriptors of a process") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut holder) = holder(folder.path());
    holder.run("db.execute('DELETE FROM t')");
    fs::remove_file(folder.path().join("app.db-wal")).unwrap();
    let pid = holder.pid().to_string();
    let work = concat!(
        "for i in range(300): ",
        "db.execute('BEGIN'); db.execute('INSERT INTO t VALUES (?)', (i,)); ",
        "db.execute('INSERT INTO t VALUES (?)', (-i,)); db.execute('COMMIT')",
    );
    let mut before = 0;
    for round in 0..4 {
        let new = folder.path().join(format!("new-{round}.db"));
        std::thread::scope(|scope| {
            scope.spawn(|| holder.run(work));
            recovered(&database, &new, &["--from-pid", &pid]);
        });
        let (count, sum) = sum(&new);
        assert_eq!((count % 2, sum, integrity(&new).as_str()), (0, 0, "ok"));
        assert!(count >= before && count <= (round + 1) * 600, "{count}");
        before = round * 600;
    }
}

#[test]
fn interrupted_recovery_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let stock = Connection::open(&database).unwrap();
    let setup = "PRAGMA page_size = 512; CREATE TABLE t (x);
        INSERT INTO t VALUES (zeroblob(60000000)); PRAGMA journal_mode = wal;";
    stock.execute_batch(setup).unwrap();
    drop(stock);
    let to = tempfile::tempdir().unwrap();
    let new = to.path().join("new.db");
    let mut command = common::command(["recover", "--json"]);
    let mut child = command
        .arg(&database)
        .arg("--to")
        .arg(&new)
        .spawn()
        .unwrap();
    // Its file has a name of its own until it is whole.
    let is_writing = || fs::read_dir(to.path()).unwrap().count() > 0;
    let begun = std::time::Instant::now();
    while !is_writing() && begun.elapsed().as_secs() < 60 {
        std::thread::yield_now();
    }
    assert!(is_writing() && !new.exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        !is_writing(),
        "{:?}",
        fs::read_dir(to.path()).unwrap().next()
    );
}

#[test]
fn log_beside_a_restored_database_is_reported() {
    if !Need::Python.is_met("recover beside a foreign log") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, mut holder) = holder(folder.path());
    holder.run("db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()");
    let backup = folder.path().join("backup");
    fs::copy(&database, &backup).unwrap();
    // Each connection counts the change counter up once.
    holder.run("path = db.execute('PRAGMA database_list').fetchone()[2]");
    holder.run("for i in range(9): sqlite3.connect(path).execute(f'CREATE TABLE t{i} (x)')");
    holder.run("db.execute('DROP TABLE t0')");
    holder.run("db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()");
    holder.run("db.execute('CREATE TABLE last (x)')");
    drop(holder);
    let verify = || common::walctl("verify", &database, &[]);
    assert_eq!(verify().status.code(), Some(0), "{:?}", verify());
    fs::copy(&backup, &database).unwrap();
    let verified = verify();
    assert_eq!(verified.status.code(), Some(5), "{verified:?}");
    assert!(
        text(&verified).contains("does not seem to follow"),
        "{verified:?}"
    );
    let output = recover(&database, &folder.path().join("new.db"), &[]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let report = &reports(&output)[0];
    let notes = report["notes"].as_array().unwrap();
    let is_named = |note: &Value| note.as_str().unwrap().contains("does not seem to follow");
    assert!(notes.iter().any(is_named), "{report}");
}
