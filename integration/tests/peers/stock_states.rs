//! What a stock SQLite can leave behind or be doing: each is met with the
//! right data, or a clear refusal, and ours goes on.

use integration::stamped;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::needs::Need;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::Stamp;
use tempfile::TempDir;
use wal::{CheckpointMode, Database, Error, Options, PageNo};
use wal_core::storage::beside;

struct Scene {
    path: PathBuf,
    /// Pages that ours stamp.
    pages: Range<u32>,
    _directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let pages = stamped::create(&path, 1024, 8, "CREATE TABLE rows(n)").unwrap();
        Scene {
            path,
            pages,
            _directory: directory,
        }
    }

    fn ours(&self) -> Database {
        let options = Options::new().busy_timeout(Duration::from_millis(50));
        options.auto_checkpoint(0).open(&self.path).unwrap()
    }

    fn stock(&self, kind: StockKind) -> StockSqlite {
        StockSqlite::spawn(kind, &self.path, None).unwrap()
    }

    fn stamp(&self, database: &Database, sequence: u64) {
        let mut write = database.begin_write().unwrap();
        for page in self.pages.clone() {
            let bytes = write.page_mut(PageNo::new(page).unwrap()).unwrap();
            stamp(sequence).write(page, bytes);
        }
        write.commit().unwrap();
    }

    fn expect_stamps(&self, database: &Database, sequence: u64) {
        let read = database.begin_read().unwrap();
        for page in self.pages.clone() {
            let bytes = read.page(PageNo::new(page).unwrap()).unwrap();
            assert_eq!(Stamp::read(page, &bytes).unwrap(), Some(stamp(sequence)));
        }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }
}

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

fn run(stock: &mut StockSqlite, sql: &str) {
    stock.run(sql).unwrap().unwrap();
}

fn rows(stock: &mut StockSqlite) -> i64 {
    let rows = stock.run("SELECT count(*) FROM rows").unwrap().unwrap();
    rows.integer().unwrap()
}

fn expect_sound(stock: &mut StockSqlite) {
    let check = stock.run("PRAGMA integrity_check").unwrap().unwrap();
    assert_eq!(check.text().unwrap(), "ok");
}

/// Runs a script in the shell of the system, which knows commands that are no
/// SQL. False, with a word to the reader, if there is none.
fn shell(path: &Path, script: &str) -> bool {
    if !Need::Shell.is_met("a log that stock SQLite made to persist") {
        return false;
    }
    let mut shell = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(shell.wait().unwrap().success(), "{script}");
    true
}

#[test]
fn a_log_that_stock_sqlite_made_to_persist_is_gone_on_with() {
    for rows_in_log in [0, 3] {
        let scene = Scene::new();
        let insert = "INSERT INTO rows VALUES(1);\n".repeat(rows_in_log);
        let script = format!(".filectrl persist_wal 1\nSELECT count(*) FROM rows;\n{insert}");
        if !shell(&scene.path, &script) {
            return;
        }
        // The last closer has checkpointed, and left both files.
        for suffix in ["-wal", "-shm"] {
            assert!(scene.file(suffix).exists(), "{suffix} did not persist");
        }
        let database = scene.ours();
        scene.stamp(&database, 1);
        scene.stamp(&database, 2);
        let mut stock = scene.stock(StockKind::Bundled);
        assert_eq!(rows(&mut stock), i64::try_from(rows_in_log).unwrap());
        expect_sound(&mut stock);
        stock.close().unwrap();
        scene.expect_stamps(&database, 2);
        database.close().unwrap();
        assert!(!scene.file("-wal").exists(), "the last closer removes it");
        scene.expect_stamps(&scene.ours(), 2);
    }
}

#[test]
fn a_log_that_stock_sqlite_cuts_to_its_limit_is_read_and_written_on() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let database = scene.ours();
        let mut stock = scene.stock(kind);
        run(&mut stock, "PRAGMA journal_size_limit=2000");
        run(&mut stock, "PRAGMA wal_autocheckpoint=0");
        for round in 1..=5 {
            scene.stamp(&database, 2 * round - 1);
            scene.stamp(&database, 2 * round);
            let long = fs::metadata(scene.file("-wal")).unwrap().len();
            let all = database.checkpoint(CheckpointMode::Passive).unwrap();
            assert!(all.is_complete(), "{kind}: {all:?}");
            // The commit that begins the log anew cuts it.
            run(&mut stock, "INSERT INTO rows VALUES(1)");
            let cut = fs::metadata(scene.file("-wal")).unwrap().len();
            assert!(cut < long, "{kind}: {cut} bytes, {long} before");
            scene.expect_stamps(&database, 2 * round);
        }
        assert_eq!(rows(&mut stock), 5);
        expect_sound(&mut stock);
        stock.close().unwrap();
        database.close().unwrap();
    }
}

