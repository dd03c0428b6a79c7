//! The engine cannot get a mutex, or memory: each attempt ends with a code, and the
//! manager's data, the logs and the commits are as they should be.
//!
//! A process of its own: the mutexes and the memory of the engine are those of the
//! whole process, and so is the allocator that watches what Rust frees.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use wal_core::sync::Unpoison;

use wal_libsql::{BackendKind, Connection, OpenOptions, SqlError, Value, ffi};

/// What is freed while a thread watches is kept, so that its address is used no more,
/// and freeing it again is noticed.
struct Watching;

const MOST_FREED: usize = 1 << 14;

static FREED: [AtomicUsize; MOST_FREED] = [const { AtomicUsize::new(0) }; MOST_FREED];
static FREED_LEN: AtomicUsize = AtomicUsize::new(0);
static FREED_TWICE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread watches what it frees.
    static WATCHES: Cell<bool> = const { Cell::new(false) };
    /// The bytes that this thread has allocated and not freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: what is given out is the system's; it is given back to it, or kept.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        if !WATCHES.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: as the caller says.
            unsafe { System.dealloc(pointer, layout) };
            return;
        }
        let len = FREED_LEN.load(Ordering::Relaxed);
        let freed = &FREED[..len];
        if freed
            .iter()
            .any(|freed| freed.load(Ordering::Relaxed) == pointer.addr())
        {
            FREED_TWICE.store(true, Ordering::Relaxed);
        } else if len < MOST_FREED {
            FREED[len].store(pointer.addr(), Ordering::Relaxed);
            FREED_LEN.store(len + 1, Ordering::Relaxed);
        }
    }
}

#[global_allocator]
static HEAP: Watching = Watching;

/// Runs `work`; true if this thread has freed something twice meanwhile.
fn frees_twice(work: impl FnOnce()) -> bool {
    FREED_LEN.store(0, Ordering::Relaxed);
    FREED_TWICE.store(false, Ordering::Relaxed);
    WATCHES.set(true);
    work();
    WATCHES.set(false);
    FREED_TWICE.load(Ordering::Relaxed)
}

/// The methods that the engine has by default.
struct Defaults {
    new_mutex: unsafe extern "C" fn(c_int) -> *mut ffi::sqlite3_mutex,
    new_memory: unsafe extern "C" fn(c_int) -> *mut c_void,
    more_memory: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
}

static DEFAULTS: OnceLock<Defaults> = OnceLock::new();

/// What a thread still gets.
#[derive(Clone, Copy)]
struct Left {
    /// How many; as many as it wants without a number.
    count: Option<usize>,
    /// Whether there is enough again behind the one that is missing.
    misses_one: bool,
}

impl Left {
    const ENOUGH: Self = Left {
        count: None,
        misses_one: false,
    };
}

thread_local! {
    static MUTEXES: Cell<Left> = const { Cell::new(Left::ENOUGH) };
    static MEMORY: Cell<Left> = const { Cell::new(Left::ENOUGH) };
}

fn is_left(left: &'static std::thread::LocalKey<Cell<Left>>) -> bool {
    let now = left.get();
    match now.count {
        None => true,
        Some(0) if now.misses_one => {
            left.set(Left::ENOUGH);
            false
        }
        Some(0) => false,
        Some(count) => {
            left.set(Left {
                count: Some(count - 1),
                ..now
            });
            true
        }
    }
}

unsafe extern "C" fn new_mutex(kind: c_int) -> *mut ffi::sqlite3_mutex {
    let alloc = DEFAULTS.get().unwrap().new_mutex;
    match kind {
        // The others are static ones, which cannot fail.
        0 | 1 if !is_left(&MUTEXES) => ptr::null_mut(),
        // SAFETY: the default's, which is set up.
        _ => unsafe { alloc(kind) },
    }
}

unsafe extern "C" fn new_memory(len: c_int) -> *mut c_void {
    let alloc = DEFAULTS.get().unwrap().new_memory;
    match is_left(&MEMORY) {
        // SAFETY: the default's, which is set up.
        true => unsafe { alloc(len) },
        false => ptr::null_mut(),
    }
}

unsafe extern "C" fn more_memory(old: *mut c_void, len: c_int) -> *mut c_void {
    let realloc = DEFAULTS.get().unwrap().more_memory;
    match is_left(&MEMORY) {
        // SAFETY: the default's, which is set up.
        true => unsafe { realloc(old, len) },
        false => ptr::null_mut(),
    }
}

/// What an option of the engine gives or takes.
fn configure<T>(option: c_int, methods: &mut T) {
    let methods: *mut T = methods;
    // SAFETY: no connection is open, and the option has methods of this type.
    let code = unsafe { ffi::sqlite3_config(option, methods) };
    assert_eq!(code, ffi::SQLITE_OK);
}

