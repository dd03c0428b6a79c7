//! A program that is being spawned has a copy of every descriptor of its parent for a moment,
//! and no handler runs in it. What the parent has closed is not locked by that copy.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use integration::worker::Worker;
use tempfile::TempDir;
use wal::{DatabaseKind, Options, Synchronous};
use wal_core::storage::{beside, database_bytes, shm_bytes};

const SPAWNERS: usize = 2;
const ROUNDS: u32 = 150;

fn options(close_descriptors: bool) -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::ZERO)
        .close_descriptors(close_descriptors)
}

/// Opens and closes a database by `open_and_close` while other threads spawn programs, and
/// looks from another process after each close.
fn expect_free_after_each_close(open_and_close: impl Fn(&Path)) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pages");
    // Another name of the index, which stays when the last closer removes it.
    let index = directory.path().join("index");
    let mut onlooker = Worker::spawn().unwrap();
    let is_over = AtomicBool::new(false);
    let spawn = || {
        let mut spawned = 0;
        while !is_over.load(Ordering::Relaxed) {
            assert!(Command::new("true").status().unwrap().success());
            spawned += 1;
        }
        spawned
    };
    thread::scope(|scope| {
        let spawners: Vec<_> = (0..SPAWNERS).map(|_| scope.spawn(spawn)).collect();
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..ROUNDS {
                std::fs::write(beside(&path, "-shm"), "").unwrap();
                let _ = std::fs::remove_file(&index);
                std::fs::hard_link(beside(&path, "-shm"), &index).unwrap();
                open_and_close(&path);
                for (file, bytes) in [(&path, database_bytes::SHARED), (&index, shm_bytes::DMS)] {
                    let held = onlooker.probe(file, bytes.start).unwrap();
                    assert_eq!(held, None, "{} in round {round}", file.display());
                }
            }
        }));
        // Before anything can panic, which would wait for the spawners.
        is_over.store(true, Ordering::Relaxed);
        for spawner in spawners {
            assert!(spawner.join().unwrap() > 0);
        }
        if let Err(panic) = rounds {
            std::panic::resume_unwind(panic);
        }
    });
    onlooker.end().unwrap();
}

#[test]
fn closed_database_is_free_while_children_are_spawned() {
    for close_descriptors in [false, true] {
        expect_free_after_each_close(|path| {
            let database = options(close_descriptors).open(path).unwrap();
            drop(database.begin_read().unwrap());
            database.close().unwrap();
        });
    }
}

#[test]
fn closed_owner_is_free_while_children_are_spawned() {
    for close_descriptors in [false, true] {
        expect_free_after_each_close(|path| {
            let options = options(close_descriptors);
            options.open_inproc(path).unwrap().close().unwrap();
        });
    }
}
