//! Databases that are not files of the system, or other ones than their names say:
//! our log is only beside the very file that the engine has open.
#![cfg(all(feature = "shm", feature = "inproc"))]
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

mod layer;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_uint};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use layer::{Call, Layer};
use wal_core::storage::LOOK_IN_PLACE_EVERY;
use wal_libsql::{BackendKind, Connection, OpenOptions, SqlError, Value, WalOptions, ffi};

/// Opens what a name or a URI says.
type Open = fn(&str) -> Result<Connection, SqlError>;

fn own_log(name: &str) -> Result<Connection, SqlError> {
    let name = CString::new(name).unwrap();
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
    let mut db = ptr::null_mut();
    // SAFETY: the name ends with a zero.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, ptr::null()) };
    // SAFETY: it is open, and used here only.
    let connection = unsafe { Connection::from_raw(NonNull::new(db).unwrap()) };
    match code {
        ffi::SQLITE_OK => Ok(connection),
        code => Err(SqlError {
            code,
            message: String::new(),
        }),
    }
}

fn our_log(name: &str) -> Result<Connection, SqlError> {
    OpenOptions::new(BackendKind::Shared).open(name)
}

fn in_process(name: &str) -> Result<Connection, SqlError> {
    OpenOptions::new(BackendKind::InProcess).open(name)
}

/// What a statement gives: its rows, or the code of the error.
type Answer = Result<Vec<Vec<Value>>, c_int>;

fn answers(db: &Connection, script: &str) -> Vec<Answer> {
    let lines = script.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| db.query(line).map_err(|e| e.code & 0xff))
        .collect()
}

fn uri(path: &Path, parameters: &str) -> String {
    format!("file:{}?{parameters}", path.display())
}

/// The files of a folder but for our side file, with what they hold.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|path| !path.as_os_str().as_bytes().ends_with(b"-coord"));
    files
        .map(|path| {
            // The lock of `unix-dotfile` is a folder.
            let bytes = fs::read(&path).unwrap_or_default();
            (path, bytes)
        })
        .collect()
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let prefix = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_owned();
    contents(folder).keys().map(prefix).collect()
}

fn leave_log(db: &Connection) {
    let option = ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    let nowhere = ptr::null_mut::<c_int>();
    // SAFETY: the connection is open; the option takes a number and a place for the
    // answer, which may be null.
    let code = unsafe { ffi::sqlite3_db_config(db.as_raw().as_ptr(), option, 1 as c_int, nowhere) };
    assert_eq!(code, ffi::SQLITE_OK);
}

const NEW: &str = "PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)";

/// A database whose commits are in its log only.
fn with_commits_in_log(path: &Path) {
    let db = own_log(path.to_str().unwrap()).unwrap();
    db.execute(NEW).unwrap();
    db.execute("INSERT INTO t VALUES (2)").unwrap();
    leave_log(&db);
}

fn count(path: &Path) -> Vec<Vec<Value>> {
    let db = own_log(path.to_str().unwrap()).unwrap();
    db.query("SELECT count(*) FROM t").unwrap()
}

fn deserialize(db: &Connection, image: &[u8]) {
    // SAFETY: it takes any length.
    let copy = unsafe { ffi::sqlite3_malloc64(image.len() as u64) }.cast::<u8>();
    assert!(!copy.is_null());
    // SAFETY: there is room for the image.
    unsafe { ptr::copy_nonoverlapping(image.as_ptr(), copy, image.len()) };
    let len = i64::try_from(image.len()).unwrap();
    let flags = ffi::SQLITE_DESERIALIZE_FREEONCLOSE | ffi::SQLITE_DESERIALIZE_RESIZEABLE;
    let flags = c_uint::try_from(flags).unwrap();
    // SAFETY: the connection is open, and the memory is the engine's own.
    let code = unsafe {
        ffi::sqlite3_deserialize(
            db.as_raw().as_ptr(),
            c"main".as_ptr(),
            copy,
            len,
            len,
            flags,
        )
    };
    assert_eq!(code, ffi::SQLITE_OK);
}

