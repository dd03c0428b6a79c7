//! Processes of ours and of stock SQLite do to one database whatever they may,
//! at random, and are killed at random.
//!
//! A round lets several of them act at the same time, each at its own pace.
//! At its end all are closed or killed, the index may be deleted, and the
//! database must be sound, the same to both, and complete: each writer finds
//! its last acknowledged commit. The next round goes on from what was left.
//!
//! `WAL_TEST_SEED` repeats the choices of a run, though not its timing;
//! `WAL_TORTURE_SECONDS` says how long it lasts.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod count;
mod ours;
mod scene;
mod stock;
mod verdict;

use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, anyhow};
use count::Count;
use fastrand::Rng;
use integration::stock::StockKind;
use scene::{Ledger, OURS, STOCK, Scene};
use wal_core::storage::beside;

const SECONDS: u64 = 30;
const PAGE_SIZES: [u32; 4] = [4096, 512, 65536, 1024];
/// Rounds on one database.
const ROUNDS: u32 = 3;
/// What each thread does in a round.
const ACTS: u32 = 25;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Which processes of stock SQLite there are in a round.
///
/// A checkpoint by a SQLite before 3.51.3 can lose what another *stock* writer
/// commits after a restart of the log; ours do not restart it under a
/// checkpoint. So the system's shell, which may be so old, is the only stock
/// writer of its rounds.
fn stock_kinds(round: u64) -> Vec<StockKind> {
    if round.is_multiple_of(2) || !StockKind::available().contains(&StockKind::Debian) {
        vec![StockKind::Bundled; STOCK as usize]
    } else {
        vec![StockKind::Debian]
    }
}

fn run_round(scene: &mut Scene, kinds: &[StockKind], rng: &mut Rng) -> Result<Count> {
    let (ours, stock) = act_together(scene, kinds, rng);
    let mut count = Count {
        rounds: 1,
        ..Count::default()
    };
    for (number, outcome) in ours.into_iter().enumerate() {
        let (ledger, done) = outcome?;
        scene.ours[number] = ledger;
        count += done;
    }
    for (number, outcome) in stock.into_iter().enumerate() {
        let (ledger, done) = outcome?;
        scene.stock[number] = ledger;
        count += done;
    }
    for suffix in ["-shm", "-coord"] {
        let file = beside(&scene.path, suffix);
        if rng.u8(..3) == 0 && file.exists() {
            fs::remove_file(file)?;
        }
    }
    verdict::judge(scene)?;
    Ok(count)
}

type Outcomes = Vec<Result<(Ledger, Count)>>;

/// One thread for each process at a time; what those of ours and those of
/// stock SQLite came to.
fn act_together(scene: &Scene, kinds: &[StockKind], rng: &mut Rng) -> (Outcomes, Outcomes) {
    thread::scope(|scope| {
        let ours: Vec<_> = (0..OURS)
            .map(|number| {
                let seed = rng.u64(..);
                scope.spawn(move || ours::act(scene, number, seed, ACTS))
            })
            .collect();
        let stock: Vec<_> = (0..)
            .zip(kinds)
            .map(|(number, &kind)| {
                let seed = rng.u64(..);
                scope.spawn(move || stock::act(scene, kind, number, seed, ACTS))
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<(Ledger, Count)>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        (
            ours.into_iter().map(join).collect(),
            stock.into_iter().map(join).collect(),
        )
    })
}

/// Some rounds on a new database.
fn torture(page_size: u32, first_round: u64, rng: &mut Rng) -> Result<Count> {
    let mut scene = Scene::new(page_size)?;
    let mut count = Count::default();
    for round in (first_round..).take(ROUNDS as usize) {
        let kinds = stock_kinds(round);
        match run_round(&mut scene, &kinds, rng) {
            Ok(done) => count += done,
            Err(error) => {
                let kept = scene.keep();
                return Err(error).with_context(|| {
                    let kept = kept.display();
                    format!("round {round}, pages of {page_size}, beside {kinds:?}, see {kept}")
                });
            }
        }
    }
    Ok(count)
}

#[test]
fn nothing_is_lost_whatever_ours_and_stock_sqlite_do_to_each_other() {
    let seed = setting("WAL_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = setting("WAL_TORTURE_SECONDS").unwrap_or(SECONDS);
    println!("WAL_TEST_SEED={seed} WAL_TORTURE_SECONDS={seconds}");
    let mut rng = Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = Count::default();
    for page_size in PAGE_SIZES.into_iter().cycle() {
        match torture(page_size, count.rounds, &mut rng) {
            Ok(done) => count += done,
            Err(error) => panic!("WAL_TEST_SEED={seed}, after {count}: {error:#}"),
        }
        if Instant::now() >= end {
            break;
        }
    }
    println!("{count}");
    assert!(count.ours > 0 && count.stock > 0, "{count}");
    assert!(count.checkpoints > 0 && count.kills > 0, "{count}");
}
