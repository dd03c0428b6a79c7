//! The in-process backend owns its database: whoever else has it open makes it
//! `Locked`, and it makes everybody else wait. And the shared backend's side
//! file, which may be missing, broken or somebody else's.

use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use demo::bank::{self, BankFacts};
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{BackendKind, Command, RefusalKind, Settings, Worker};
use tempfile::TempDir;
use wal::{Error, Options, PageNo};
use wal_core::LockMode;
use wal_core::storage::{ByteLocks, LockKind, shm_bytes};

/// Longer than any step takes, so that only a hang gets there.
const WAIT: Duration = Duration::from_secs(20);
const ACCOUNTS: u32 = 20;
/// The byte of the side file that those who use it hold, by the layout in
/// `wal-shm`'s `side_file`.
const FIRST_OPENER: Range<u64> = (1 << 20)..(1 << 20) + 1;

fn bank() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bank.db");
    bank::create(&path, ACCOUNTS, 1024, 100).unwrap();
    (folder, path)
}

/// Nobody has the bank open any more, and all is as it was made.
fn assert_sound(path: &Path) {
    let BankFacts {
        integrity, total, ..
    } = bank::check_with_stock_sqlite(path).unwrap();
    assert_eq!(integrity, ["ok"]);
    assert_eq!(total, i64::from(ACCOUNTS) * 100);
}

fn at_once() -> Options {
    Options::new().create(false).busy_timeout(Duration::ZERO)
}

fn settings(path: &Path, backend: BackendKind) -> Settings {
    Settings {
        backend,
        busy_timeout: Duration::ZERO,
        ..Settings::new(path)
    }
}

fn is_locked<T>(opened: wal::Result<T>, path: &Path) -> bool {
    match opened {
        Err(error @ Error::Locked { .. }) => {
            let message = error.to_string();
            assert!(message.contains(&path.display().to_string()), "{message}");
            error.is_busy()
        }
        _ => false,
    }
}

#[test]
fn a_database_that_stock_sqlite_has_open_cannot_be_owned() {
    for kind in StockKind::available() {
        let (_folder, path) = bank();
        let mut stock = StockSqlite::spawn(kind, &path, None).unwrap();
        stock.run("SELECT count(*) FROM account").unwrap().unwrap();
        assert!(is_locked(at_once().open_inproc(&path), &path), "{kind}");

        let sql = "UPDATE account SET balance = balance WHERE id = 1";
        stock.run(sql).unwrap().unwrap();
        assert!(is_locked(at_once().open_inproc(&path), &path), "{kind}");
        stock.run(sql).unwrap().unwrap();
        stock.close().unwrap();
        at_once().open_inproc(&path).unwrap().close().unwrap();
        assert_sound(&path);
    }
}

#[test]
fn a_database_that_another_process_shares_cannot_be_owned() {
    let (_folder, path) = bank();
    let mut sharer = Worker::open(&settings(&path, BackendKind::Shm)).unwrap();
    assert!(is_locked(at_once().open_inproc(&path), &path));
    sharer.begin_read("r").unwrap();
    assert!(is_locked(at_once().open_inproc(&path), &path));
    sharer.end_read("r").unwrap();
    sharer.run(Command::Close).unwrap();
    at_once().open_inproc(&path).unwrap().close().unwrap();
    assert_sound(&path);
}

/// A process attached to the wal-index alone: one that is just opening.
#[test]
fn a_database_to_whose_index_somebody_is_attached_cannot_be_owned() {
    let (_folder, path) = bank();
    let index = held(&path.with_extension("db-shm"), &[0; 3], shm_bytes::DMS);
    assert!(is_locked(at_once().open_inproc(&path), &path));
    // Not by closing it: a process that another test is just starting has a
    // copy of it for a moment.
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    locks.unlock(&index, shm_bytes::DMS).unwrap();
    at_once().open_inproc(&path).unwrap().close().unwrap();
    assert_sound(&path);
}

#[test]
fn an_owned_database_is_busy_for_stock_sqlite() {
    for kind in StockKind::available() {
        let (_folder, path) = bank();
        let mut owner = Worker::open(&settings(&path, BackendKind::InProcess)).unwrap();
        let mut stock = StockSqlite::spawn(kind, &path, None).unwrap();
        for sql in ["SELECT count(*) FROM account", "BEGIN IMMEDIATE"] {
            let error = stock.run(sql).unwrap().unwrap_err();
            assert!(error.is_busy(), "{kind}: `{sql}` gave {error}");
        }
        owner.run(Command::Close).unwrap();
        let rows = stock.run("SELECT count(*) FROM account").unwrap().unwrap();
        assert_eq!(rows.integer().unwrap(), i64::from(ACCOUNTS), "{kind}");
        stock.close().unwrap();
        assert_sound(&path);
    }
}

