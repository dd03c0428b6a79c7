//! A busy timeout is as long as the application sets it, though writers sleep in the queue.

use std::time::{Duration, Instant};

use integration::queue::{Language, Writer};
use integration::stock::{StockKind, StockSqlite};
use rusqlite::types::Value;

use crate::scene::Scene;

/// How often a wait may be longer than it should, because the machine is busy.
const ATTEMPTS: u32 = 5;

/// How long `peer` waits for a lock that it does not get.
fn wait_in_vain(peer: &mut StockSqlite) -> Duration {
    let asked = Instant::now();
    let error = peer.run("BEGIN IMMEDIATE").unwrap().unwrap_err();
    assert!(error.is_busy(), "{error}");
    asked.elapsed()
}

/// Checks that `peer` waits for WRITE for `timeout`, within 5 %.
fn check_timeout(peer: &mut StockSqlite, timeout: Duration) {
    check_wait(peer, timeout, wait_in_vain);
}

/// Checks that `wait`, with a busy timeout of `timeout`, is as long, within 5 %.
fn check_wait(
    peer: &mut StockSqlite,
    timeout: Duration,
    wait: impl Fn(&mut StockSqlite) -> Duration,
) {
    peer.set_busy_timeout(timeout).unwrap();
    let (least, most) = (timeout.mul_f64(0.95), timeout.mul_f64(1.05));
    let mut waits = Vec::new();
    for _ in 0..ATTEMPTS {
        let wait = wait(peer);
        assert!(wait >= least, "{peer}: {wait:?}, not {timeout:?}");
        if wait <= most {
            return;
        }
        waits.push(wait);
    }
    panic!("{peer}: {waits:?}, not {timeout:?}");
}

const TIMEOUTS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];

/// Checks each timeout of a peer in the queue, beside a holder of `WRITE` that `start` starts.
fn check_beside(start: impl Fn(&Scene, StockKind) -> StockSqlite) {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut holder, mut peer) = (start(&scene, kind), scene.stock(kind));
        holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
        TIMEOUTS
            .iter()
            .for_each(|&timeout| check_timeout(&mut peer, timeout));
        holder.run("COMMIT").unwrap().unwrap();
        peer.run("BEGIN IMMEDIATE; COMMIT").unwrap().unwrap();
    }
}

#[test]
fn timeout_beside_a_stock_holder_is_exact() {
    check_beside(|scene, kind| StockSqlite::spawn(kind, &scene.database, None).unwrap());
}

#[test]
fn timeout_beside_a_holder_in_the_queue_is_exact() {
    check_beside(Scene::stock);
}

#[test]
fn timeout_behind_other_waiters_is_exact() {
    for kind in StockKind::available() {
        let scene = Scene::new(4);
        let (mut holder, mut peer) = (scene.stock(kind), scene.stock(kind));
        holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
        let start = |row| {
            let mut order = scene.order(row, 1.0);
            order.busy_timeout_ms = 20_000;
            let mut writer = Writer::start(Language::Rust, &order).unwrap();
            writer.wait_until_ready().unwrap();
            writer.go().unwrap();
            writer
        };
        let waiters = [1, 2, 3].map(start);
        check_timeout(&mut peer, Duration::from_millis(1000));
        holder.run("COMMIT").unwrap().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.finish().unwrap().locked, 0);
        }
        peer.set_busy_timeout(Duration::from_secs(20)).unwrap();
        peer.run("BEGIN IMMEDIATE; COMMIT").unwrap().unwrap();
    }
}

#[test]
fn connection_without_a_timeout_is_refused_at_once() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut holder, mut peer) = (scene.stock(kind), scene.stock(kind));
        holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
        let at_once = |_| wait_in_vain(&mut peer) < Duration::from_millis(5);
        assert!((0..ATTEMPTS).any(at_once));
        // It leaves nothing behind that holds up the next.
        holder
            .run("COMMIT; BEGIN IMMEDIATE; COMMIT")
            .unwrap()
            .unwrap();
        peer.run("BEGIN IMMEDIATE; COMMIT").unwrap().unwrap();
    }
}

#[test]
fn waiter_gets_the_lock_as_soon_as_it_is_free() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut holder, mut peer) = (scene.stock(kind), scene.stock(kind));
        peer.set_busy_timeout(Duration::from_secs(20)).unwrap();
        // SQLite's own handler would sleep for up to 100 ms at a time.
        let at_once = |_| {
            holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
            peer.send("BEGIN IMMEDIATE").unwrap();
            let timeout = peer.finish(Duration::from_millis(400));
            assert!(timeout.is_err(), "the lock was held");
            holder.run("COMMIT").unwrap().unwrap();
            let freed = Instant::now();
            peer.finish(Duration::from_secs(20)).unwrap().unwrap();
            let wait = freed.elapsed();
            peer.run("COMMIT").unwrap().unwrap();
            wait < Duration::from_millis(10)
        };
        let quick = (0..ATTEMPTS)
            .map(at_once)
            .filter(|at_once| *at_once)
            .count();
        assert!(quick >= 3, "{quick} of {ATTEMPTS} wake-ups by {kind}");
    }
}

#[test]
fn wait_of_a_checkpoint_for_a_reader_is_exact() {
    for kind in StockKind::available() {
        let scene = Scene::new(1);
        let (mut reader, mut peer) = (scene.stock(kind), scene.stock(kind));
        reader.run("BEGIN; SELECT n FROM t").unwrap().unwrap();
        peer.run("UPDATE t SET n = n + 1").unwrap().unwrap();
        check_wait(&mut peer, Duration::from_millis(300), |peer| {
            // What the connection was refused before is not what it sleeps for.
            refuse_write(&scene, kind, peer);
            let asked = Instant::now();
            let rows = peer
                .run("PRAGMA wal_checkpoint(TRUNCATE)")
                .unwrap()
                .unwrap();
            let wait = asked.elapsed();
            let busy = rows.0.first().and_then(|row| row.first());
            assert_eq!(
                busy,
                Some(&Value::Integer(1)),
                "the checkpoint was not blocked"
            );
            wait
        });
        reader.run("COMMIT").unwrap().unwrap();
    }
}

/// Has `peer` refused WRITE, which is free again on return.
fn refuse_write(scene: &Scene, kind: StockKind, peer: &mut StockSqlite) {
    let mut holder = scene.stock(kind);
    holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
    wait_in_vain(peer);
    holder.run("COMMIT").unwrap().unwrap();
    holder.close().unwrap();
}
