//! Commits of stock SQLite share their syncs, and none is acknowledged without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::queue::{Language, Order, Outcome, Writer};
use integration::stock::{StockKind, StockSqlite};
use integration::worker::WATCHDOG;
use wal::{Database, Options};
use wal_core::PageNo;
use wal_core::storage::beside;

use crate::scene::Scene;

const WRITERS: u32 = 4;
const KILLS: u32 = 40;

/// Puts `command` on a slow disk: each sync of the log of `database` takes 5 ms longer. Their
/// number is written to `counts`.
fn slow_down(command: &mut Command, database: &Path, counts: &Path) {
    command
        .env("LD_PRELOAD", env!("FAILING_CALLS"))
        .env("WAL_FAULT_PREFIX", beside(database, "-wal"))
        .env("WAL_FAULT", "SLOW")
        .env("WAL_FAULT_COUNT", counts);
}

fn syncs_in(counts: &Path) -> u64 {
    let text = fs::read_to_string(counts).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// The last count that the writer of `order` acknowledged.
fn acknowledged(order: &Order) -> u64 {
    let bytes = fs::read(order.acknowledged.as_ref().unwrap()).unwrap_or_default();
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Runs writers at FULL for a second; returns their commits and their syncs of the log.
fn commits_and_syncs(change: impl Fn(&mut Order)) -> (u64, u64) {
    let scene = Scene::new(WRITERS);
    let counts: Vec<PathBuf> = (1..=WRITERS)
        .map(|row| scene.directory.path().join(format!("syncs-{row}")))
        .collect();
    let start = |(counts, row): (&PathBuf, u32)| {
        let mut order = scene.order(row, 1.0);
        order.synchronous = "FULL".to_owned();
        change(&mut order);
        let slow = |command: &mut Command| slow_down(command, &scene.database, counts);
        Writer::start_with(Language::Rust, &order, slow).unwrap()
    };
    let mut writers: Vec<Writer> = counts.iter().zip(1..).map(start).collect();
    for writer in &mut writers {
        writer.wait_until_ready().unwrap();
    }
    for writer in &mut writers {
        writer.go().unwrap();
    }
    let finish = |writer: Writer| writer.finish().unwrap();
    let outcomes: Vec<Outcome> = writers.into_iter().map(finish).collect();
    let commits: Vec<u64> = outcomes.iter().map(|outcome| outcome.commits).collect();
    assert_eq!(scene.counts(), commits, "commits were lost");
    let syncs = counts.iter().map(|counts| syncs_in(counts)).sum();
    (commits.iter().sum(), syncs)
}

#[test]
fn commits_in_a_group_share_syncs_of_the_log() {
    let (commits, syncs) = commits_and_syncs(|order| order.group_commit = true);
    assert!(commits > 20, "{commits} commits");
    // With four writers three of them can share the next sync.
    assert!(syncs * 4 < commits * 3, "{commits} commits, {syncs} syncs");
}

#[test]
fn commits_without_the_option_share_no_sync() {
    let (commits, syncs) = commits_and_syncs(|_| {});
    assert!(syncs >= commits, "{commits} commits, {syncs} syncs");
}

#[test]
fn commits_below_full_are_not_synced_in_a_group() {
    let (commits, syncs) = commits_and_syncs(|order| {
        order.group_commit = true;
        order.synchronous = "NORMAL".to_owned();
    });
    assert!(syncs * 4 < commits, "{commits} commits, {syncs} syncs");
}

/// A writer that is killed leads a sync most of the time.
#[test]
fn killed_leaders_lose_no_commit_and_stop_no_peer() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(WRITERS);
    let orders: Vec<Order> = (1..=WRITERS)
        .map(|row| {
            let mut order = scene.order(row, 600.0);
            order.synchronous = "FULL".to_owned();
            order.group_commit = true;
            order.busy_timeout_ms = 20_000;
            order.acknowledged = Some(scene.directory.path().join(format!("acknowledged-{row}")));
            order
        })
        .collect();
    let counts = scene.directory.path().join("syncs");
    let start = |order: &Order| {
        let slow = |command: &mut Command| slow_down(command, &scene.database, &counts);
        let mut writer = Writer::start_with(Language::Rust, order, slow).unwrap();
        writer.go().unwrap();
        writer
    };
    let mut writers: Vec<Option<Writer>> = orders.iter().map(|order| Some(start(order))).collect();
    for kill in 1..=KILLS {
        thread::sleep(Duration::from_millis(random.u64(20..50)));
        let at = random.usize(..orders.len());
        writers[at].take().unwrap().kill().unwrap();
        let peers = || {
            let peers = orders.iter().enumerate().filter(|(peer, _)| *peer != at);
            peers.map(|(_, order)| acknowledged(order)).sum::<u64>()
        };
        let (before, deadline) = (peers(), Instant::now() + WATCHDOG);
        while peers() == before {
            assert!(Instant::now() < deadline, "no commit after kill {kill}");
            thread::sleep(Duration::from_millis(1));
        }
        writers[at] = Some(start(&orders[at]));
    }
    for writer in writers {
        writer.unwrap().kill().unwrap();
    }
    for (order, count) in orders.iter().zip(scene.counts()) {
        let acknowledged = acknowledged(order);
        assert!(count >= acknowledged, "{count}, not {acknowledged}");
    }
}

/// The order of a writer in the group.
fn order_in_group(scene: &Scene, row: u32, seconds: f64) -> Order {
    let mut order = scene.order(row, seconds);
    order.synchronous = "FULL".to_owned();
    order.group_commit = true;
    order.acknowledged = Some(scene.directory.path().join(format!("acknowledged-{row}")));
    order
}

/// Runs writers until the sync of one process has failed, and all of them for that: its peers
/// may wait for that sync, or come later. Returns a peer that keeps the log and the side file,
/// and has no part in the group.
fn fail_a_sync(scene: &Scene) -> StockSqlite {
    let mut keeper = scene.stock(StockKind::Bundled);
    keeper.run("SELECT n FROM t").unwrap().unwrap();
    let start = |row: u32| {
        let counts = scene.directory.path().join("syncs");
        let change = |command: &mut Command| {
            slow_down(command, &scene.database, &counts);
            if row == 1 {
                command.env("WAL_FAULT", "SYNC").env("WAL_FAULT_AT", "10");
            }
        };
        let order = order_in_group(scene, row, 600.0);
        Writer::start_with(Language::Rust, &order, change).unwrap()
    };
    let mut writers: Vec<Writer> = (1..=WRITERS).map(start).collect();
    for writer in &mut writers {
        writer.go().unwrap();
    }
    for writer in writers {
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains("without an answer"), "{error}");
    }
    keeper
}

