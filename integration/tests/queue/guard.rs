//! A stray `close` of the database file drops the locks of SQLite in that process. The guard of
//! the extension keeps the log of its database from the last closer of another process. A closer
//! of SQLite 3.51 or later looks at the locks of `-shm` too (`unixIsSharingShmNode`), so here an
//! older one closes.

use integration::stock::{StockKind, StockSqlite};
use wal_core::storage::beside;

use crate::scene::Scene;

/// Lets `peer`, which has the database open, open and close the file once more, and another
/// process write, and close last. True if the log is there afterwards.
fn log_survives_a_stray_close(scene: &Scene, peer: &mut StockSqlite) -> bool {
    peer.run("UPDATE t SET n = 1").unwrap().unwrap();
    // The shell reads the file by itself, and closes it.
    let read = format!("SELECT length(readfile('{}'))", scene.database.display());
    peer.run(&read).unwrap().unwrap();
    let mut other = StockSqlite::spawn(StockKind::Debian, &scene.database, None).unwrap();
    other.run("UPDATE t SET n = n + 1").unwrap().unwrap();
    other.close().unwrap();
    beside(&scene.database, "-wal").exists()
}

#[test]
fn log_survives_a_stray_close_with_the_extension_alone() {
    if !StockKind::available().contains(&StockKind::Debian) {
        return;
    }
    let scene = Scene::new(1);
    let mut peer = StockSqlite::spawn(StockKind::Debian, &scene.database, None).unwrap();
    let survives = log_survives_a_stray_close(&scene, &mut peer);
    assert!(!survives, "without the guard the log is deleted");
    drop(peer);

    let scene = Scene::new(1);
    let mut peer = scene.stock(StockKind::Debian);
    assert!(log_survives_a_stray_close(&scene, &mut peer));
    peer.run("UPDATE t SET n = n + 1").unwrap().unwrap();
    // The guard goes with the connection: the last closer deletes the log.
    peer.close().unwrap();
    for suffix in ["-wal", "-shm", "-coord"] {
        assert!(!beside(&scene.database, suffix).exists(), "{suffix}");
    }
    assert_eq!(scene.counts(), [3]);
}

#[test]
fn guard_leaves_exclusive_to_the_last_closer() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut first, mut last) = (scene.stock(kind), scene.stock(kind));
        for peer in [&mut first, &mut last] {
            peer.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        }
        first.close().unwrap();
        assert!(beside(&scene.database, "-wal").exists(), "{kind:?}");
        let mode = last.run("PRAGMA journal_mode=DELETE").unwrap().unwrap();
        assert!(format!("{mode:?}").contains("delete"), "{kind:?}: {mode:?}");
        last.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        let mode = last.run("PRAGMA journal_mode=WAL").unwrap().unwrap();
        assert!(format!("{mode:?}").contains("wal"), "{kind:?}: {mode:?}");
        last.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        last.close().unwrap();
        assert!(!beside(&scene.database, "-wal").exists(), "{kind:?}");
        assert_eq!(scene.counts(), [4]);
    }
}

#[test]
fn exclusive_that_is_refused_leaves_the_guard_in_place() {
    if !StockKind::available().contains(&StockKind::Debian) {
        return;
    }
    let scene = Scene::new(1);
    let mut peer = scene.stock(StockKind::Debian);
    peer.run("UPDATE t SET n = 0").unwrap().unwrap();
    let mut reader = StockSqlite::spawn(StockKind::Bundled, &scene.database, None).unwrap();
    reader.run("SELECT n FROM t").unwrap().unwrap();
    let refused = peer.run("PRAGMA journal_mode=DELETE").unwrap();
    assert!(
        !format!("{refused:?}").contains("\"delete\""),
        "{refused:?}"
    );
    reader.close().unwrap();
    assert!(log_survives_a_stray_close(&scene, &mut peer));
}
