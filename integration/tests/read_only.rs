//! Reading a database that may not be written: beside live peers, alone with
//! a private index, and as an immutable file. Stock SQLite writes, and says
//! what is to be read.
//!
//! Files are root's and are opened with the rights of nobody, so that nothing
//! can be written whatever the library tries.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::fixtures::folder::FolderState;
use integration::fixtures::reading::Contents;
use integration::fixtures::{self, Fixture, page_digest};
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Checkpoint, Command, Settings, Stamp, Worker};
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use tempfile::TempDir;
use wal::shm::{Database, ReadTx};
use wal::{CheckpointMode, Error, Lock, LockKind, Options, ReadStrategy};
use wal_core::LockMode;
use wal_core::io::{ByteLocks, beside, shm_bytes};

/// "nobody", who owns nothing.
const NOBODY: u32 = 65534;
/// Longer than any step takes, so that only a hang gets there.
const PATIENT: Duration = Duration::from_secs(20);
/// Long enough to look more than once.
const IMPATIENT: Duration = Duration::from_millis(30);

fn read_only(busy_timeout: Duration) -> Options {
    Options::new()
        .read_only(true)
        .linger(Duration::ZERO)
        .busy_timeout(busy_timeout)
}

/// Opens with the file system rights of nobody, which are a thread's.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if geteuid().is_root() {
                setfsgid(Gid::from_raw(NOBODY));
                setfsuid(Uid::from_raw(NOBODY));
            }
            work()
        });
        thread.join().unwrap()
    })
}

fn open(path: &Path, options: &Options) -> wal::Result<Database> {
    as_nobody(|| options.open_shm(path))
}

fn open_patient(path: &Path) -> Database {
    open(path, &read_only(PATIENT)).unwrap()
}

/// Lets everybody read the folder and what is in it, and only root write.
fn protect(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o555)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o444)).unwrap();
    }
    let written = as_nobody(|| fs::write(folder.join("new"), ""));
    assert!(written.is_err(), "the other tests would show nothing");
}

/// A database in WAL mode with a table `t`, and a peer that has it open.
fn database_of(kind: StockKind) -> (TempDir, PathBuf, StockSqlite) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
    let made = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x);";
    run(&mut peer, made);
    insert(&mut peer, 50);
    (folder, path, peer)
}

fn run(peer: &mut StockSqlite, sql: &str) {
    peer.run(sql).unwrap().unwrap();
}

fn insert(peer: &mut StockSqlite, rows: u32) {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{rows}) \
         INSERT INTO t SELECT randomblob(300) FROM n"
    );
    run(peer, &sql);
}

/// Whether a truncating checkpoint by the peer was held up.
fn checkpoint_is_busy(peer: &mut StockSqlite) -> bool {
    let rows = peer.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    rows.unwrap().0[0][0] != rusqlite::types::Value::Integer(0)
}

/// The newest state, as stock SQLite sees it in a copy of database and log.
fn truth(path: &Path, page_size: usize) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy.db");
    fs::copy(path, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o600)).unwrap();
    fs::write(
        beside(&copy, "-wal"),
        fs::read(beside(path, "-wal")).unwrap(),
    )
    .unwrap();
    let mut stock = StockSqlite::spawn(StockKind::Bundled, &copy, None).unwrap();
    assert!(!checkpoint_is_busy(&mut stock));
    stock.close().unwrap();
    let file = fs::read(&copy).unwrap();
    file.chunks(page_size).map(page_digest).collect()
}

fn newest(database: &Database) -> Vec<String> {
    Contents::of(database).unwrap().pages
}

fn seen(database: &Database, read: &ReadTx) -> Vec<String> {
    Contents::of_snapshot(database, read).unwrap().pages
}

fn assert_newest_is_the_truth(database: &Database, path: &Path, when: &str) {
    let truth = truth(path, database.page_size().len());
    assert_eq!(newest(database), truth, "{when}");
}

/// How others would see byte `lock` of the `-shm` beside `path`.
fn held(path: &Path, bytes: std::ops::Range<u64>) -> Option<LockMode> {
    let file = fs::File::open(beside(path, "-shm")).unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let conflict = locks.conflict(&file, bytes).unwrap();
    conflict.map(|conflict| conflict.mode)
}

fn read_0() -> std::ops::Range<u64> {
    shm_bytes::of(Lock::Read(wal::ReadSlot::DATABASE))
}