/// The image has the mode WAL in its header, and the name `x`, as any has.
#[test]
fn memory_image_leaves_the_file_of_its_name_alone() {
    let dir = tempfile::tempdir().unwrap();
    // No other test of this process goes by the folder that it is in.
    std::env::set_current_dir(dir.path()).unwrap();
    with_commits_in_log(Path::new("image"));
    let image = own_log("image").unwrap();
    image.execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(image);
    let image = fs::read("image").unwrap();
    fs::remove_file("image").unwrap();
    with_commits_in_log(Path::new("x"));
    let files = contents(dir.path());
    for backend in [our_log, in_process] {
        let of = |open: Open| {
            let db = open(":memory:").unwrap();
            deserialize(&db, &image);
            let script = "SELECT count(*) FROM t
PRAGMA locking_mode = EXCLUSIVE
SELECT count(*) FROM t
PRAGMA journal_mode
INSERT INTO t VALUES (3)
PRAGMA wal_checkpoint(PASSIVE)
INSERT INTO t VALUES (4)
PRAGMA wal_checkpoint(TRUNCATE)
SELECT a FROM t
PRAGMA journal_mode = DELETE
SELECT a FROM t";
            answers(&db, script)
        };
        let (ours, own) = (of(backend), of(own_log));
        assert_eq!(ours, own);
        assert_eq!(ours[8].as_ref().unwrap().len(), 4, "{ours:?}");
        assert_eq!(contents(dir.path()), files);
    }
    assert_eq!(count(Path::new("x")), [[Value::Integer(2)]]);
}

/// Puts its files elsewhere, under names with a prefix.
struct Prefixes;

impl Layer for Prefixes {
    fn instead_of(&self, name: &CStr) -> Option<CString> {
        let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let name = path.file_name().unwrap().to_str().unwrap();
        let other = path.with_file_name(format!("other-{name}"));
        CString::new(other.into_os_string().into_encoded_bytes()).ok()
    }
}

/// Has other bytes in its files than the engine.
struct Inverts;

impl Layer for Inverts {
    fn encode(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = !*byte;
        }
    }
}

/// Passes everything on, and counts.
struct Passes {
    maps: AtomicUsize,
    hides_place: bool,
}

impl Layer for Passes {
    fn answer(&self, call: Call) -> Option<c_int> {
        if call.method == "xShmMap" {
            self.maps.fetch_add(1, Ordering::Relaxed);
        }
        let asks_place =
            call.method == "xFileControl" && call.of == i64::from(ffi::SQLITE_FCNTL_HAS_MOVED);
        (asks_place && self.hides_place).then_some(ffi::SQLITE_NOTFOUND)
    }
}

static PASSES: Passes = Passes {
    maps: AtomicUsize::new(0),
    hides_place: false,
};

static HIDES: Passes = Passes {
    maps: AtomicUsize::new(0),
    hides_place: true,
};

fn register_layers() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        layer::register(c"prefixes", &Prefixes);
        layer::register(c"inverts", &Inverts);
        layer::register(c"passes", &PASSES);
        layer::register(c"hides", &HIDES);
    });
}

const WORK: &str = "PRAGMA journal_mode = WAL
CREATE TABLE t(a)
INSERT INTO t VALUES ('a secret')
PRAGMA wal_checkpoint(PASSIVE)
INSERT INTO t VALUES (2)
SELECT count(*) FROM t";

#[test]
fn file_of_another_name_has_the_log_of_that_name() {
    register_layers();
    for open in [our_log, in_process, own_log] {
        for exclusive in ["", "PRAGMA locking_mode = EXCLUSIVE"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            with_commits_in_log(&path);
            let before = contents(dir.path());
            let db = open(&uri(&path, "vfs=prefixes")).unwrap();
            db.execute(exclusive).unwrap();
            let answers = answers(&db, WORK);
            assert_eq!(answers[5], Ok(vec![vec![Value::Integer(2)]]), "{answers:?}");
            assert!(dir.path().join("other-db-wal").exists());
            drop(db);
            let mut after = contents(dir.path());
            after.remove(&dir.path().join("other-db")).unwrap();
            assert_eq!(after, before);
            assert_eq!(count(&dir.path().join("other-db")), [[Value::Integer(2)]]);
            assert_eq!(count(&path), [[Value::Integer(2)]]);
        }
    }
}