#[test]
fn an_owned_database_is_locked_for_both_backends_in_other_processes() {
    let (_folder, path) = bank();
    let mut owner = Worker::open(&settings(&path, BackendKind::InProcess)).unwrap();
    assert!(is_locked(at_once().open_shm(&path), &path));
    assert!(is_locked(at_once().open_inproc(&path), &path));
    let mut third = Worker::spawn().unwrap();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let refused = third.refused(Command::Open(settings(&path, backend)));
        assert_eq!(refused.unwrap(), RefusalKind::Locked, "{backend:?}");
    }
    owner.kill().unwrap();
    third
        .run(Command::Open(settings(&path, BackendKind::Shm)))
        .unwrap();
    third.run(Command::Close).unwrap();
    assert_sound(&path);
}

#[test]
fn one_process_cannot_own_a_database_twice_nor_own_and_share_it() {
    let (_folder, path) = bank();
    let owner = at_once().open_inproc(&path).unwrap();
    assert!(is_locked(at_once().open_inproc(&path), &path));
    assert!(is_locked(at_once().open_shm(&path), &path));
    // The refused openers gave up no lock of the owner's.
    let mut other = Worker::spawn().unwrap();
    let refused = other.refused(Command::Open(settings(&path, BackendKind::Shm)));
    assert_eq!(refused.unwrap(), RefusalKind::Locked);
    owner.close().unwrap();

    let sharer = at_once().open_shm(&path).unwrap();
    assert!(is_locked(at_once().open_inproc(&path), &path));
    let refused = other.refused(Command::Open(settings(&path, BackendKind::InProcess)));
    assert_eq!(refused.unwrap(), RefusalKind::Locked);
    sharer.close().unwrap();
    at_once().open_inproc(&path).unwrap().close().unwrap();
    assert_sound(&path);
}

#[test]
fn opening_waits_as_long_as_the_busy_timeout_and_no_longer() {
    let (_folder, path) = bank();
    let owner = at_once().open_inproc(&path).unwrap();
    let timeout = Duration::from_millis(150);
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let options = at_once().busy_timeout(timeout);
        let began = Instant::now();
        let locked = match backend {
            BackendKind::Shm => is_locked(options.open_shm(&path), &path),
            BackendKind::InProcess => is_locked(options.open_inproc(&path), &path),
        };
        assert!(locked, "{backend:?}");
        let waited = began.elapsed();
        assert!((timeout..WAIT).contains(&waited), "{backend:?}: {waited:?}");
    }
    owner.close().unwrap();
}

#[test]
fn an_opener_that_waits_gets_the_database_when_its_owner_closes() {
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let (_folder, path) = bank();
        let owner = at_once().open_inproc(&path).unwrap();
        assert!(is_locked(at_once().open_shm(&path), &path));
        let mut opener = Worker::spawn().unwrap();
        let waiting = Settings {
            busy_timeout: WAIT,
            ..settings(&path, backend)
        };
        opener.send(&Command::Open(waiting)).unwrap();
        // It has no answer as long as the owner is there.
        let answer = opener.finish::<()>(Duration::from_millis(100));
        assert!(answer.is_err(), "{backend:?}");
        owner.close().unwrap();
        opener.finish::<serde_json::Value>(WAIT).unwrap();
        opener.run(Command::Close).unwrap();
        assert_sound(&path);
    }
}

/// What may stand where the side file belongs.
#[derive(Clone, Copy, Debug)]
enum Side {
    Unwanted,
    Garbage,
    /// Held by an attached process of another version, so not to be reset.
    HeldByAnotherVersion,
    /// Held so, and without a byte.
    HeldAndEmpty,
    /// Cannot be opened as a file at all.
    Directory,
    ReadOnly,
}

impl Side {
    const ALL: [Side; 6] = [
        Side::Unwanted,
        Side::Garbage,
        Side::HeldByAnotherVersion,
        Side::HeldAndEmpty,
        Side::Directory,
        Side::ReadOnly,
    ];

