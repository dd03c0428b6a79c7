//! Reading a database that may not be written.
//!
//! Files are root's and are opened with the rights of nobody, so that nothing
//! can be written whatever is tried.
#![cfg(feature = "shm")]
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use wal_libsql::{BackendKind, Connection, OpenOptions, SqlError, Value, ffi};

/// "nobody", who owns nothing.
const NOBODY: u32 = 65534;

/// Works with the file system rights of nobody, which are a thread's.
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

/// Lets everybody read the folder and what is in it, and only root write.
fn protect(folder: &Path) {
    set_modes(folder, 0o555, 0o444);
    let written = as_nobody(|| fs::write(folder.join("new"), ""));
    assert!(written.is_err(), "the test would show nothing");
}

fn set_modes(folder: &Path, of_folder: u32, of_files: u32) {
    fs::set_permissions(folder, Permissions::from_mode(of_folder)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(of_files)).unwrap();
    }
}

fn writer(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t(a)")
        .unwrap();
    db
}

/// A connection that only nobody uses.
struct Reader(Connection);

impl Reader {
    fn open(path: &Path) -> Self {
        let options = OpenOptions::new(BackendKind::Shared).read_only();
        Reader(as_nobody(|| options.open(path)).unwrap())
    }

    fn rows(self) -> (Self, Result<i64, SqlError>) {
        as_nobody(move || {
            let rows = self.0.query("SELECT count(*) FROM t");
            let rows = rows.map(|rows| match rows[0][0] {
                Value::Integer(rows) => rows,
                _ => -1,
            });
            (self, rows)
        })
    }
}

#[test]
fn a_reader_reads_along_with_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let writer = writer(&path);
    protect(dir.path());
    let (reader, rows) = Reader::open(&path).rows();
    assert_eq!(rows, Ok(0));
    writer.execute("INSERT INTO t VALUES (1)").unwrap();
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    writer.execute("INSERT INTO t VALUES (2)").unwrap();
    let (reader, rows) = reader.rows();
    assert_eq!(rows, Ok(2));
    let refused = as_nobody(move || {
        let write = reader.0.execute("INSERT INTO t VALUES (3)").unwrap_err();
        let checkpoint = reader.0.query("PRAGMA wal_checkpoint").unwrap_err();
        [write.code, checkpoint.code]
    });
    assert_eq!(refused, [ffi::SQLITE_READONLY; 2]);
}

/// The files of a database that was left without being closed: the reader has
/// an index of its own, until a writer comes.
#[test]
fn a_reader_that_was_alone_goes_on_when_a_writer_comes() {
    let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let of_the_dead = writer(&dir.path().join("db"));
    of_the_dead.execute("INSERT INTO t VALUES (1)").unwrap();
    for name in ["db", "db-wal", "db-shm"] {
        fs::copy(dir.path().join(name), left.path().join(name)).unwrap();
    }
    protect(left.path());
    let path = left.path().join("db");
    let (reader, rows) = Reader::open(&path).rows();
    assert_eq!(rows, Ok(1));
    set_modes(left.path(), 0o755, 0o644);
    let writer = writer(&path);
    writer.execute("INSERT INTO t VALUES (2)").unwrap();
    let (reader, rows) = reader.rows();
    assert_eq!(rows, Ok(2));
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    writer.execute("INSERT INTO t VALUES (3)").unwrap();
    drop(writer);
    assert_eq!(reader.rows().1, Ok(3));
}