#[test]
fn a_reader_follows_a_live_writer_that_checkpoints() {
    for kind in StockKind::available() {
        let (folder, path, mut peer) = database_of(kind);
        protect(folder.path());
        let database = open_patient(&path);
        for round in 0..12 {
            let before = database.begin_read().unwrap();
            let pages = seen(&database, &before);
            assert_eq!(pages, truth(&path, 4096), "{kind}, round {round}");
            insert(&mut peer, 20);
            run(&mut peer, "PRAGMA wal_checkpoint(PASSIVE)");
            insert(&mut peer, 5);
            assert_eq!(seen(&database, &before), pages, "{kind}, round {round}");
            assert_newest_is_the_truth(&database, &path, &format!("{kind}, round {round}"));
            drop(before);
            if round % 3 == 0 {
                assert!(!checkpoint_is_busy(&mut peer), "{kind}, round {round}");
            }
        }
        database.close().unwrap();
        peer.close().unwrap();
        assert_eq!(FolderState::of(folder.path()).unwrap().names(), ["app.db"]);
    }
}

/// Every fixture that can be read at all, beside a `-shm` that is worth nothing.
#[test]
fn alone_the_log_is_read_as_stock_sqlite_reads_it_and_nothing_is_touched() {
    let readable = |fixture: &Fixture| {
        fixture.facts.journal_bytes.is_none() && fixture.facts.journal_mode == "wal"
    };
    let fixtures = fixtures::all().unwrap();
    assert!(fixtures.iter().filter(|fixture| readable(fixture)).count() > 10);
    for fixture in fixtures.iter().filter(|fixture| readable(fixture)) {
        for strategy in [ReadStrategy::Mapped, ReadStrategy::Pread] {
            let copy = fixture.copy().unwrap();
            if !copy.index().exists() {
                fs::write(copy.index(), [0xa5; 40_000]).unwrap();
            }
            protect(copy.folder());
            let before = FolderState::of(copy.folder()).unwrap();
            let options = read_only(Duration::ZERO).read_strategy(strategy);
            let database = open(&copy.database(), &options).unwrap();
            let contents = Contents::of(&database).unwrap();
            database.close().unwrap();
            let name = &fixture.facts.name;
            assert_eq!(contents.pages, fixture.facts.pages, "{name}, {strategy:?}");
            let after = FolderState::of(copy.folder()).unwrap();
            assert_eq!(before.changes(&after), [""; 0], "{name}");
        }
    }
}

/// A database whose writer was killed: log and `-shm` are there, nobody is.
fn abandoned(kind: StockKind) -> (TempDir, PathBuf) {
    let (folder, path, peer) = database_of(kind);
    peer.kill().unwrap();
    protect(folder.path());
    (folder, path)
}

#[test]
fn a_writer_that_comes_later_cannot_change_what_a_lone_reader_sees() {
    for kind in StockKind::available() {
        let (_folder, path) = abandoned(kind);
        let database = open_patient(&path);
        assert_eq!(held(&path, read_0()), None);
        let first = database.begin_read().unwrap();
        let pages = seen(&database, &first);
        assert_eq!(pages, truth(&path, 4096));
        assert_eq!(held(&path, read_0()), Some(LockMode::Shared));
        assert_eq!(held(&path, shm_bytes::DMS), None, "nobody is misled");

        let file = fs::read(&path).unwrap();
        let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
        run(
            &mut peer,
            "PRAGMA wal_autocheckpoint=0; DELETE FROM t; VACUUM",
        );
        insert(&mut peer, 30);
        assert!(checkpoint_is_busy(&mut peer), "{kind}");
        insert(&mut peer, 30);
        assert_eq!(
            fs::read(&path).unwrap(),
            file,
            "the database is not written"
        );
        assert_eq!(seen(&database, &first), pages, "{kind}");

        let second = database.begin_read().unwrap();
        assert_eq!(seen(&database, &second), truth(&path, 4096), "{kind}");
        assert_eq!(seen(&database, &first), pages, "{kind}");
        drop((first, second));
        assert_eq!(held(&path, read_0()), None, "no lock is left");
        assert!(!checkpoint_is_busy(&mut peer), "{kind}");
        insert(&mut peer, 3);
        assert_newest_is_the_truth(&database, &path, "beside the writer");
        peer.close().unwrap();
        assert_newest_is_the_truth(&database, &path, "alone again");
    }
}

/// The log stands unchanged, and may begin anew at any moment.
#[test]
fn beside_a_writer_that_moved_all_of_the_log_the_shared_index_is_used() {
    for kind in StockKind::available() {
        let (_folder, path) = abandoned(kind);
        let database = open_patient(&path);
        let pages = newest(&database);
        let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
        run(&mut peer, "PRAGMA wal_checkpoint(PASSIVE)");
        let read = database.begin_read().unwrap();
        run(&mut peer, "UPDATE t SET x = randomblob(300)");
        assert_eq!(seen(&database, &read), pages, "{kind}");
        assert_newest_is_the_truth(&database, &path, &format!("{kind}"));
    }
}