    /// Puts it beside the database. What is returned keeps its lock.
    fn make(self, path: &Path) -> Option<fs::File> {
        let side = PathBuf::from(format!("{}-coord", path.display()));
        let mut garbage = vec![0; 8192];
        fastrand::Rng::with_seed(3).fill(&mut garbage);
        match self {
            Side::Unwanted => None,
            Side::Garbage => {
                fs::write(side, garbage).unwrap();
                None
            }
            Side::HeldByAnotherVersion => Some(held(&side, &version(99), FIRST_OPENER)),
            Side::HeldAndEmpty => Some(held(&side, &[], FIRST_OPENER)),
            Side::Directory => {
                fs::create_dir(side).unwrap();
                None
            }
            Side::ReadOnly => {
                fs::write(&side, garbage).unwrap();
                let mut permissions = fs::metadata(&side).unwrap().permissions();
                permissions.set_readonly(true);
                fs::set_permissions(side, permissions).unwrap();
                None
            }
        }
    }
}

/// A side file of that version, otherwise like ours.
fn version(version: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&0x4c41_5743u32.to_ne_bytes());
    bytes[4..8].copy_from_slice(&version.to_ne_bytes());
    bytes
}

/// A new file with a shared lock on `bytes`, as long as what is returned is
/// there.
fn held(path: &Path, content: &[u8], bytes: Range<u64>) -> fs::File {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.write_all(content).unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let locked = locks.try_lock(&file, bytes, LockMode::Shared);
    assert!(locked.unwrap());
    file
}

#[test]
fn without_a_usable_side_file_writers_still_take_turns_and_readers_still_see() {
    for side in Side::ALL {
        let (_folder, path) = bank();
        let holder = side.make(&path);
        let mut other = Worker::open(&Settings {
            side_file: !matches!(side, Side::Unwanted),
            busy_timeout: WAIT,
            ..settings(&path, BackendKind::Shm)
        })
        .unwrap();
        let ours = Options::new()
            .side_file(!matches!(side, Side::Unwanted))
            .open_shm(&path)
            .unwrap();

        let mut write = ours.begin_write().unwrap();
        let before = write.page(PageNo::ONE).unwrap()[60];
        write.page_mut(PageNo::ONE).unwrap()[60] = before + 1;
        other.send(&Command::BeginWrite).unwrap();
        let waiting = other.finish::<serde_json::Value>(Duration::from_millis(50));
        assert!(waiting.is_err(), "{side:?}: two writers");
        write.commit().unwrap();
        other.finish::<serde_json::Value>(WAIT).unwrap();
        other.run(Command::Rollback).unwrap();

        // A second user in this process, and a writer that waits in a thread.
        let second = ours.clone();
        let writer = second.begin_write().unwrap();
        thread::scope(|scope| {
            let turn = scope.spawn(|| ours.begin_write().map(drop));
            drop(writer);
            turn.join().unwrap().unwrap();
        });
        let read = ours.begin_read().unwrap();
        assert_eq!(read.page(PageNo::ONE).unwrap()[60], before + 1, "{side:?}");
        drop(read);

        if let Side::HeldByAnotherVersion = side {
            let left = fs::read(path.with_extension("db-coord")).unwrap();
            assert_eq!(left, version(99), "another version's words were changed");
        }
        other.run(Command::Close).unwrap();
        drop(second);
        ours.close().unwrap_or_else(|e| panic!("{side:?}: {e}"));
        let log = path.with_extension("db-wal");
        assert!(!log.exists(), "{side:?}: the log is still there");
        drop(holder);
        assert_sound(&path);
    }
}

#[test]
fn a_side_file_that_turns_to_garbage_in_use_costs_only_time() {
    let (_folder, path) = bank();
    let mut other = Worker::open(&Settings {
        busy_timeout: WAIT,
        ..settings(&path, BackendKind::Shm)
    })
    .unwrap();
    let ours = Options::new().open_shm(&path).unwrap();
    let side = fs::OpenOptions::new()
        .write(true)
        .open(path.with_extension("db-coord"))
        .unwrap();
    for seed in 0..10 {
        let mut garbage = vec![0; 4096];
        fastrand::Rng::with_seed(seed).fill(&mut garbage);
        let write = ours.begin_write().unwrap();
        other.send(&Command::BeginWrite).unwrap();
        side.write_all_at(&garbage, 0).unwrap();
        drop(write);
        other
            .finish::<serde_json::Value>(WAIT)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        other.run(Command::Rollback).unwrap();
    }
    other.run(Command::Close).unwrap();
    ours.close().unwrap();
    assert_sound(&path);
}
