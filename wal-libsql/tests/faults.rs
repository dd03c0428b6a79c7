//! What the VFS of a database answers reaches the caller as it does on the engine's
//! own log: the same script on both, with each call on the database file failing.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod layer;

use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, Once};

use wal_core::sync::Unpoison;

use layer::{Call, Layer};
use wal_libsql::{BackendKind, Connection, OpenOptions, Value, WalOptions, ffi};

/// The calls on the database file, and the one that fails.
struct Recorder(Mutex<Recorded>);

struct Recorded {
    /// Which statement is run.
    statement: usize,
    calls: Vec<(usize, Call)>,
    fault: Option<Fault>,
    is_hit: bool,
    /// At which write of the database file which connection is interrupted.
    interrupt: Option<(usize, usize)>,
}

impl Recorded {
    const NOTHING: Self = Recorded {
        statement: 0,
        calls: Vec::new(),
        fault: None,
        is_hit: false,
        interrupt: None,
    };

    fn writes(&self) -> Vec<i64> {
        let writes = self.calls.iter().filter(|(_, c)| c.method == "xWrite");
        writes.map(|(_, call)| call.of).collect()
    }
}

/// A call that is answered with `code`: the `nth` one like it in its statement.
#[derive(Clone, Copy, Debug)]
struct Fault {
    statement: usize,
    call: Call,
    nth: usize,
    code: c_int,
}

static RECORDER: Recorder = Recorder(Mutex::new(Recorded::NOTHING));

impl Recorder {
    fn get(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unpoison()
    }
}

impl Layer for Recorder {
    fn answer(&self, call: Call) -> Option<c_int> {
        let mut recorded = self.get();
        let statement = recorded.statement;
        let before = |other: &&(usize, Call)| **other == (statement, call);
        let nth = recorded.calls.iter().filter(before).count();
        recorded.calls.push((statement, call));
        if let Some((write, db)) = recorded.interrupt
            && recorded.writes().len() == write
        {
            // SAFETY: the test has the connection open.
            unsafe { ffi::sqlite3_interrupt(ptr::with_exposed_provenance_mut(db)) };
        }
        let fault = recorded.fault?;
        if (fault.statement, fault.call, fault.nth) != (statement, call, nth) {
            return None;
        }
        recorded.is_hit = true;
        Some(fault.code)
    }
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| layer::register(c"recorder", &RECORDER));
    ONE.lock().unpoison()
}

type Open = fn(&Path) -> Result<Connection, c_int>;

fn own_log(path: &Path) -> Result<Connection, c_int> {
    let name = format!("file:{}?vfs=recorder", path.display());
    let name = CString::new(name).unwrap();
    let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
    let mut db = ptr::null_mut();
    // SAFETY: the name ends with a zero.
    let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, ptr::null()) };
    let Some(db) = NonNull::new(db) else {
        return Err(code);
    };
    // SAFETY: it is open, and used here only.
    let connection = unsafe { Connection::from_raw(db) };
    // SAFETY: it is open.
    unsafe { ffi::sqlite3_extended_result_codes(connection.as_raw().as_ptr(), 1) };
    match code {
        ffi::SQLITE_OK => Ok(connection),
        code => Err(code),
    }
}

fn our_log(path: &Path) -> Result<Connection, c_int> {
    let name = format!("file:{}?vfs=recorder", path.display());
    let wal = WalOptions::new(BackendKind::Shared).transparent_vfs(c"recorder");
    let options = OpenOptions::new(BackendKind::Shared).wal(wal);
    options.open(name).map_err(|e| e.code)
}

const SCRIPT: &[&str] = &[
    "SELECT count(*) FROM t",
    "PRAGMA wal_autocheckpoint = 0",
    "INSERT INTO t VALUES (1, zeroblob(20000))",
    "PRAGMA wal_checkpoint(PASSIVE)",
    "INSERT INTO t VALUES (2, zeroblob(60000))",
    "UPDATE t SET b = zeroblob(30000) WHERE a = 1",
    "PRAGMA wal_checkpoint(FULL)",
    "INSERT INTO t VALUES (3, 3)",
    "DELETE FROM t WHERE a = 2",
    "PRAGMA incremental_vacuum",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "SELECT a, length(b) FROM t",
    "INSERT INTO t VALUES (4, 4)",
    "PRAGMA journal_mode = DELETE",
    "INSERT INTO t VALUES (5, 5)",
    "PRAGMA journal_mode = WAL",
    "INSERT INTO t VALUES (6, 6)",
];