fn replace_methods() -> Defaults {
    // The default methods are there from the first use on.
    // SAFETY: no connection is open.
    assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK);
    // SAFETY: as above.
    assert_eq!(unsafe { ffi::sqlite3_shutdown() }, ffi::SQLITE_OK);
    // SAFETY: zeros are no methods.
    let mut mutexes: ffi::sqlite3_mutex_methods = unsafe { zeroed() };
    // SAFETY: as above.
    let mut memory: ffi::sqlite3_mem_methods = unsafe { zeroed() };
    configure(ffi::SQLITE_CONFIG_GETMUTEX, &mut mutexes);
    configure(ffi::SQLITE_CONFIG_GETMALLOC, &mut memory);
    let defaults = Defaults {
        new_mutex: mutexes.xMutexAlloc.unwrap(),
        new_memory: memory.xMalloc.unwrap(),
        more_memory: memory.xRealloc.unwrap(),
    };
    mutexes.xMutexAlloc = Some(new_mutex);
    memory.xMalloc = Some(new_memory);
    memory.xRealloc = Some(more_memory);
    configure(ffi::SQLITE_CONFIG_MUTEX, &mut mutexes);
    configure(ffi::SQLITE_CONFIG_MALLOC, &mut memory);
    defaults
}

/// Gives the engine mutexes and memory that can fail. One test runs at a time.
fn set_up() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unpoison();
    DEFAULTS.get_or_init(replace_methods);
    // SAFETY: it can be called at any time.
    assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK);
    guard
}

fn rows(db: &Connection) -> Vec<Vec<Value>> {
    db.query("SELECT count(*), total(a) FROM t").unwrap()
}

#[test]
fn manager_is_destroyed_twice_harmlessly() {
    let _guard = set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut code = ffi::SQLITE_OK;
    let twice = frees_twice(|| {
        MUTEXES.set(Left {
            count: Some(0),
            ..Left::ENOUGH
        });
        code = Connection::open(&path).map_or_else(|e| e.code, |_| ffi::SQLITE_OK);
        MUTEXES.set(Left::ENOUGH);
    });
    assert_eq!(code, ffi::SQLITE_NOMEM);
    assert!(!twice, "the data of the manager was freed twice");
    let db = Connection::open(&path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
        .unwrap();
}

/// How far a connection has come.
#[derive(Default, Debug)]
struct Outcome {
    committed: bool,
    failed: Option<SqlError>,
}

fn work(path: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let mut run = || -> Result<(), SqlError> {
        let db = OpenOptions::new(BackendKind::Shared).open(path)?;
        db.execute("PRAGMA cache_size = 5; BEGIN; DELETE FROM t")?;
        db.execute("SAVEPOINT s; INSERT INTO t VALUES (zeroblob(60000))")?;
        db.execute("ROLLBACK TO s; INSERT INTO t VALUES (7)")?;
        db.execute("COMMIT")?;
        outcome.committed = true;
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    };
    outcome.failed = run().err();
    outcome
}

/// Works with memory that is missing from a place on; false if it does not get there.
fn try_place(db: &Connection, path: &Path, place: usize, misses_one: bool) -> bool {
    db.execute("DELETE FROM t; INSERT INTO t VALUES (1)")
        .unwrap();
    let mut outcome = Outcome::default();
    let mut left = Left::ENOUGH;
    let twice = frees_twice(|| {
        MEMORY.set(Left {
            count: Some(place),
            misses_one,
        });
        outcome = work(path);
        left = MEMORY.replace(Left::ENOUGH);
    });
    assert!(!twice, "at {place}: something was freed twice");
    let sum = match rows(db)[0][..] {
        [Value::Integer(1), Value::Real(sum)] => sum,
        ref other => panic!("at {place}: {other:?}, {outcome:?}"),
    };
    let right = sum == 7.0 || sum == 1.0 && !outcome.committed;
    assert!(right, "at {place}: {sum}, {outcome:?}");
    !matches!(left.count, Some(1..))
}

/// Memory fails at one place after the other, for once and for good.
#[test]
fn memory_that_is_missing_leaves_no_log_behind() {
    let _guard = set_up();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Connection::open(&path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        .unwrap();
    // What is made once for all connections is there from here on.
    assert!(work(&path).committed);
    for misses_one in [false, true] {
        let held = HELD.get();
        let mut places = 0;
        while try_place(&db, &path, places, misses_one) {
            places += 1;
        }
        assert!(places > 100, "{places}");
        let kept = HELD.get() - held;
        // Tables of the process may have grown once; a place that leaks would do so
        // in each of those behind it.
        assert!(kept < 4096, "{kept} bytes at {places} places");
        println!("{places} places, {kept} bytes kept");
    }
    drop(db);
    assert!(!dir.path().join("db-wal").exists(), "a log is still open");
}
