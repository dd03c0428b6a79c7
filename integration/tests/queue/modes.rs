//! Locking modes, journal modes, attached and temporary databases and VACUUM: SQLite behaves in
//! the queue as it does without it.

use std::fs;
use std::thread;
use std::time::Duration;

use integration::stock::{StockKind, StockSqlite};
use wal_core::storage::beside;

use crate::scene::Scene;

fn ok(peer: &mut StockSqlite, sql: &str) {
    let answer = peer.run(sql).unwrap();
    answer.unwrap_or_else(|error| panic!("{peer}: {sql}: {error}"));
}

fn integer(peer: &mut StockSqlite, sql: &str) -> i64 {
    peer.run(sql).unwrap().unwrap().integer().unwrap()
}

fn check_busy(peer: &mut StockSqlite, sql: &str) {
    let error = peer.run(sql).unwrap().unwrap_err();
    assert!(error.is_busy(), "{peer}: {sql}: {error}");
}

#[test]
fn exclusive_mode_keeps_peers_out_until_it_ends() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut peer, mut other) = (scene.stock(kind), scene.stock(kind));
        ok(&mut peer, "SELECT n FROM t");
        ok(
            &mut peer,
            "PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET n = n + 1",
        );
        check_busy(&mut other, "SELECT n FROM t");
        check_busy(&mut other, "UPDATE t SET n = n + 1");
        ok(&mut peer, "UPDATE t SET n = n + 1");
        ok(&mut peer, "PRAGMA locking_mode=NORMAL; SELECT n FROM t");
        ok(&mut other, "UPDATE t SET n = n + 1");
        assert_eq!(integer(&mut peer, "SELECT n FROM t"), 3);
        ok(&mut peer, "UPDATE t SET n = n + 1");
    }
}

#[test]
fn exclusive_mode_from_the_start_keeps_peers_out_until_close() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut peer, mut other) = (scene.stock(kind), scene.stock(kind));
        // There is no index in shared memory then.
        ok(
            &mut peer,
            "PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET n = n + 1",
        );
        check_busy(&mut other, "SELECT n FROM t");
        ok(&mut peer, "UPDATE t SET n = n + 1");
        assert!(!beside(&scene.database, "-shm").exists());
        assert!(!scene.side_file().exists());
        peer.close().unwrap();
        ok(&mut other, "UPDATE t SET n = n + 1");
        assert_eq!(integer(&mut other, "SELECT n FROM t"), 3);
    }
}

#[test]
fn last_close_removes_log_and_index() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut first, mut last) = (scene.stock(kind), scene.stock(kind));
        ok(&mut first, "UPDATE t SET n = n + 1");
        ok(&mut last, "UPDATE t SET n = n + 1");
        first.close().unwrap();
        for suffix in ["-wal", "-shm"] {
            assert!(beside(&scene.database, suffix).exists(), "{suffix}");
        }
        assert_eq!(integer(&mut last, "SELECT n FROM t"), 2);
        last.close().unwrap();
        for suffix in ["-wal", "-shm"] {
            assert!(!beside(&scene.database, suffix).exists(), "{suffix}");
        }
        assert_eq!(scene.counts(), [2]);
    }
}

#[test]
fn journal_mode_changes_when_no_peer_is_there() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut peer, mut other) = (scene.stock(kind), scene.stock(kind));
        ok(&mut peer, "UPDATE t SET n = n + 1");
        ok(&mut other, "UPDATE t SET n = n + 1");
        check_busy(&mut peer, "PRAGMA journal_mode=DELETE");
        other.close().unwrap();
        // SQLite changes the mode with a cache that may be stale.
        ok(&mut peer, "SELECT n FROM t");
        let mode = peer.run("PRAGMA journal_mode=DELETE").unwrap().unwrap();
        assert_eq!(mode.text().unwrap(), "delete");
        ok(&mut peer, "UPDATE t SET n = n + 1");
        assert!(!beside(&scene.database, "-wal").exists());
        let mode = peer.run("PRAGMA journal_mode=WAL").unwrap().unwrap();
        assert_eq!(mode.text().unwrap(), "wal");
        ok(&mut peer, "UPDATE t SET n = n + 1");
        let mut other = scene.stock(kind);
        ok(&mut other, "UPDATE t SET n = n + 1");
        assert_eq!(integer(&mut peer, "SELECT n FROM t"), 5);
    }
}