#[derive(PartialEq, Debug)]
struct Outcome {
    /// The rows or the code of each statement.
    answers: Vec<Result<Vec<Vec<Value>>, c_int>>,
    /// What stock SQLite finds in the end.
    after: Vec<Vec<Value>>,
}

/// A folder in memory, if there is such a file system: nothing here is to outlive a
/// power failure.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    dir.unwrap()
}

fn run(open: Open, fault: Option<Fault>) -> (Outcome, Vec<(usize, Call)>, bool) {
    let dir = folder();
    let path = dir.path().join("db");
    let plain = || OpenOptions::new(BackendKind::Shared).open(&path).unwrap();
    plain()
        .execute(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
             CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        )
        .unwrap();
    *RECORDER.get() = Recorded {
        fault,
        ..Recorded::NOTHING
    };
    let mut answers = Vec::new();
    match open(&path) {
        Err(code) => answers.push(Err(code)),
        Ok(db) => {
            for (number, sql) in SCRIPT.iter().enumerate() {
                RECORDER.get().statement = number;
                answers.push(db.query(sql).map_err(|e| e.code));
            }
            RECORDER.get().statement = SCRIPT.len();
        }
    }
    let mut recorded = RECORDER.get();
    let calls = std::mem::take(&mut recorded.calls);
    let is_hit = recorded.is_hit;
    drop(recorded);
    let db = plain();
    let mut after = db.query("PRAGMA integrity_check").unwrap();
    after.extend(db.query("SELECT a, length(b) FROM t").unwrap());
    (Outcome { answers, after }, calls, is_hit)
}

/// Codes of each kind, those that say more too.
const CODES: [c_int; 8] = [
    ffi::SQLITE_ERROR,
    ffi::SQLITE_BUSY,
    ffi::SQLITE_NOMEM,
    ffi::SQLITE_READONLY,
    ffi::SQLITE_FULL,
    ffi::SQLITE_IOERR_CORRUPTFS,
    ffi::SQLITE_READONLY_DBMOVED,
    ffi::SQLITE_IOERR_NOMEM,
];

const FALLIBLE: [&str; 7] = [
    "xRead",
    "xWrite",
    "xSync",
    "xTruncate",
    "xFileSize",
    "xFileControl",
    "xLock",
];

/// A statement, a call of it, and the number of those like it before.
type Place = (usize, Call, usize);

/// The calls of each statement that are made to fail: of reads and writes, which are
/// many, the first and the last one.
fn places(calls: &[(usize, Call)]) -> Vec<Place> {
    let mut kinds: BTreeMap<(usize, &str), Vec<Place>> = BTreeMap::new();
    for (at, &(statement, call)) in calls.iter().enumerate() {
        if FALLIBLE.contains(&call.method) {
            let like_it = |other: &&(usize, Call)| **other == (statement, call);
            let nth = calls[..at].iter().filter(like_it).count();
            let kind = kinds.entry((statement, call.method)).or_default();
            if ["xRead", "xWrite"].contains(&call.method) {
                kind.truncate(1);
            }
            kind.push((statement, call, nth));
        }
    }
    kinds.into_values().flatten().collect()
}

/// Whether both logs make the call, for the same reason.
fn is_shared((statement, call, nth): Place, own_calls: &[(usize, Call)]) -> bool {
    let own = own_calls
        .iter()
        .filter(|c| **c == (statement, call))
        .count();
    let sql = SCRIPT.get(statement).unwrap_or(&"");
    let same_reason = match call.method {
        // Ours looks more often.
        "xFileSize" => sql.starts_with("PRAGMA wal_checkpoint") && nth == 0,
        "xFileControl" => call.of != i64::from(ffi::SQLITE_FCNTL_HAS_MOVED),
        _ => true,
    };
    own > nth && same_reason
}

