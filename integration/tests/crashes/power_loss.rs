//! The power fails at each step of random work, and what is left on the disk
//! is recovered by ours and by stock SQLite: every acknowledged commit is there
//! that was promised to be, and nothing is torn.
//!
//! `WAL_POWER_SCRIPTS` is how many scripts are run, `WAL_TEST_SEED` where they
//! begin.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use fastrand::Rng;
use integration::power::{
    Disk, FileJudge, History, Work, catch_up, judge_by_ours, judge_without_promise, replicate,
    restore_after_close, work, work_beside_careless, work_by_threads, work_in_group,
};
use wal::{PageSize, Synchronous};

/// How long a script is, and how closely it is looked at.
#[derive(Clone, Copy)]
struct Scale {
    /// For each of `WAL_POWER_SCRIPTS`.
    seeds: u64,
    /// The transactions of its history.
    transactions: usize,
    /// How many survivor sets are tried for each step.
    images: usize,
}

/// Scripts in which anything may follow anything.
const LONG: Scale = Scale {
    seeds: 1,
    transactions: 12,
    images: 4,
};
/// Scripts in which the log goes again and again.
const SHORT: Scale = Scale {
    seeds: 3,
    transactions: 5,
    images: 4,
};
/// Scripts of a few steps, of which one matters.
const CLOSE: Scale = Scale {
    seeds: 4,
    transactions: 5,
    images: 12,
};
/// Scripts of a few steps, of which the last one matters.
const LAST: Scale = Scale {
    seeds: 2,
    transactions: 4,
    images: 4,
};
/// One image in so many is judged in files, by ours and by stock SQLite.
const IN_FILES: usize = 16;

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |value| value.parse().unwrap())
}

#[derive(Default)]
struct Counts {
    steps: usize,
    images: usize,
    in_files: usize,
    during_recovery: usize,
}

fn one_group(history: &History, synchronous: Synchronous, rng: &mut Rng) -> anyhow::Result<Disk> {
    run(work_in_group, history, synchronous, rng)
}

fn several_threads(
    history: &History,
    synchronous: Synchronous,
    rng: &mut Rng,
) -> anyhow::Result<Disk> {
    run(work_by_threads, history, synchronous, rng)
}

fn beside_careless(
    history: &History,
    synchronous: Synchronous,
    rng: &mut Rng,
) -> anyhow::Result<Disk> {
    run(work_beside_careless, history, synchronous, rng)
}

fn restored(history: &History, synchronous: Synchronous, rng: &mut Rng) -> anyhow::Result<Disk> {
    run(restore_after_close, history, synchronous, rng)
}

/// What is run: gives the disk on which it was done.
type Script = fn(&History, Synchronous, &mut Rng) -> anyhow::Result<Disk>;

fn one_process(history: &History, synchronous: Synchronous, rng: &mut Rng) -> anyhow::Result<Disk> {
    run(work, history, synchronous, rng)
}