#[test]
fn stock_sqlite_leaves_wal_mode_only_when_ours_is_not_there() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let database = scene.ours();
        scene.stamp(&database, 1);
        let mut stock = scene.stock(kind);
        let leave = "PRAGMA journal_mode=DELETE";
        let refused = stock.run(leave).unwrap().unwrap_err();
        assert!(refused.is_busy(), "{kind}: {refused}");
        scene.stamp(&database, 2);
        database.close().unwrap();
        run(&mut stock, leave);
        stock.close().unwrap();
        let opened = Options::new().open(&scene.path);
        assert!(
            matches!(opened, Err(Error::NotWalMode { .. })),
            "{opened:?}"
        );
        assert!(!scene.file("-shm").exists(), "nothing was made");
        let mut stock = scene.stock(kind);
        run(&mut stock, "PRAGMA journal_mode=WAL");
        stock.close().unwrap();
        scene.expect_stamps(&scene.ours(), 2);
    }
}

#[test]
fn stock_sqlite_vacuums_while_ours_reads() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let mut stock = scene.stock(kind);
        run(&mut stock, "CREATE TABLE gone(a)");
        run(&mut stock, "INSERT INTO gone VALUES(zeroblob(100000))");
        let database = scene.ours();
        scene.stamp(&database, 1);
        run(&mut stock, "DROP TABLE gone");
        let before = database.begin_read().unwrap();
        let image = |read: &wal::ReadTx| -> Vec<Vec<u8>> {
            let page = |number| read.page(PageNo::new(number).unwrap()).unwrap().to_vec();
            (1..=read.page_count()).map(page).collect()
        };
        let old = image(&before);
        run(&mut stock, "VACUUM");
        run(&mut stock, "PRAGMA wal_checkpoint(PASSIVE)");
        assert!(image(&before) == old, "{kind}: a snapshot changed");
        let after = database.begin_read().unwrap();
        assert!(after.page_count() < before.page_count());
        drop((before, after));
        run(&mut stock, "PRAGMA wal_checkpoint(TRUNCATE)");
        expect_sound(&mut stock);
        // Read through a mapping that is longer than the file.
        let read = database.begin_read().unwrap();
        let len = fs::metadata(&scene.path).unwrap().len();
        assert_eq!(u64::from(read.page_count()) * 1024, len);
        image(&read);
    }
}

#[test]
fn an_owner_in_exclusive_mode_is_told_of_and_waited_for() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let mut owner = scene.stock(kind);
        run(&mut owner, "PRAGMA locking_mode=EXCLUSIVE");
        run(&mut owner, "INSERT INTO rows VALUES(1)");
        let options = Options::new().busy_timeout(Duration::ZERO);
        let refused = options.open(&scene.path);
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
        assert!(
            !scene.file("-shm").exists(),
            "the owner's index is on its heap"
        );
        owner.kill().unwrap();
        let database = scene.ours();
        scene.stamp(&database, 1);
        let mut stock = scene.stock(kind);
        assert_eq!(rows(&mut stock), 1, "{kind}: what the owner committed");
        expect_sound(&mut stock);
    }
}

/// Who says that nobody writes sees the file alone, and is in nobody's way.
#[test]
fn a_stock_reader_of_an_immutable_file_sees_what_was_checkpointed() {
    let scene = Scene::new();
    let database = scene.ours();
    scene.stamp(&database, 1);
    run(
        &mut scene.stock(StockKind::Bundled),
        "INSERT INTO rows VALUES(1)",
    );
    assert!(
        database
            .checkpoint(CheckpointMode::Passive)
            .unwrap()
            .is_complete()
    );
    run(
        &mut scene.stock(StockKind::Bundled),
        "INSERT INTO rows VALUES(2)",
    );
    let uri = format!("file:{}?immutable=1", scene.path.display());
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let immutable = rusqlite::Connection::open_with_flags(uri, flags).unwrap();
    let count = |sql| -> i64 { immutable.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM rows"), 1);
    scene.stamp(&database, 2);
    let truncated = database.checkpoint(CheckpointMode::Truncate).unwrap();
    assert_eq!(truncated.held_back_by, None);
    scene.expect_stamps(&database, 2);
}