/// What a writer in the group reaches now.
fn commits_now(scene: &Scene) -> anyhow::Result<u64> {
    let mut writer = Writer::start(Language::Rust, &order_in_group(scene, 1, 0.1)).unwrap();
    writer.go().unwrap();
    Ok(writer.finish()?.commits)
}

#[test]
fn failed_sync_fails_every_commit_of_the_generation() {
    let scene = Scene::new(WRITERS);
    let mut keeper = fail_a_sync(&scene);
    let counts = scene.counts();
    for (row, count) in (1..).zip(&counts) {
        let acknowledged = acknowledged(&order_in_group(&scene, row, 0.0));
        let unknown = count - acknowledged;
        assert!(unknown <= 1, "row {row}: {acknowledged}, and {count}");
        // The commit whose own sync failed was published, and not acknowledged.
        assert!(row > 1 || unknown == 1, "{acknowledged}, and {count}");
    }

    commits_now(&scene).unwrap_err();
    assert_eq!(scene.counts(), counts, "a later commit was published");
    // All frames are in the database file, so the next writer restarts the log.
    let checkpoint = keeper.run("PRAGMA wal_checkpoint").unwrap();
    checkpoint.unwrap();
    assert!(commits_now(&scene).unwrap() > 0);
}

/// Changes the number of page 1 that SQLite does not use.
fn commit_by_library(database: &Database) -> wal::Result<()> {
    let mut write = database.begin_write()?;
    let user_version = &mut write.page_mut(PageNo::ONE)?[60..64];
    user_version[3] = user_version[3].wrapping_add(1);
    write.commit()?;
    Ok(())
}

#[test]
fn library_rewrites_the_log_whose_sync_failed_for_stock() {
    let scene = Scene::new(WRITERS);
    let _keeper = fail_a_sync(&scene);
    commits_now(&scene).unwrap_err();
    let database = Options::new().auto_checkpoint(0).open(&scene.database);
    commit_by_library(&database.unwrap()).unwrap();
    assert!(commits_now(&scene).unwrap() > 0);
}

#[test]
fn stock_commits_share_syncs_with_the_library() {
    let scene = Scene::new(1);
    let counts = scene.directory.path().join("syncs");
    let database = Options::new().group_commit(true).open(&scene.database);
    let database = database.unwrap();
    let slow = |command: &mut Command| slow_down(command, &scene.database, &counts);
    let order = order_in_group(&scene, 1, 1.0);
    let mut writer = Writer::start_with(Language::Rust, &order, slow).unwrap();
    writer.wait_until_ready().unwrap();
    let is_over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                commit_by_library(&database).unwrap();
            }
        });
        writer.go().unwrap();
        let outcome = writer.finish();
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap()
    });
    drop(database);
    assert_eq!(scene.counts(), [outcome.commits]);
    let (commits, syncs) = (outcome.commits, syncs_in(&counts));
    // Alone it makes one for each of its commits.
    assert!(syncs < commits, "{commits} commits, {syncs} syncs");
}