fn run(
    work: fn(&mut Work<'_>, &mut Rng) -> anyhow::Result<()>,
    history: &History,
    synchronous: Synchronous,
    rng: &mut Rng,
) -> anyhow::Result<Disk> {
    let mut whole = Work::new(history, synchronous, 0);
    work(&mut whole, rng)?;
    Ok(whole.disk)
}

impl Counts {
    /// Runs the script with `seed`, and judges what each crash leaves.
    fn script(&mut self, script: Script, seed: u64, synchronous: Synchronous, scale: Scale) {
        let mut rng = Rng::with_seed(seed);
        let page_size = PageSize::new([512, 1024, 4096][rng.usize(..3)]).unwrap();
        let history = History::new(page_size, scale.transactions, &mut rng).unwrap();
        let worked = script(&history, synchronous, &mut rng);
        let disk = worked.unwrap_or_else(|e| panic!("seed {seed}, {synchronous:?}: {e:?}"));
        let mut in_files = FileJudge::new().unwrap();
        for (step, crash) in disk.take_crashes().into_iter().enumerate() {
            self.steps += 1;
            for survivors in 0..scale.images {
                let image = crash.image(&mut rng);
                let (floor, ceiling) = (crash.floor, crash.ceiling);
                let at = format!("seed {seed}, {synchronous:?}, step {step}, image {survivors}");
                self.images += 1;
                if crash.void {
                    let judged = judge_without_promise(&history, &image);
                    judged.unwrap_or_else(|e| panic!("{at}, nothing promised: {e:?}"));
                    continue;
                }
                let judged = judge_by_ours(&history, &image, floor, ceiling);
                let verdict = judged.unwrap_or_else(|e| panic!("{at}: {e:?} ({image:?})"));
                if self.images.is_multiple_of(IN_FILES) {
                    self.in_files += 1;
                    let judged = in_files.judge(&history, &image, verdict.state, &mut rng);
                    judged.unwrap_or_else(|e| panic!("{at}, in files: {e:?}"));
                    // The power fails again while it is recovered.
                    for again in verdict.crashes {
                        self.during_recovery += 1;
                        let image = again.image(&mut rng);
                        let judged = judge_by_ours(&history, &image, again.floor, again.ceiling);
                        judged.unwrap_or_else(|e| panic!("{at}, again: {e:?} ({image:?})"));
                    }
                }
            }
        }
    }
}

fn sweep(script: Script, synchronous: Synchronous, scale: Scale) {
    let first = setting("WAL_TEST_SEED", 1);
    let mut counts = Counts::default();
    for seed in first..first + setting("WAL_POWER_SCRIPTS", 3) * scale.seeds {
        counts.script(script, seed, synchronous, scale);
    }
    println!(
        "{synchronous:?}: {} steps, {} images, {} of them in files and by stock SQLite too, {} failures while recovering",
        counts.steps, counts.images, counts.in_files, counts.during_recovery
    );
}

#[test]
fn a_commit_that_was_promised_survives_a_power_failure() {
    sweep(one_process, Synchronous::Full, LONG);
}

#[test]
fn a_commit_that_shared_its_sync_survives_whatever_peers_did_before_it() {
    sweep(one_group, Synchronous::Full, LONG);
}

#[test]
fn a_commit_that_threads_synced_together_survives_a_power_failure() {
    sweep(several_threads, Synchronous::Full, LONG);
}

#[test]
fn commit_moved_by_a_careless_peer_survives_the_end_of_the_log() {
    sweep(beside_careless, Synchronous::Full, SHORT);
}

#[test]
fn a_power_failure_undoes_the_last_commits_at_most_and_tears_nothing() {
    sweep(one_process, Synchronous::Normal, LONG);
}

/// A log that was removed, or cut, and comes back would be taken for the log of
/// whatever has the database's name by then.
#[test]
fn database_restored_after_close_survives_power_loss() {
    sweep(restored, Synchronous::Full, LAST);
    sweep(restored, Synchronous::Normal, LAST);
}

#[test]
fn a_replica_survives_a_power_failure() {
    sweep(replicate, Synchronous::Full, LONG);
    sweep(replicate, Synchronous::Normal, LONG);
}

#[test]
fn copy_that_catches_up_is_never_older_than_it_was() {
    sweep(catch_up, Synchronous::Full, CLOSE);
    sweep(catch_up, Synchronous::Normal, CLOSE);
}

#[test]
fn a_process_that_never_syncs_loses_nothing_by_dying_and_survives_what_a_power_failure_leaves() {
    let first = setting("WAL_TEST_SEED", 1);
    let mut images = 0;
    for seed in first..first + setting("WAL_POWER_SCRIPTS", 3) {
        let mut rng = Rng::with_seed(seed);
        let page_size = PageSize::new([512, 1024, 4096][rng.usize(..3)]).unwrap();
        let history = History::new(page_size, LONG.transactions, &mut rng).unwrap();
        let worked = one_process(&history, Synchronous::Off, &mut rng);
        let disk = worked.unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        for (step, crash) in disk.take_crashes().into_iter().enumerate() {
            let at = format!("seed {seed}, Off, step {step}");
            let image = crash.image_without_loss();
            let judged = judge_by_ours(&history, &image, crash.acknowledged, crash.ceiling);
            judged.unwrap_or_else(|e| panic!("{at}, a death: {e:?} ({image:?})"));
            for survivors in 0..LONG.images {
                images += 1;
                let judged = judge_without_promise(&history, &crash.image(&mut rng));
                judged.unwrap_or_else(|e| panic!("{at}, image {survivors}: {e:?}"));
            }
        }
    }
    println!("Off: {images} images");
}
