//! The protocol under schedules: at random, and all with two changes of turn.
//!
//! `WAL_SCHEDULES` is how many random ones are run, `WAL_TEST_SEED` where they
//! begin.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use integration::schedule::{Operation, Order, run};

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |value| value.parse().unwrap())
}

/// Says how to repeat what fails.
fn told<T>(how: impl FnOnce() -> String, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| panic!("{}", how()))
}

#[test]
fn users_that_take_turns_at_random_see_committed_states_and_lose_nothing() {
    let first = setting("WAL_TEST_SEED", 1);
    let count = setting("WAL_SCHEDULES", 5_000);
    let mut steps = 0;
    for seed in first..first + count {
        let mut rng = Rng::with_seed(seed);
        let users = rng.usize(2..5);
        let script = |rng: &mut Rng| -> Vec<Operation> {
            let operations = rng.usize(1..4);
            (0..operations)
                .map(|_| rng.choice(Operation::ALL).unwrap())
                .collect()
        };
        let scripts: Vec<Vec<Operation>> = (0..users).map(|_| script(&mut rng)).collect();
        let one_in = [2, 5, 20, 60][rng.usize(..4)];
        let how = || format!("WAL_TEST_SEED={seed} WAL_SCHEDULES=1: {scripts:?}");
        let mut order = Order::Random {
            rng: rng.fork(),
            one_in,
        };
        steps += told(how, || run(&scripts, seed, &mut order).steps);
    }
    println!("{count} random schedules from seed {first}, {steps} steps");
}

/// Any two operations: the first is interrupted at each of its steps, and the
/// second, after that, at some of its own.
#[test]
fn two_operations_with_two_changes_of_turn_at_every_step() {
    let stride = usize::try_from(setting("WAL_SCHEDULE_STRIDE", 61)).unwrap();
    let (mut count, mut steps) = (0, 0);
    for one in Operation::ALL {
        for other in Operation::ALL {
            let scripts = [vec![one], vec![other]];
            for seed in 0..4 {
                let whole = Order::Preempted {
                    first: usize::MAX,
                    second: usize::MAX,
                };
                let [of_first, of_second] = run(&scripts, seed, &mut { whole }).of_first_two;
                for first in 0..of_first {
                    for second in (first % stride..of_second).step_by(stride) {
                        let how =
                            || format!("{one:?} to {first}, {other:?} to {second}, seed {seed}");
                        let mut order = Order::Preempted { first, second };
                        steps += told(how, || run(&scripts, seed, &mut order).steps);
                        count += 1;
                    }
                }
            }
        }
    }
    println!("{count} schedules of two operations with two changes of turn, {steps} steps");
}
