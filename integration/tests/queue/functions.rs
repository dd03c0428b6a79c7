//! The SQL functions and tables of the extension.

use std::thread;
use std::time::{Duration, Instant};

use integration::stock::{Rows, StockKind, StockSqlite};
use rusqlite::Connection;
use rusqlite::types::Value;
use wal::shm::Database;

use crate::scene::Scene;

/// Longer than any step here takes, so that only a hang gets there.
const WAIT: Duration = Duration::from_secs(60);

fn rows(peer: &mut StockSqlite, sql: &str) -> Rows {
    peer.run(sql).unwrap().unwrap()
}

fn integer(peer: &mut StockSqlite, sql: &str) -> i64 {
    rows(peer, sql).integer().unwrap()
}

/// Checks that a wait of `waiter` ends with what `commit` does.
fn check_wait(waiter: &mut StockSqlite, what: &str, commit: impl FnOnce()) {
    let version = integer(waiter, "SELECT wal_wait(0)");
    // It ends whether the commit comes before it or after.
    waiter
        .send(&format!("SELECT wal_wait(600000, {version})"))
        .unwrap();
    commit();
    let next = waiter.finish(WAIT).unwrap().unwrap().integer().unwrap();
    assert_ne!(next, version, "{what}");
}

#[test]
fn wait_ends_with_a_commit_of_each_kind_of_peer() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut waiter = scene.stock(kind);
        let update = "UPDATE t SET n = n + 1";
        let mut queued = scene.stock(kind);
        check_wait(&mut waiter, "a peer in the queue", || {
            rows(&mut queued, update);
        });
        let mut stock = StockSqlite::spawn(kind, &scene.database, None).unwrap();
        check_wait(&mut waiter, "a stock peer", || {
            rows(&mut stock, update);
        });
        check_wait(&mut waiter, "a page writer", || {
            let pages = Database::open(&scene.database).unwrap();
            let mut write = pages.begin_write().unwrap();
            // The same page again is a commit, too.
            write.page_mut(2.try_into().unwrap()).unwrap();
            write.commit().unwrap();
        });
    }
}

#[test]
fn wait_without_a_commit_ends_in_time_at_the_same_version() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock(kind);
        rows(&mut peer, "UPDATE t SET n = n + 1");
        let version = integer(&mut peer, "SELECT wal_wait(0)");
        let began = Instant::now();
        assert_eq!(integer(&mut peer, "SELECT wal_wait(50)"), version);
        assert!(began.elapsed() >= Duration::from_millis(50));
        // A version that is not the one now ends the wait at once.
        let stale = format!("SELECT wal_wait(600000, {})", version - 1);
        assert_eq!(integer(&mut peer, &stale), version);
        for millis in [-1, i64::MIN] {
            assert_eq!(
                integer(&mut peer, &format!("SELECT wal_wait({millis})")),
                version
            );
        }
    }
}

#[test]
fn info_has_the_figures_of_the_pragmas() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock(kind);
        rows(&mut peer, "UPDATE t SET n = n + 1");
        let info = "SELECT state, frames, backfilled, page_size, pages FROM wal_info";
        let before = rows(&mut peer, info).0.remove(0);
        let Value::Integer(frames) = before[1] else {
            panic!("{before:?}");
        };
        assert!(frames > 0);
        assert_eq!(before[0], Value::Text("valid".to_owned()));
        assert_eq!(before[2], Value::Integer(0));
        assert_eq!(
            before[3].clone(),
            *rows(&mut peer, "PRAGMA page_size").value().unwrap()
        );
        assert_eq!(
            before[4].clone(),
            *rows(&mut peer, "PRAGMA page_count").value().unwrap()
        );
        let checkpoint = rows(&mut peer, "PRAGMA wal_checkpoint").0.remove(0);
        assert_eq!(checkpoint, [0, frames, frames].map(Value::Integer));
        let after = rows(&mut peer, info).0.remove(0);
        assert_eq!(after[1..3], [frames, frames].map(Value::Integer));
    }
}

