//! Reading a database that may not be written: beside live peers, alone with
//! a private index, and as an immutable file. Stock SQLite writes, and says
//! what is to be read.
//!
//! Files are root's and are opened with the rights of nobody, so that nothing
//! can be written whatever the library tries.

mod alone;
mod beside;
mod refused;

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fixtures::{Fixture, page_digest};
use integration::folder::FolderState;
use integration::kind::kind_at;
use integration::needs::Need;
use integration::reading::Contents;
use integration::rights::as_nobody;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Checkpoint, Command, Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::shm::{Database, ReadTx};
use wal::{CheckpointMode, Error, Lock, LockKind, Options, ReadStrategy};
use wal_core::LockMode;
use wal_core::storage::{ByteLocks, beside, shm_bytes};

/// Longer than any step takes, so that only a hang gets there.
const PATIENT: Duration = Duration::from_secs(20);
/// Long enough to look more than once.
const IMPATIENT: Duration = Duration::from_millis(30);

fn read_only(busy_timeout: Duration) -> Options {
    Options::new()
        .read_only(true)
        .read_lock_delay(Duration::ZERO)
        .busy_timeout(busy_timeout)
}

fn open(path: &Path, options: &Options) -> wal::Result<Database> {
    let options = options.clone().kind(kind_at(path));
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

/// A database whose writer was killed: log and `-shm` are there, nobody is.
fn abandoned(kind: StockKind) -> (TempDir, PathBuf) {
    let (folder, path, peer) = database_of(kind);
    peer.kill().unwrap();
    protect(folder.path());
    (folder, path)
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
