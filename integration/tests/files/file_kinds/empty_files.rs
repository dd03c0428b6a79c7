//! An empty file is a valid SQLite database: stock SQLite makes one before its first write.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, thread};

use integration::needs::Need;
use integration::spawn::spawn;
use integration::worker::BackendKind;
use wal::{DatabaseKind, PAGE_STORE_HEADER_LEN, PageNo};

use super::{expect_rows, options, refused, refused_saying, try_open};

#[test]
fn empty_file_is_left_alone_unless_pages_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    fs::write(&path, "").unwrap();
    let says = ["it is empty", "journal_mode=WAL", "PageStore"];
    for asked in [
        options(),
        options().create(false),
        options().kind(DatabaseKind::Sqlite),
    ] {
        refused_saying(&asked, &path, &says);
        refused(&asked.clone().read_only(true), folder.path(), &path);
        refused(&asked.immutable(true), folder.path(), &path);
    }
    for kind in [DatabaseKind::PageStore, DatabaseKind::RawPages] {
        let asked = options().kind(kind);
        refused_saying(&asked.clone().create(false), &path, &["it is empty"]);
        refused(&asked.clone().read_only(true), folder.path(), &path);
        refused(&asked.immutable(true), folder.path(), &path);
    }
    super::sqlite_database(&path);
    try_open(BackendKind::Shm, &options(), &path).unwrap();
    expect_rows(&path);
}

#[test]
fn empty_file_becomes_a_page_store_if_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let path = folder.path().join(format!("{backend:?}"));
        fs::write(&path, "").unwrap();
        try_open(backend, &options().kind(DatabaseKind::PageStore), &path).unwrap();
        try_open(backend, &options(), &path).unwrap();
    }
}

/// Stock SQLite that has read the empty file under SHARED writes to it as soon as it can.
#[test]
fn empty_file_that_stock_reads_does_not_become_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut stock =
        integration::stock::StockSqlite::spawn(integration::stock::StockKind::Bundled, &path, None)
            .unwrap();
    for sql in ["BEGIN", "SELECT * FROM sqlite_schema"] {
        stock.run(sql).unwrap().unwrap();
    }
    let asked = options().kind(DatabaseKind::PageStore);
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let refused = try_open(backend, &asked, &path).unwrap_err();
        assert!(matches!(refused, wal::Error::Locked { .. }), "{refused:?}");
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    for sql in ["CREATE TABLE t(a)", "COMMIT"] {
        stock.run(sql).unwrap().unwrap();
    }
    stock.close().unwrap();
    refused_saying(&asked, &path, &["a SQLite database"]);
}

/// Makes a database at each path that it reads, as an application does that is started beside
/// ours, and tells first that it begins.
const PYTHON: &str = r#"
import sqlite3, sys
def insist(what):
    for _ in range(1000):
        try:
            return what()
        except sqlite3.OperationalError as e:
            if "locked" not in str(e):
                raise
    raise Exception("still locked")
for number, path in enumerate(sys.stdin):
    print(path.strip(), flush=True)
    db = sqlite3.connect(path.strip(), timeout=20, isolation_level=None)
    if number % 2:
        insist(lambda: db.execute("CREATE TABLE t(a)"))
    insist(lambda: db.execute("PRAGMA journal_mode=WAL"))
    if number % 2 == 0:
        insist(lambda: db.execute("CREATE TABLE t(a)"))
    insist(lambda: db.execute("INSERT INTO t VALUES(1), (2), (3)"))
    db.close()
"#;

#[test]
fn database_that_python_creates_in_a_race_is_never_destroyed() {
    const DATABASES: u32 = 200;
    if !Need::Python.is_met("a database that Python creates while ours open it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |number: u32| folder.path().join(format!("{number}.db"));
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = spawn(command).unwrap();
    let mut paths = python.stdin.take().unwrap();
    let mut begun = BufReader::new(python.stdout.take().unwrap());
    let current = AtomicU32::new(0);
    thread::scope(|scope| {
        for create in [false, true] {
            let (current, at) = (&current, &at);
            scope.spawn(move || watch(current, DATABASES, create, at));
        }
        for number in 0..DATABASES {
            current.store(number, Ordering::SeqCst);
            writeln!(paths, "{}", at(number).display()).unwrap();
            let mut line = String::new();
            let read = begun.read_line(&mut line);
            if !matches!(read, Ok(1..)) {
                current.store(DATABASES, Ordering::SeqCst);
                panic!("Python ended at {number}");
            }
        }
        drop(paths);
        let status = python.wait().unwrap();
        current.store(DATABASES, Ordering::SeqCst);
        assert!(status.success());
    });
    for number in 0..DATABASES {
        expect_rows(&at(number));
    }
}

/// Tries to open the current database all the time.
fn watch(current: &AtomicU32, end: u32, create: bool, at: impl Fn(u32) -> std::path::PathBuf) {
    loop {
        let number = current.load(Ordering::SeqCst);
        if number >= end {
            return;
        }
        if let Ok(database) = options().create(create).open(at(number)) {
            let _ = database.begin_read();
            let _ = database.close();
        }
    }
}

fn count_up(path: &Path) -> wal::Result<()> {
    let database = options()
        .kind(DatabaseKind::PageStore)
        .busy_timeout(Duration::from_secs(30))
        .open(path)?;
    let mut write = database.begin_write()?;
    let counter = &mut write.page_mut(PageNo::ONE)?[PAGE_STORE_HEADER_LEN];
    *counter += 1;
    write.commit()?;
    database.close()
}

#[test]
fn page_store_that_many_make_at_once_is_made_once() {
    const THREADS: u8 = 6;
    let folder = tempfile::tempdir().unwrap();
    for round in 0..40 {
        let path = folder.path().join(round.to_string());
        if round % 2 == 1 {
            fs::write(&path, "").unwrap();
        }
        let barrier = Barrier::new(usize::from(THREADS));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    count_up(&path).unwrap();
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[PAGE_STORE_HEADER_LEN], THREADS, "round {round}");
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        40,
        "leftovers"
    );
}
