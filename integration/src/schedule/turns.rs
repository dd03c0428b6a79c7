//! Users as coroutines of one thread.
#![allow(unsafe_code)] // A coroutine is suspended from deep within the library, by a pointer.

use std::cell::Cell;
use std::ptr;
use std::sync::Once;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use fastrand::Rng;
use wal_core::testing::Point;

thread_local! {
    /// How the coroutine that is running suspends itself; null between them.
    static RUNNING: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };
    /// The user that gave way last cannot go on before another one has.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Says so when it is dropped, though a user has panicked.
struct NobodyRuns;

impl Drop for NobodyRuns {
    fn drop(&mut self) {
        RUNNING.set(ptr::null());
    }
}

/// Lets another user go on, if this is one.
pub(super) fn give_way() {
    let yielder = RUNNING.get();
    if yielder.is_null() {
        return;
    }
    RUNNING.set(ptr::null());
    // SAFETY: the pointer is set only while the coroutine whose it is runs, on
    // this thread: `Turns::run` takes it back whenever one gives way, ends or
    // panics. The yielder lives as long as the coroutine runs.
    unsafe { &*yielder }.suspend(());
    RUNNING.set(yielder);
}

/// Lets another user go on, because this one cannot.
pub(super) fn wait_for_others() {
    WAITS.set(true);
    give_way();
}

/// Which user goes on at each step.
#[derive(Debug)]
pub enum Order {
    /// Any; one in so many times another than before.
    Random {
        /// What chooses.
        rng: Rng,
        /// One in how many.
        one_in: u32,
    },
    /// The first one for so many steps, then the second one for so many, then
    /// each to its end.
    Preempted {
        /// Steps of the first one.
        first: usize,
        /// Steps of the second one.
        second: usize,
    },
}

impl Order {
    /// The next of the users that `alive` tells, after `last`, which has made
    /// `steps` steps; those of all users are in `made`.
    fn next(&mut self, last: usize, alive: &[bool], made: &[usize]) -> usize {
        let choices: Vec<usize> = (0..alive.len()).filter(|&user| alive[user]).collect();
        match self {
            Order::Random { rng, one_in } => match alive[last] && rng.u32(..*one_in) != 0 {
                true => last,
                false => rng.choice(choices).unwrap_or(last),
            },
            Order::Preempted { first, second } => {
                let wanted = match (made[0] < *first, made[1] < *second) {
                    (true, _) => [0, 1],
                    (false, true) => [1, 0],
                    (false, false) => [0, 1],
                };
                let there = wanted.into_iter().find(|&user| alive[user]);
                there.unwrap_or(last)
            }
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// How many steps all users made together.
    pub steps: usize,
    /// How many steps the first two made.
    pub of_first_two: [usize; 2],
}

impl Turns {
    /// Runs `users` to their ends.
    ///
    /// # Panics
    ///
    /// When a user does, or they make no progress.
    pub(super) fn run(users: Vec<Box<dyn FnOnce()>>, order: &mut Order) -> Turns {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            // Whoever else has installed a hook is not in this process.
            let _ = wal_core::testing::set_hook(Box::new(|point| {
                if point == Point::TryAgain {
                    wait_for_others();
                } else {
                    give_way();
                }
            }));
        });
        let mut coroutines: Vec<Coroutine<(), (), ()>> = users
            .into_iter()
            .map(|user| {
                Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
                    RUNNING.set(yielder);
                    user();
                })
            })
            .collect();
        let mut alive = vec![true; coroutines.len()];
        let mut made = vec![0; coroutines.len().max(2)];
        let mut last = 0;
        while alive.contains(&true) {
            let waits = WAITS.take() && alive[last];
            // Round and round, or two that wait for a third wait for ever.
            let mut others = (last + 1..alive.len())
                .chain(0..last)
                .filter(|&user| alive[user]);
            last = match others.next().filter(|_| waits) {
                Some(other) => other,
                None => order.next(last, &alive, &made),
            };
            let _nobody_runs_behind_this = NobodyRuns;
            let result = coroutines[last].resume(());
            alive[last] = matches!(result, CoroutineResult::Yield(()));
            made[last] += 1;
            assert!(made[last] < 100_000, "user {last} makes no progress");
        }
        Turns {
            steps: made.iter().sum(),
            of_first_two: [made[0], made[1]],
        }
    }
}