#[test]
fn encoded_file_has_an_encoded_log() {
    register_layers();
    for open in [our_log, in_process, own_log] {
        for exclusive in ["", "PRAGMA locking_mode = EXCLUSIVE"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            let name = uri(&path, "vfs=inverts");
            let db = open(&name).unwrap();
            db.execute(exclusive).unwrap();
            let answers = answers(&db, WORK);
            assert_eq!(answers[5], Ok(vec![vec![Value::Integer(2)]]), "{answers:?}");
            for (path, bytes) in contents(dir.path()) {
                let plain = bytes.windows(8).any(|bytes| bytes == b"a secret");
                assert!(!plain, "{} is not encoded", path.display());
            }
            drop(db);
            let db = own_log(&name).unwrap();
            let rows = db.query("SELECT count(*) FROM t").unwrap();
            assert_eq!(rows, [[Value::Integer(2)]]);
        }
    }
}

/// The first use of the log comes later than the file is opened.
#[test]
fn replaced_file_is_refused_and_the_other_log_is_left_alone() {
    for open in [our_log, in_process] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        with_commits_in_log(&path);
        let moved = open(path.to_str().unwrap()).unwrap();
        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::rename(dir.path().join("db-wal"), dir.path().join("old-wal")).unwrap();
        with_commits_in_log(&path);
        let before = contents(dir.path());
        let refused = moved.query("SELECT * FROM t").unwrap_err();
        assert_eq!(refused.code, ffi::SQLITE_READONLY_DBMOVED, "{refused}");
        drop(moved);
        assert_eq!(contents(dir.path()), before);
    }
}

/// The path leads nowhere, or to another database, and the directory still has the file.
#[test]
fn database_whose_parent_is_renamed_goes_on() {
    for open in [our_log, in_process] {
        for replaced in [false, true] {
            let top = tempfile::tempdir().unwrap();
            let (old, new) = (top.path().join("old"), top.path().join("new"));
            fs::create_dir(&old).unwrap();
            with_commits_in_log(&old.join("db"));
            let db = open(old.join("db").to_str().unwrap()).unwrap();
            db.execute("INSERT INTO t VALUES (3)").unwrap();
            fs::rename(&old, &new).unwrap();
            if replaced {
                fs::create_dir(&old).unwrap();
                with_commits_in_log(&old.join("db"));
            }
            let before = replaced.then(|| contents(&old));
            // Longer than files are not looked for.
            let until = Instant::now() + 3 * LOOK_IN_PLACE_EVERY;
            let mut rows = 3;
            while Instant::now() < until {
                db.execute("INSERT INTO t VALUES (4)").unwrap();
                db.execute("PRAGMA wal_checkpoint").unwrap();
                rows += 1;
            }
            drop(db);
            assert_eq!(replaced.then(|| contents(&old)), before);
            // The engine, which goes by the path, has left the log.
            assert_eq!(count(&new.join("db")), [[Value::Integer(rows)]]);
        }
    }
}

#[test]
fn removed_file_is_refused_and_no_log_is_made() {
    for open in [our_log, in_process] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = own_log(path.to_str().unwrap()).unwrap();
        db.execute(NEW).unwrap();
        drop(db);
        let removed = open(path.to_str().unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = removed.query("SELECT * FROM t").unwrap_err();
        assert_eq!(refused.code, ffi::SQLITE_READONLY_DBMOVED, "{refused}");
        drop(removed);
        assert!(names(dir.path()).is_empty());
    }
}

