//! A transaction that reads before it writes commits beside peers that commit more often.

use std::thread;
use std::time::{Duration, Instant};

use integration::queue::{Language, Writer};
use integration::stock::{StockKind, StockSqlite};
use integration::worker::WATCHDOG;

use crate::scene::Scene;

const WRITERS: u32 = 3;
const ATTEMPTS: u32 = 40;
/// How long a transaction reads.
const READS: Duration = Duration::from_millis(20);

fn ok(peer: &mut StockSqlite, sql: &str) {
    peer.run(sql).unwrap().unwrap();
}

/// How many of [`ATTEMPTS`] transactions of `peer` commit that read, and then write.
fn upgrades(scene: &Scene, peer: &mut StockSqlite) -> u32 {
    let start = |row| {
        let mut order = scene.order(row, 600.0);
        order.pause_ms = 1;
        let mut writer = Writer::start(Language::Rust, &order).unwrap();
        writer.wait_until_ready().unwrap();
        writer.go().unwrap();
        writer
    };
    let writers: Vec<Writer> = (2..2 + WRITERS).map(start).collect();
    let mut commits = 0;
    for _ in 0..ATTEMPTS {
        ok(peer, "BEGIN; SELECT n FROM t WHERE id = 1");
        thread::sleep(READS);
        let update = "UPDATE t SET n = n + 1 WHERE id = 1; COMMIT";
        match peer.run(update).unwrap() {
            Ok(_) => commits += 1,
            Err(error) => {
                assert!(error.is_busy(), "{error}");
                ok(peer, "ROLLBACK");
            }
        }
    }
    drop(writers);
    assert_eq!(scene.counts()[0], u64::from(commits));
    commits
}

#[test]
fn transaction_that_reads_first_commits_with_a_reservation() {
    for kind in StockKind::available() {
        let scene = Scene::new(1 + WRITERS);
        let commits = upgrades(&scene, &mut scene.stock_with(kind, "WALQUEUE_RESERVE"));
        // Each refusal is followed by a reservation, so at least half of them.
        assert!(commits * 5 > ATTEMPTS * 2, "{kind}: {commits}");
    }
}

#[test]
fn transaction_that_reads_first_seldom_commits_without_one() {
    let scene = Scene::new(1 + WRITERS);
    let commits = upgrades(&scene, &mut scene.stock(StockKind::Bundled));
    assert!(commits * 4 < ATTEMPTS, "{commits}");
}

/// Lets the next read transaction of `peer` reserve `WRITE`.
fn lose_upgrade(peer: &mut StockSqlite, other: &mut StockSqlite) {
    ok(peer, "BEGIN; SELECT n FROM t");
    ok(other, "UPDATE t SET n = n + 1");
    let error = peer.run("UPDATE t SET n = n + 1").unwrap().unwrap_err();
    assert!(error.is_busy(), "{error}");
    ok(peer, "ROLLBACK");
}

/// A reservation is over after a moment, so a try may come too late to meet it.
const TRIES: u32 = 50;

#[test]
fn reservation_keeps_peers_from_writing() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock_with(kind, "WALQUEUE_RESERVE");
        let mut other = scene.stock(kind);
        let met = (0..TRIES).any(|_| {
            lose_upgrade(&mut peer, &mut other);
            ok(&mut peer, "BEGIN; SELECT n FROM t");
            let is_busy = other.run("UPDATE t SET n = n + 1").unwrap().is_err();
            let written = peer.run("UPDATE t SET n = n + 1; COMMIT").unwrap();
            if written.is_err() {
                ok(&mut peer, "ROLLBACK");
            }
            is_busy && written.is_ok()
        });
        assert!(met, "{kind}");
    }
}

#[test]
fn reservation_ends_with_a_transaction_that_only_reads() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock_with(kind, "WALQUEUE_RESERVE");
        let mut other = scene.stock(kind);
        for end in ["COMMIT", "ROLLBACK"] {
            lose_upgrade(&mut peer, &mut other);
            ok(&mut peer, &format!("BEGIN; SELECT n FROM t; {end}"));
            // The peer has no busy timeout.
            ok(&mut other, "UPDATE t SET n = n + 1");
        }
        lose_upgrade(&mut peer, &mut other);
        ok(&mut peer, "BEGIN; SELECT n FROM t");
        peer.close().unwrap();
        ok(&mut other, "UPDATE t SET n = n + 1");
    }
}

#[test]
fn stalled_reservation_keeps_no_peer_from_writing() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let mut peer = scene.stock_with(kind, "WALQUEUE_RESERVE");
        let mut other = scene.stock(kind);
        lose_upgrade(&mut peer, &mut other);
        ok(&mut peer, "BEGIN; SELECT n FROM t");
        // The application makes no call.
        other.set_busy_timeout(Duration::from_secs(20)).unwrap();
        ok(&mut other, "UPDATE t SET n = n + 1");
        let late = peer.run("UPDATE t SET n = n + 1").unwrap().unwrap_err();
        assert!(late.is_busy(), "{late}");
        ok(&mut peer, "ROLLBACK");
    }
}

#[test]
fn killed_reservation_keeps_no_peer_from_writing() {
    let scene = Scene::new(1);
    let mut peer = scene.stock_with(StockKind::Bundled, "WALQUEUE_RESERVE");
    let mut other = scene.stock(StockKind::Bundled);
    lose_upgrade(&mut peer, &mut other);
    ok(&mut peer, "BEGIN; SELECT n FROM t");
    peer.kill().unwrap();
    ok(&mut other, "UPDATE t SET n = n + 1");
}

/// Waits until a thread waits in the queue of `peer`.
fn wait_for_a_waiter(peer: &mut StockSqlite) {
    let deadline = Instant::now() + WATCHDOG;
    let mut waiters = || {
        peer.run("SELECT count(*) FROM wal_queue WHERE state = 'waits'")
            .unwrap()
            .unwrap()
    };
    while waiters().integer().unwrap() == 0 {
        assert!(Instant::now() < deadline, "no waiter");
    }
}

/// SQLite has loaded the header when it is to wait, and the commit that it waits for makes that
/// old. With `checkpoint` it asks for `READ(0)` first.
fn check_behind_a_commit(kind: StockKind, checkpoint: bool) {
    let scene = Scene::new(1);
    let mut peer = scene.stock_with(kind, "WALQUEUE_RESERVE");
    let mut other = scene.stock(kind);
    let met = (0..TRIES).any(|_| {
        lose_upgrade(&mut peer, &mut other);
        if checkpoint {
            ok(&mut other, "PRAGMA wal_checkpoint");
        }
        ok(&mut other, "BEGIN IMMEDIATE; UPDATE t SET n = n + 1");
        peer.send("BEGIN; SELECT n FROM t").unwrap();
        wait_for_a_waiter(&mut other);
        ok(&mut other, "COMMIT");
        peer.finish(WATCHDOG).unwrap().unwrap();
        let is_busy = other.run("UPDATE t SET n = n + 1").unwrap().is_err();
        let written = peer.run("UPDATE t SET n = n + 1; COMMIT").unwrap();
        if written.is_err() {
            ok(&mut peer, "ROLLBACK");
        }
        is_busy && written.is_ok()
    });
    assert!(met, "{kind}, checkpoint: {checkpoint}");
}

#[test]
fn reservation_behind_a_commit_has_the_newest_snapshot() {
    for kind in StockKind::available() {
        check_behind_a_commit(kind, false);
        check_behind_a_commit(kind, true);
    }
}
