//! Opening and closing databases with the extension, again and again: the process keeps few
//! descriptors, and no lock of a connection that stays open is dropped.
//!
//! A program of its own, because it counts the descriptors of its process.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use integration::queue;
use integration::stock;
use rusqlite::Connection;
use serial_test::serial;
use tempfile::TempDir;

/// How many descriptors more than at the beginning are none too many: those of a database that
/// is open, and some of the test harness.
const SOME: usize = 12;
/// How many guards a process has at most; see `guard.rs` of the extension.
const GUARDS: usize = 64;

fn folder() -> TempDir {
    stock::load(queue::library().unwrap().as_os_str()).unwrap();
    tempfile::tempdir().unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn write(database: &Path) -> Connection {
    let connection = Connection::open(database).unwrap();
    // The disk is not what is tested.
    connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
    let increment = "UPDATE t SET n = n + 1 WHERE id = 1";
    assert_eq!(connection.execute(increment, []).unwrap(), 1);
    connection
}

/// True if this process has SQLite's SHARED on `database`. The list is read in parts, and may
/// lack a lock while other locks are acquired and released.
fn has_shared(database: &Path) -> bool {
    let inode = fs::metadata(database).unwrap().ino();
    let pid = std::process::id().to_string();
    (0..1000).any(|_| {
        let list = fs::read_to_string("/proc/locks").unwrap();
        list.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let on_file = |place: &str| place.ends_with(&format!(":{inode}"));
            matches!(fields[..], [_, "POSIX", _, "READ", by, place, ..] if by == pid && on_file(place))
        })
    })
}

#[test]
#[serial]
fn opens_of_one_database_keep_few_descriptors() {
    let folder = folder();
    let database = folder.path().join("app.db");
    queue::create(&database, 1).unwrap();
    let before = descriptors();
    for _ in 0..1000 {
        drop(write(&database));
    }
    let after = descriptors();
    assert!(after <= before + SOME, "{before} became {after}");
}

#[test]
#[serial]
fn opens_of_many_databases_keep_few_descriptors() {
    let folder = folder();
    let before = descriptors();
    for number in 0..GUARDS * 4 {
        let database = folder.path().join(format!("{number}.db"));
        queue::create(&database, 1).unwrap();
        drop(write(&database));
    }
    let after = descriptors();
    assert!(after <= before + GUARDS + SOME, "{before} became {after}");
}

#[test]
#[serial]
fn lock_of_an_open_connection_outlives_opens_and_closes() {
    let folder = folder();
    let database = folder.path().join("app.db");
    queue::create(&database, 1).unwrap();
    let stays = write(&database);
    assert!(has_shared(&database));
    for _ in 0..100 {
        drop(write(&database));
        assert!(has_shared(&database));
    }
    drop(stays);
}