/// What the engine does itself with names and parameters is no affair of the log.
#[test]
fn parameters_of_a_uri_mean_what_they_mean_on_the_engine_log() {
    for parameters in [
        "vfs=unix-none",
        "vfs=unix-dotfile",
        "vfs=unix-excl",
        "vfs=unix",
        "nolock=1",
        "immutable=1",
        "psow=0",
        "psow=1&mode=rw",
        "cache=shared",
        "mode=ro",
    ] {
        for exclusive in [
            "PRAGMA locking_mode = NORMAL",
            "PRAGMA locking_mode = EXCLUSIVE",
        ] {
            let of = |open: Open| {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("db");
                drop(own_log(path.to_str().unwrap()).unwrap().execute(NEW));
                let db = open(&uri(&path, parameters)).unwrap();
                let script = format!(
                    "{exclusive}
SELECT count(*) FROM t
INSERT INTO t VALUES (2)
PRAGMA wal_checkpoint(PASSIVE)
INSERT INTO t VALUES (3)
SELECT count(*) FROM t
PRAGMA journal_mode
ATTACH ':memory:' AS m
PRAGMA m.journal_mode = WAL
CREATE TABLE m.u AS SELECT * FROM t
CREATE TEMP TABLE v AS SELECT * FROM u
VACUUM INTO '{}'
SELECT count(*) FROM v",
                    dir.path().join("into").display(),
                );
                let answers = answers(&db, &script);
                let open_names = names(dir.path());
                drop(db);
                (answers, open_names, names(dir.path()), count(&path))
            };
            let (mut ours, own) = (of(our_log), of(own_log));
            if parameters == "vfs=unix-excl" {
                // The engine has its index on the heap there.
                ours.1.retain(|name| name != Path::new("db-shm"));
            }
            assert_eq!(ours, own, "{parameters}, {exclusive}");
        }
    }
}

/// The VFS has the full name, without links, when it opens the file.
#[test]
fn log_is_beside_the_file_that_a_link_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let (real, linked) = (dir.path().join("real"), dir.path().join("linked"));
    fs::create_dir(&real).unwrap();
    fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(real.join("db"), linked.join("link")).unwrap();
    let db = our_log(linked.join("link").to_str().unwrap()).unwrap();
    db.execute(NEW).unwrap();
    assert_eq!(names(&linked), [PathBuf::from("link")]);
    assert_eq!(names(&real).len(), 3);
    assert_eq!(count(&real.join("db")), [[Value::Integer(1)]]);
}

fn trusting(vfs: &'static CStr, name: &str) -> Connection {
    let wal = WalOptions::new(BackendKind::Shared).transparent_vfs(vfs);
    let options = OpenOptions::new(BackendKind::Shared).wal(wal);
    options.open(name).unwrap()
}

/// Connections by each way to one database, in one process.
#[test]
fn file_that_is_passed_on_has_our_log_if_the_program_says_so() {
    register_layers();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let name = uri(&path, "vfs=passes");
    let maps = || PASSES.maps.load(Ordering::Relaxed);
    let ours = our_log(path.to_str().unwrap()).unwrap();
    ours.execute(NEW).unwrap();
    let trusted = trusting(c"passes", &name);
    trusted.execute("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(maps(), 0, "the engine's own log was used");
    let not_trusted = our_log(&name).unwrap();
    not_trusted.execute("INSERT INTO t VALUES (3)").unwrap();
    assert!(maps() > 0, "our log was used");
    let other = trusting(c"another", &name);
    let before = maps();
    other.execute("INSERT INTO t VALUES (4)").unwrap();
    assert!(maps() > before, "our log was used");
    for db in [&ours, &trusted, &not_trusted, &other] {
        let rows = db.query("SELECT count(*) FROM t").unwrap();
        assert_eq!(rows, [[Value::Integer(4)]]);
    }
    drop((ours, trusted, not_trusted, other));
    assert_eq!(count(&path), [[Value::Integer(4)]]);
}

/// As far as it can be told.
#[test]
fn file_that_is_not_passed_on_has_no_log_of_ours_whatever_the_program_says() {
    register_layers();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = own_log(path.to_str().unwrap()).unwrap();
    db.execute("CREATE TABLE u AS SELECT zeroblob(50000)")
        .unwrap();
    drop(db);
    with_commits_in_log(&path);
    let before = contents(dir.path());
    let db = trusting(c"prefixes", &uri(&path, "vfs=prefixes"));
    db.execute(NEW).unwrap();
    drop(db);
    let mut after = contents(dir.path());
    after.remove(&dir.path().join("other-db")).unwrap();
    assert_eq!(after, before, "lengths tell");
    let db = trusting(c"hides", &uri(&path, "vfs=hides"));
    db.execute("INSERT INTO t VALUES (1)").unwrap();
    assert!(HIDES.maps.load(Ordering::Relaxed) > 0, "our log was used");
}
