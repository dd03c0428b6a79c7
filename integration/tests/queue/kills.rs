//! Killed writers delay their peers, and lose no acknowledged commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use integration::queue::{Language, Order, Writer};
use integration::worker::WATCHDOG;

use crate::scene::Scene;

const WRITERS: u32 = 6;
const KILLS: u32 = 50;

/// The last count that a writer acknowledged.
fn acknowledged(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap_or_default();
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn start(language: Language, order: &Order) -> Writer {
    let mut writer = Writer::start(language, order).unwrap();
    writer.go().unwrap();
    writer
}

/// Waits until one of `files` acknowledges another commit.
fn wait_for_a_commit(files: &[&PathBuf], kill: u32) {
    let sum = || files.iter().map(|file| acknowledged(file)).sum::<u64>();
    let (before, deadline) = (sum(), Instant::now() + WATCHDOG);
    while sum() == before {
        assert!(Instant::now() < deadline, "no commit after kill {kill}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills writers at random, whose orders are as `change` makes them.
fn check_kills(languages: &[Language], change: impl Fn(&mut Order)) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(WRITERS);
    let order = |row| {
        let mut order = scene.order(row, 600.0);
        // Long enough for one of them to hold the lock at most kills.
        order.pause_ms = 1;
        order.busy_timeout_ms = 20_000;
        order.acknowledged = Some(scene.directory.path().join(format!("acknowledged-{row}")));
        change(&mut order);
        order
    };
    let orders: Vec<Order> = (1..=WRITERS).map(order).collect();
    let files: Vec<PathBuf> = orders
        .iter()
        .filter_map(|order| order.acknowledged.clone())
        .collect();
    let language_of = |at: usize| languages[at % languages.len()];
    let started = orders.iter().enumerate();
    let mut writers: Vec<_> = started
        .map(|(at, order)| Some(start(language_of(at), order)))
        .collect();
    for kill in 1..=KILLS {
        thread::sleep(Duration::from_millis(50));
        let at = random.usize(..orders.len());
        writers[at].take().unwrap().kill().unwrap();
        let peers = files.iter().enumerate().filter(|(peer, _)| *peer != at);
        wait_for_a_commit(&peers.map(|(_, file)| file).collect::<Vec<_>>(), kill);
        writers[at] = Some(start(language_of(at), &orders[at]));
    }
    for writer in writers.into_iter().flatten() {
        writer.kill().unwrap();
    }
    let counts = scene.counts();
    for (count, file) in counts.iter().zip(&files) {
        let acknowledged = acknowledged(file);
        assert!(acknowledged > 0, "a writer has no commit: {counts:?}");
        // A writer may die between its commit and the acknowledgement.
        let sound = acknowledged..=acknowledged + 1;
        assert!(sound.contains(count), "{count} is not in {sound:?}");
    }
}

#[test]
fn killed_writers_lose_no_commit_and_stop_no_peer() {
    let mut languages = Language::available();
    // Node takes too long to start.
    languages.retain(|language| *language != Language::Node);
    check_kills(&languages, |_| {});
}

#[test]
fn killed_writers_that_share_syncs_lose_no_commit() {
    let languages = [Language::Rust, Language::Linked];
    check_kills(&languages, |order| {
        order.synchronous = "FULL".to_owned();
        order.group_commit = true;
    });
}

#[test]
fn waiter_behind_a_killed_waiter_gets_the_lock() {
    for language in Language::available() {
        let scene = Scene::new(3);
        let mut holder = scene.stock(integration::stock::StockKind::Bundled);
        holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
        let mut order = scene.order(1, 0.5);
        order.busy_timeout_ms = 20_000;
        let mut first = Writer::start(language, &order).unwrap();
        first.wait_until_ready().unwrap();
        first.go().unwrap();
        // Long enough for it to be in the queue; if it is not, the test is easier, not wrong.
        thread::sleep(Duration::from_millis(100));
        order.row = 2;
        let mut second = Writer::start(language, &order).unwrap();
        second.wait_until_ready().unwrap();
        second.go().unwrap();
        thread::sleep(Duration::from_millis(100));
        first.kill().unwrap();
        holder.run("COMMIT").unwrap().unwrap();
        let outcome = second.finish().unwrap();
        assert_eq!(outcome.locked, 0);
        assert!(outcome.commits > 0);
        assert_eq!(scene.counts()[1], outcome.commits);
    }
}