#[test]
fn attached_databases_commit_together_in_the_queue() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let names =
            ["two.db", "three.db", "rollback.db"].map(|name| scene.directory.path().join(name));
        let mut first = scene.stock(kind);
        let attach = |peer: &mut StockSqlite| {
            peer.set_busy_timeout(Duration::from_secs(20)).unwrap();
            for (name, alias) in names.iter().zip(["two", "three", "rollback"]) {
                ok(peer, &format!("ATTACH '{}' AS {alias}", name.display()));
            }
        };
        attach(&mut first);
        for (alias, mode) in [("two", "WAL"), ("three", "WAL"), ("rollback", "DELETE")] {
            ok(
                &mut first,
                &format!(
                    "PRAGMA {alias}.journal_mode={mode}; CREATE TABLE {alias}.c(n); INSERT INTO {alias}.c VALUES(0)"
                ),
            );
        }
        let mut peers = [first, scene.stock(kind), scene.stock(kind)];
        peers[1..].iter_mut().for_each(attach);
        let transaction = "BEGIN IMMEDIATE; UPDATE main.t SET n = n + 1; UPDATE two.c SET n = n + 1; \
                           UPDATE three.c SET n = n + 1; UPDATE rollback.c SET n = n + 1; COMMIT";
        const EACH: i64 = 20;
        thread::scope(|scope| {
            for peer in &mut peers {
                scope.spawn(move || (0..EACH).for_each(|_| ok(peer, transaction)));
            }
        });
        for table in ["main.t", "two.c", "three.c", "rollback.c"] {
            let count = integer(&mut peers[0], &format!("SELECT n FROM {table}"));
            assert_eq!(count, 3 * EACH, "{table} by {kind}");
        }
        for (name, exists) in names.iter().zip([true, true, false]) {
            assert_eq!(
                beside(name, "-coord").exists(),
                exists,
                "{}",
                name.display()
            );
        }
    }
}

#[test]
fn databases_without_a_file_get_no_side_file() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock(kind);
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                    SELECT i, randomblob(1000) FROM n";
        let rows = rows.replace('\n', " ");
        for schema in ["memory", "unnamed"] {
            let name = if schema == "memory" { ":memory:" } else { "" };
            ok(
                &mut peer,
                &format!("ATTACH '{name}' AS {schema}; PRAGMA {schema}.journal_mode=WAL"),
            );
            // More than the cache holds.
            ok(
                &mut peer,
                &format!("PRAGMA {schema}.cache_size=10; CREATE TABLE {schema}.r AS {rows}"),
            );
            assert_eq!(
                integer(&mut peer, &format!("SELECT count(*) FROM {schema}.r")),
                2000
            );
        }
        ok(&mut peer, &format!("CREATE TEMP TABLE r AS {rows}"));
        ok(&mut peer, "SELECT * FROM temp.r ORDER BY 2 LIMIT 1");
        let entries = fs::read_dir(scene.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut foreign = names.filter(|name| !name.starts_with("app.db"));
        assert_eq!(foreign.next(), None);
        peer.close().unwrap();
    }
}

#[test]
fn vacuum_leaves_the_same_rows_beside_a_writer() {
    for kind in StockKind::available() {
        let scene = Scene::new(4);
        let copy = scene.directory.path().join("copy.db");
        let (mut peer, mut writer) = (scene.stock(kind), scene.stock(kind));
        for peer in [&mut peer, &mut writer] {
            peer.set_busy_timeout(Duration::from_secs(20)).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..50 {
                    ok(&mut writer, "UPDATE t SET n = n + 1, x = randomblob(3000)");
                }
            });
            for _ in 0..5 {
                ok(&mut peer, "VACUUM");
            }
            ok(&mut peer, &format!("VACUUM INTO '{}'", copy.display()));
        });
        assert_eq!(scene.counts(), [50; 4]);
        let copied = "SELECT count(DISTINCT n) FROM copy.t";
        ok(&mut peer, &format!("ATTACH '{}' AS copy", copy.display()));
        assert_eq!(integer(&mut peer, copied), 1, "the copy is no snapshot");
    }
}

#[test]
fn lost_upgrade_fails_at_once_and_succeeds_afterwards() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut peer, mut other) = (scene.stock(kind), scene.stock(kind));
        peer.set_busy_timeout(Duration::from_secs(20)).unwrap();
        ok(&mut peer, "BEGIN; SELECT n FROM t");
        ok(&mut other, "UPDATE t SET n = n + 1");
        // The snapshot is stale, so no wait could help.
        peer.send("UPDATE t SET n = n + 1").unwrap();
        let error = peer.finish(Duration::from_secs(5)).unwrap().unwrap_err();
        assert!(error.is_busy(), "{error}");
        ok(&mut peer, "ROLLBACK");
        ok(&mut peer, "UPDATE t SET n = n + 1");
        ok(&mut other, "UPDATE t SET n = n + 1");
        assert_eq!(integer(&mut peer, "SELECT n FROM t"), 3);
    }
}

#[test]
fn checkpoints_of_all_modes_work_beside_a_peer() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut peer, mut other) = (scene.stock(kind), scene.stock(kind));
        ok(&mut other, "SELECT n FROM t");
        for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
            ok(&mut peer, "UPDATE t SET n = n + 1");
            let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
            let rows = peer.run(&checkpoint).unwrap().unwrap();
            let busy = rows.0.first().and_then(|row| row.first()).unwrap();
            assert_eq!(*busy, rusqlite::types::Value::Integer(0), "{mode}");
        }
        assert_eq!(integer(&mut other, "SELECT n FROM t"), 4);
        let log = fs::metadata(beside(&scene.database, "-wal")).unwrap();
        assert_eq!(log.len(), 0);
    }
}