/// The numbers of the rows that were inserted for good, as far as answers tell; those of
/// the first and second one are always there.
fn check_rows(outcome: &Outcome, fault: Fault) {
    let found: Vec<&Value> = outcome.after.iter().map(|row| &row[0]).collect();
    assert_eq!(*found[0], Value::Text("ok".to_owned()), "{fault:?}");
    for number in 3..=6 {
        let insert = format!("INSERT INTO t VALUES ({number}, {number})");
        let at = SCRIPT.iter().position(|sql| **sql == insert).unwrap();
        if let Some(Ok(_)) = outcome.answers.get(at) {
            let is_there = found.contains(&&Value::Integer(number));
            assert!(is_there, "{number} is lost, {fault:?}: {outcome:?}");
        }
    }
}

/// The codes that may be answered for one that the VFS gave.
fn is_told_as(code: c_int, told: c_int) -> bool {
    match code {
        // The engine's own words for it.
        ffi::SQLITE_IOERR_NOMEM => told == ffi::SQLITE_NOMEM,
        ffi::SQLITE_IOERR_CORRUPTFS => [code, ffi::SQLITE_CORRUPT].contains(&told),
        _ => told == code,
    }
}

#[test]
fn answers_of_the_vfs_are_given_as_on_the_engine_log() {
    let _guard = one_at_a_time();
    let (own, own_calls, _) = run(own_log, None);
    let (ours, our_calls, _) = run(our_log, None);
    assert_eq!(ours, own);
    let shm = our_calls
        .iter()
        .filter(|(_, c)| c.method.starts_with("xShm"));
    assert_eq!(shm.count(), 0, "our log has shared memory of its own");
    let mut compared = 0;
    for place in places(&our_calls) {
        let (statement, call, nth) = place;
        let sql = SCRIPT.get(statement).unwrap_or(&"at the end");
        let shared = is_shared(place, &own_calls);
        let codes = if shared { &CODES } else { &CODES[5..] };
        for &code in codes {
            let fault = Fault {
                statement,
                call,
                nth,
                code,
            };
            let (faulty, _, is_hit) = run(our_log, Some(fault));
            assert!(is_hit, "{sql}: {fault:?}");
            check_rows(&faulty, fault);
            if !shared {
                // It is told, or does not matter.
                if let Some(Err(told)) = faulty.answers.get(statement) {
                    assert!(is_told_as(code, *told), "{sql}: {fault:?}, {told}");
                }
                continue;
            }
            compared += 1;
            let (own_faulty, _, _) = run(own_log, Some(fault));
            // The engine's log is removed then, with commits that are nowhere else.
            let loses = ["PRAGMA journal_mode = DELETE", "at the end"];
            if code == ffi::SQLITE_BUSY && loses.contains(sql) && own_faulty != faulty {
                assert!(matches!(faulty.answers.get(statement), None | Some(Err(_))));
                continue;
            }
            assert_eq!(faulty, own_faulty, "{sql}: {fault:?}");
        }
    }
    println!("{compared} compared");
    assert!(compared > 200, "{compared}");
}

