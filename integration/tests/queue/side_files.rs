//! A damaged or missing side file costs fairness only.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::queue;
use integration::queue::{Language, Writer};
use integration::stock::{StockKind, StockSqlite};
use rusqlite::Connection;
use wal_core::storage::beside;

use crate::scene::Scene;

const SECONDS: f64 = 0.7;
const WRITERS: [Language; 4] = [Language::Rust; 4];

fn garbage(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

/// Writers beside a side file that `damage` makes.
fn check_beside(what: &str, damage: impl Fn(&Path)) {
    let scene = Scene::new(4);
    damage(&scene.side_file());
    let outcomes = scene.run(&WRITERS, SECONDS, |_| {});
    for outcome in outcomes {
        assert!(outcome.commits > 0, "{what}: {outcome:?}");
    }
}

#[test]
fn garbage_in_the_side_file_leaves_writers_at_work() {
    for length in [1, 64, 4096, 65_536] {
        let what = format!("{length} bytes of garbage");
        check_beside(&what, |file| fs::write(file, garbage(length)).unwrap());
        let what = format!("{length} zeros");
        check_beside(&what, |file| fs::write(file, vec![0; length]).unwrap());
        let what = format!("{length} ones");
        check_beside(&what, |file| fs::write(file, vec![0xff; length]).unwrap());
    }
}

#[test]
fn side_file_cut_short_leaves_writers_at_work() {
    check_beside("a side file cut short", |file| {
        // A side file that the queue has made.
        let database = file.with_file_name("app.db");
        let library = queue::library().unwrap();
        let mut peer = StockSqlite::spawn_with(StockKind::Bundled, &database, &library).unwrap();
        peer.run("UPDATE t SET n = n").unwrap().unwrap();
        let bytes = fs::read(file).unwrap();
        peer.close().unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    });
}

#[test]
fn folder_in_place_of_the_side_file_leaves_writers_at_work() {
    check_beside("a folder", |file| fs::create_dir(file).unwrap());
}

#[test]
fn side_file_without_rights_leaves_writers_at_work() {
    // Root opens it anyway, which is no fault either.
    for mode in [0o444, 0o000] {
        check_beside("a file without rights", |file| {
            fs::write(file, b"").unwrap();
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        });
    }
}

/// Starts writers, calls `damage` while they are in the middle, and checks what they leave.
fn check_in_use(damage: impl Fn(&Path)) {
    let scene = Scene::new(4);
    let start = |row| {
        let mut order = scene.order(row, 1.5);
        order.pause_ms = 1;
        let mut writer = Writer::start(Language::Rust, &order).unwrap();
        writer.wait_until_ready().unwrap();
        writer
    };
    let mut writers = [1, 2, 3, 4].map(start);
    for writer in &mut writers {
        writer.go().unwrap();
    }
    thread::sleep(Duration::from_millis(300));
    damage(&scene.side_file());
    let outcomes = writers.map(|writer| writer.finish().unwrap());
    for (outcome, count) in outcomes.iter().zip(scene.counts()) {
        assert_eq!(outcome.commits, count);
        assert!(count > 0, "a writer has no commit: {outcomes:?}");
    }
}

#[test]
fn side_file_overwritten_in_use_loses_no_commit() {
    check_in_use(|file| {
        // Not truncated: writers have it mapped.
        let length = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        let file = File::options().write(true).open(file).unwrap();
        file.write_all_at(&garbage(length), 0).unwrap();
    });
}

#[test]
fn side_file_removed_in_use_loses_no_commit() {
    check_in_use(|file| fs::remove_file(file).unwrap());
}

#[test]
fn database_not_in_wal_mode_gets_no_side_file() {
    for kind in StockKind::available() {
        for mode in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"] {
            let folder = tempfile::tempdir().unwrap();
            let database = folder.path().join("app.db");
            let setup = format!("PRAGMA journal_mode={mode}; CREATE TABLE t(n)");
            Connection::open(&database)
                .unwrap()
                .execute_batch(&setup)
                .unwrap();
            let library = queue::library().unwrap();
            let mut peer = StockSqlite::spawn_with(kind, &database, &library).unwrap();
            peer.run("INSERT INTO t VALUES(1); SELECT * FROM t")
                .unwrap()
                .unwrap();
            for suffix in ["-coord", "-wal", "-shm"] {
                assert!(!beside(&database, suffix).exists(), "{mode} {suffix}");
            }
            peer.close().unwrap();
            assert!(!beside(&database, "-coord").exists(), "{mode}");
        }
    }
}

#[test]
fn database_in_wal_mode_gets_a_side_file() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock(kind);
        peer.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        assert!(scene.side_file().exists());
    }
}