#[test]
fn queue_names_the_writers_that_wait_in_their_order() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut holder, mut observer) = (scene.stock(kind), scene.stock(kind));
        rows(&mut holder, "BEGIN IMMEDIATE");
        let queue = "SELECT pid FROM wal_queue WHERE state = 'waits' ORDER BY position";
        let mut waiters: Vec<StockSqlite> = Vec::new();
        for _ in 0..3 {
            let mut waiter = scene.stock(kind);
            waiter.set_busy_timeout(WAIT).unwrap();
            waiter.send("UPDATE t SET n = n + 1").unwrap();
            waiters.push(waiter);
            let pids = waiters.iter().map(|waiter| i64::from(waiter.pid()));
            let expected: Vec<_> = pids.map(|pid| vec![Value::Integer(pid)]).collect();
            // A waiter leaves its slot for a moment between two sleeps.
            let deadline = Instant::now() + WAIT;
            while rows(&mut observer, queue).0 != expected {
                assert!(Instant::now() < deadline, "{kind:?}: not {expected:?}");
                thread::sleep(Duration::from_millis(1));
            }
        }
        rows(&mut holder, "COMMIT");
        for mut waiter in waiters {
            waiter.finish(WAIT).unwrap().unwrap();
        }
        assert_eq!(rows(&mut observer, queue).0, Vec::<Vec<Value>>::new());
        assert_eq!(scene.counts(), [3]);
    }
}

#[test]
fn locks_name_the_reader_that_pins_the_log() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut reader, mut writer) = (scene.stock(kind), scene.stock(kind));
        rows(&mut writer, "UPDATE t SET n = n + 1");
        rows(&mut reader, "BEGIN; SELECT n FROM t");
        let frames = integer(&mut writer, "SELECT frames FROM wal_info");
        rows(&mut writer, "UPDATE t SET n = n + 1");
        let pins = "SELECT kind, mode, pid, frame FROM wal_locks WHERE lock LIKE 'READ(%'";
        let found = rows(&mut writer, pins);
        let text = |text: &str| Value::Text(text.to_owned());
        let pid = Value::Integer(i64::from(reader.pid()));
        let pinned = [text("POSIX"), text("shared"), pid, Value::Integer(frames)];
        assert!(found.0.contains(&pinned.to_vec()), "{found:?}");
        // The writer itself has the database open, and the guard beside SQLite's lock.
        let own = format!(
            "SELECT DISTINCT kind FROM wal_locks WHERE lock = 'SHARED' AND pid = {} ORDER BY 1",
            writer.pid()
        );
        let kinds = [vec![text("OFD")], vec![text("POSIX")]];
        assert_eq!(rows(&mut writer, &own).0, kinds);
        rows(&mut reader, "COMMIT");
        assert_eq!(scene.counts(), [2]);
    }
}

#[test]
fn view_reads_neither_tables_nor_function() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock(kind);
        let views = "CREATE VIEW v AS SELECT * FROM wal_locks;
             CREATE VIEW w AS SELECT wal_wait(0)";
        rows(&mut peer, &views.replace('\n', " "));
        for view in ["SELECT * FROM v", "SELECT * FROM w"] {
            let error = peer.run(view).unwrap().unwrap_err();
            assert!(error.message.contains("unsafe use"), "{view}: {error}");
        }
    }
}

#[test]
fn database_without_a_log_has_errors_that_say_so() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mode = "PRAGMA journal_mode=DELETE";
        Connection::open(&scene.database)
            .unwrap()
            .query_row(mode, [], |_| Ok(()))
            .unwrap();
        let mut peer = scene.stock(kind);
        for sql in [
            "SELECT * FROM wal_locks",
            "SELECT wal_wait(0)",
            "SELECT * FROM wal_info",
            "SELECT * FROM wal_queue",
        ] {
            let error = peer.run(sql).unwrap().unwrap_err();
            assert!(error.message.contains("not in WAL mode"), "{sql}: {error}");
        }
    }
}