/// What a checkpoint of a new database with 40 pages does, and its code.
fn checkpoint(open: Open, prepare: impl FnOnce(&Connection)) -> (Recorded, Result<(), c_int>, u64) {
    let dir = folder();
    let path = dir.path().join("db");
    let db = open(&path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        .unwrap();
    db.execute("INSERT INTO t VALUES (zeroblob(150000))")
        .unwrap();
    prepare(&db);
    let done = db.execute("PRAGMA wal_checkpoint(FULL)");
    let recorded = std::mem::replace(&mut *RECORDER.get(), Recorded::NOTHING);
    let len = std::fs::metadata(&path).unwrap().len();
    (recorded, done.map_err(|e| e.code), len)
}

#[test]
fn size_hint_comes_before_a_checkpoint_extends_the_file() {
    let _guard = one_at_a_time();
    let in_chunks = |db: &Connection| {
        let mut chunk: c_int = 1 << 20;
        let argument = (&raw mut chunk).cast();
        let operation = ffi::SQLITE_FCNTL_CHUNK_SIZE;
        // SAFETY: the connection is open, and the operation takes a number.
        let code = unsafe {
            ffi::sqlite3_file_control(db.as_raw().as_ptr(), c"main".as_ptr(), operation, argument)
        };
        assert_eq!(code, ffi::SQLITE_OK);
        *RECORDER.get() = Recorded::NOTHING;
    };
    for open in [our_log, own_log] {
        let (recorded, done, len) = checkpoint(open, in_chunks);
        assert_eq!(done, Ok(()));
        assert_eq!(len, 1 << 20);
        let is_hint = |call: &Call| {
            (call.method, call.of) == ("xFileControl", i64::from(ffi::SQLITE_FCNTL_SIZE_HINT))
        };
        let hint = recorded.calls.iter().position(|(_, call)| is_hint(call));
        let write = recorded
            .calls
            .iter()
            .position(|(_, c)| c.method == "xWrite");
        assert!(hint.is_some() && hint < write, "{:?}", recorded.calls);
    }
}

#[test]
fn interrupt_is_noticed_at_each_page_of_a_checkpoint() {
    let _guard = one_at_a_time();
    for write in [1, 2, 20] {
        for open in [our_log, own_log] {
            let (recorded, done, _) = checkpoint(open, |db| {
                *RECORDER.get() = Recorded {
                    interrupt: Some((write, db.as_raw().as_ptr().expose_provenance())),
                    ..Recorded::NOTHING
                };
            });
            assert_eq!(done, Err(ffi::SQLITE_INTERRUPT));
            assert_eq!(recorded.writes().len(), write);
        }
    }
}

/// Pages of a partial backfill are not synced, and may be lost with those of the next
/// one.
#[test]
fn failed_sync_of_the_database_makes_the_next_checkpoint_write_all_pages() {
    let _guard = one_at_a_time();
    let dir = folder();
    let path = dir.path().join("db");
    *RECORDER.get() = Recorded::NOTHING;
    let db = our_log(&path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a); CREATE TABLE u(a)")
        .unwrap();
    db.execute("INSERT INTO t VALUES (zeroblob(50000))")
        .unwrap();
    let reader = OpenOptions::new(BackendKind::Shared).open(&path).unwrap();
    reader.execute("BEGIN; SELECT * FROM t").unwrap();
    db.execute("INSERT INTO u VALUES (zeroblob(50000))")
        .unwrap();
    let partial = db.query("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let [
        Value::Integer(0),
        Value::Integer(log),
        Value::Integer(backfilled),
    ] = partial[0][..]
    else {
        panic!("{partial:?}");
    };
    assert!(0 < backfilled && backfilled < log, "{partial:?}");
    reader.execute("COMMIT").unwrap();
    let sync = Call {
        method: "xSync",
        of: i64::from(ffi::SQLITE_SYNC_NORMAL),
        len: 0,
    };
    *RECORDER.get() = Recorded {
        fault: Some(Fault {
            statement: 0,
            call: sync,
            nth: 0,
            code: ffi::SQLITE_IOERR_FSYNC,
        }),
        ..Recorded::NOTHING
    };
    let failed = db.execute("PRAGMA wal_checkpoint(PASSIVE)").unwrap_err();
    assert_eq!(failed.code, ffi::SQLITE_IOERR_FSYNC);
    *RECORDER.get() = Recorded::NOTHING;
    let rows = db.query("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    assert_eq!(
        rows[0],
        [Value::Integer(0), Value::Integer(log), Value::Integer(log)]
    );
    let pages = std::fs::metadata(&path).unwrap().len() / 4096;
    let all: Vec<i64> = (0..i64::try_from(pages).unwrap())
        .map(|page| page * 4096)
        .collect();
    assert_eq!(RECORDER.get().writes(), all);
    db.execute("INSERT INTO u VALUES (1)").unwrap();
}