#[test]
fn a_reader_that_is_left_alone_keeps_the_shared_index_for_the_next_writer() {
    for kind in StockKind::available() {
        let (_folder, path, peer) = database_of(kind);
        let database = open_patient(&path);
        let before = database.begin_read().unwrap();
        let pages = seen(&database, &before);
        peer.kill().unwrap();
        assert_eq!(held(&path, shm_bytes::DMS), Some(LockMode::Shared));
        let mut next = StockSqlite::spawn(kind, &path, None).unwrap();
        insert(&mut next, 20);
        assert_eq!(seen(&database, &before), pages, "{kind}");
        assert_newest_is_the_truth(&database, &path, &format!("{kind}"));
    }
}

/// Whoever comes and goes between two transactions leaves a changed log, and
/// no other trace.
#[test]
fn what_a_writer_left_is_seen_though_it_came_and_went() {
    let steps = [
        "INSERT INTO t VALUES (1)",
        "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES (2)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        // The log is as empty as before, and the database has another size.
        "INSERT INTO t VALUES (zeroblob(100000)); PRAGMA wal_checkpoint(TRUNCATE)",
        "DELETE FROM t; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
        "INSERT INTO t VALUES (3)",
        "DELETE FROM t; VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (4)",
    ];
    for kind in StockKind::available() {
        let (_folder, path) = abandoned(kind);
        let database = open_patient(&path);
        assert_newest_is_the_truth(&database, &path, "as it was left");
        for sql in steps {
            let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
            run(&mut peer, sql);
            peer.close().unwrap();
            assert_eq!(held(&path, shm_bytes::DMS), None);
            let when = format!("{kind}, after {sql}");
            assert_newest_is_the_truth(&database, &path, &when);
        }
    }
}

#[test]
fn a_commit_is_seen_by_a_second_lone_reader_while_the_first_goes_on() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    let database = open_patient(&path);
    let first = database.begin_read().unwrap();
    let pages = seen(&database, &first);
    let mut peer = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
    insert(&mut peer, 100);
    peer.kill().unwrap();
    let second = database.begin_read().unwrap();
    assert_eq!(seen(&database, &second), truth(&path, 4096));
    assert_eq!(seen(&database, &first), pages);
    drop(first);
    assert_eq!(held(&path, read_0()), Some(LockMode::Shared));
    drop(second);
    assert_eq!(held(&path, read_0()), None);
}

#[test]
fn whatever_writes_is_refused() {
    let (folder, path, peer) = database_of(StockKind::Bundled);
    protect(folder.path());
    let refused = |database: &Database| {
        let is_read_only = |error: &Error| matches!(error, Error::ReadOnly { .. });
        assert!(is_read_only(&database.begin_write().unwrap_err()));
        let checkpoint = database.checkpoint(CheckpointMode::Passive);
        assert!(is_read_only(&checkpoint.unwrap_err()));
        let upgraded = database.begin_read().unwrap().upgrade();
        assert!(is_read_only(&upgraded.unwrap_err().error));
    };
    refused(&open_patient(&path));
    peer.kill().unwrap();
    refused(&open_patient(&path));
    refused(&open(&path, &Options::new().immutable(true)).unwrap());
}

#[test]
fn who_may_not_write_is_told_how_to_read() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    let error = open(&path, &Options::new()).unwrap_err().to_string();
    assert!(error.contains("app.db: open failed"), "{error}");
    assert!(error.contains("Options::read_only"), "{error}");
}

#[test]
fn without_a_wal_index_only_an_immutable_database_is_read() {
    let (folder, path, peer) = database_of(StockKind::Bundled);
    peer.close().unwrap();
    protect(folder.path());
    let before = FolderState::of(folder.path()).unwrap();
    assert_eq!(before.names(), ["app.db"]);
    let error = open(&path, &read_only(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
    for way_out in ["-shm", "for writing", "immutable"] {
        assert!(error.to_string().contains(way_out), "{error}");
    }
    let immutable = open(&path, &Options::new().immutable(true)).unwrap();
    let file = fs::read(&path).unwrap();
    let pages: Vec<_> = file.chunks(4096).map(page_digest).collect();
    assert_eq!(newest(&immutable), pages);
    drop(immutable);
    let after = FolderState::of(folder.path()).unwrap();
    assert_eq!(before.changes(&after), [""; 0]);
}

#[test]
fn an_immutable_database_is_the_file_alone() {
    let (_folder, path, mut peer) = database_of(StockKind::Bundled);
    assert!(!checkpoint_is_busy(&mut peer));
    let in_file: Vec<_> = {
        let file = fs::read(&path).unwrap();
        file.chunks(4096).map(page_digest).collect()
    };
    insert(&mut peer, 5);
    let database = Options::new().immutable(true).open_shm(&path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(seen(&database, &read), in_file);
    // It locks nothing: the peer can do all, to its own harm.
    assert!(!checkpoint_is_busy(&mut peer));
    drop(read);
    drop(database);
    peer.close().unwrap();
}

#[test]
fn our_own_writers_are_followed_in_other_processes_and_in_this_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pages.db");
    let stamp = |writer, sequence| Stamp { writer, sequence };
    let mut writer = Worker::open(&Settings::new(&path)).unwrap();
    writer.commit(1..2, stamp(1, 1)).unwrap();
    for name in ["", "-wal", "-shm"] {
        let file = beside(&path, name);
        fs::set_permissions(file, Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
    let elsewhere = open_patient(&path);
    let of = |database: &Database| newest(database)[0].clone();
    let mut states = vec![of(&elsewhere)];
    for serial in 2..5 {
        writer.commit(1..2, stamp(1, serial)).unwrap();
        assert!(
            writer
                .ask::<bool>(Command::Checkpoint(Checkpoint::Passive))
                .unwrap()
        );
        let state = of(&elsewhere);
        assert!(!states.contains(&state), "commit {serial} is not seen");
        states.push(state);
    }
    if !geteuid().is_root() {
        return; // Nobody can write here, so there is no writer in this process.
    }
    let here = Options::new().open_shm(&path).unwrap();
    let beside_it = read_only(PATIENT).open_shm(&path).unwrap();
    let mut write = here.begin_write().unwrap();
    write.page_mut(wal::PageNo::ONE).unwrap()[0] ^= 1;
    write.commit().unwrap();
    let state = of(&here);
    assert!(!states.contains(&state));
    assert_eq!((of(&beside_it), of(&elsewhere)), (state.clone(), state));
    // The last to go may not clean up, so all stays.
    writer.run(Command::Close).unwrap();
    here.close().unwrap();
    drop((beside_it, elsewhere));
    assert!(beside(&path, "-wal").exists());
}

#[test]
fn a_reader_and_a_later_writer_of_one_process_do_not_share_an_attachment() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    if !geteuid().is_root() {
        return; // Nobody can write here.
    }
    let database = open_patient(&path);
    let before = database.begin_read().unwrap();
    let pages = seen(&database, &before);
    let writer = Options::new().auto_checkpoint(0).open_shm(&path).unwrap();
    let mut write = writer.begin_write().unwrap();
    let added = write.allocate().unwrap();
    write.page_mut(added).unwrap()[0] = 7;
    write.commit().unwrap();
    let report = writer.checkpoint(CheckpointMode::Passive).unwrap();
    assert!(!report.is_complete(), "{report:?}");
    assert_eq!(seen(&database, &before), pages);
    assert_eq!(newest(&database), newest(&writer));
    drop(before);
    let report = writer.checkpoint(CheckpointMode::Passive).unwrap();
    assert!(report.is_complete(), "{report:?}");
}

/// The words of a live wal-index are made what a dying writer may leave.
fn damage(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(beside(path, "-shm"));
    file.unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_damaged_live_index_is_left_to_a_writer() {
    let (folder, path, mut peer) = database_of(StockKind::Bundled);
    // The peer that mends it must be another: closing the file in this
    // process touches no lock of it.
    let database = open(&path, &read_only(IMPATIENT)).unwrap();
    let pages = newest(&database);
    damage(&path, 8, &[0xff; 4]);
    let error = database.begin_read().unwrap_err();
    assert!(matches!(error, Error::NeedsRecovery { .. }), "{error:?}");
    assert!(error.is_busy());
    run(&mut peer, "SELECT count(*) FROM t");
    assert_eq!(newest(&database), pages);
    drop(folder);
}

#[test]
fn a_live_index_without_a_usable_mark_is_waited_for() {
    let (_folder, path, mut peer) = database_of(StockKind::Bundled);
    let database = open(&path, &read_only(IMPATIENT)).unwrap();
    let pages = newest(&database);
    damage(&path, 104, &[0xff; 16]);
    let error = database.begin_read().unwrap_err();
    let is_busy = matches!(
        error,
        Error::Busy {
            lock: Lock::ReadMarks,
            ..
        }
    );
    assert!(is_busy, "{error:?}");
    run(&mut peer, "SELECT count(*) FROM t");
    assert_eq!(newest(&database), pages);
}

#[test]
fn classic_locks_read_beside_a_live_writer_and_not_alone() {
    let (_folder, path, peer) = database_of(StockKind::Bundled);
    let classic = read_only(IMPATIENT).lock_kind(LockKind::Classic);
    let database = open(&path, &classic).unwrap();
    assert_newest_is_the_truth(&database, &path, "with classic locks");
    drop(database);
    peer.kill().unwrap();
    let error = open(&path, &classic).unwrap_err();
    assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
    assert!(
        error.to_string().contains("open-file-description"),
        "{error}"
    );
}

#[test]
fn the_in_process_backend_does_not_read_only() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    let error = read_only(IMPATIENT).open_inproc(&path).unwrap_err();
    assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
}
