//! Wake-ups, under the C11 memory model as loom explores it: the event count and the writer
//! queue of the wait state, on the locks and the sleepers of this crate.
//!
//! No sleep ends by itself here, so a wake-up that is lost leaves a thread asleep for ever,
//! which loom reports. All threads under test are spawned: loom does not count a switch away
//! from a thread that ends, and the first one would never be overtaken.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p wal-inproc --release --test loom_wait
#![cfg(loom)]
// Giving a lock up is unsafe to call.
#![allow(unsafe_code)]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use wal_core::wait::{Position, WaitState};
use wal_core::{Lock, LockMode, WalCoordination};
use wal_inproc::InProcessWalCoordination;

/// What threads wait with.
struct Scene {
    coordination: InProcessWalCoordination,
    /// Whether it has happened what the event count tells.
    happened: AtomicBool,
    /// When no sleep ends.
    far: Instant,
}

impl Scene {
    fn new() -> Self {
        Scene {
            coordination: InProcessWalCoordination::in_memory("loom".as_ref()),
            happened: AtomicBool::new(false),
            far: Instant::now() + Duration::from_secs(3600),
        }
    }

    fn state(&self) -> &WaitState {
        self.coordination.wait_state().unwrap()
    }

    fn try_write(&self) -> bool {
        let tried = self.coordination.try_lock(Lock::Write, LockMode::Exclusive);
        tried.unwrap()
    }

    /// Waits in the queue as a writer does, and acquires `WRITE`.
    fn acquire(&self, thread: u32) {
        let queue = self.state().writer_queue();
        let slot = queue.enter(0).unwrap();
        loop {
            let word = queue.word(slot);
            let seen = word.load(Ordering::SeqCst);
            if queue.position(slot, 0) == Position::First && self.try_write() {
                queue.begin_slice(thread, 0, true);
                queue.leave(slot);
                return;
            }
            assert_eq!(queue.defer_wake_up(slot, AFTER_SLICE), None);
            self.coordination.sleep(word, seen, self.far);
        }
    }

    /// Releases `WRITE` as its guard does.
    fn release(&self, thread: u32) {
        // SAFETY: the caller has acquired it, and no page was read under it.
        unsafe {
            self.coordination.unlock(Lock::Write, LockMode::Exclusive);
        }
        if let Some(word) = self
            .state()
            .writer_queue()
            .next_to_wake(thread, || AFTER_SLICE)
        {
            self.coordination.wake(word);
        }
    }
}

/// Every time slice has begun at 0, and is over by then: a waiter is woken by each release.
const AFTER_SLICE: u32 = 5_000;

/// Explores `threads`, each spawned, in a [`Scene`] that `prepare` has prepared.
fn explore<const THREADS: usize>(
    preemptions: usize,
    prepare: fn(&Scene),
    threads: [fn(&Scene); THREADS],
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.max(Some(preemptions));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let scene = Arc::new(Scene::new());
        prepare(&scene);
        let spawned = threads.map(|run| {
            let scene = scene.clone();
            thread::spawn(move || run(&scene))
        });
        for thread in spawned {
            thread.join().unwrap();
        }
    });
    println!("{} interleavings", count.load(Ordering::Relaxed));
}

fn wait(scene: &Scene) {
    let commits = scene.state().commits();
    loop {
        let seen = commits.prepare_wait();
        if scene.happened.load(Ordering::Relaxed) {
            return;
        }
        scene.coordination.sleep(commits.word(), seen, scene.far);
    }
}

fn tell(scene: &Scene) {
    scene.happened.store(true, Ordering::Relaxed);
    let commits = scene.state().commits();
    if commits.notify() {
        scene.coordination.wake(commits.word());
    }
}

/// A waiter that has prepared sees what has happened, or is woken. It fails if a notification
/// leaves the count as it is, if it is a load and a store, if it or the preparation is relaxed,
/// and if a wake-up passes by the sleepers' mutex.
#[test]
fn event_count_loses_no_wake_up() {
    explore(3, |_| {}, [wait, tell]);
    explore(2, |_| {}, [wait, wait, tell]);
}

fn hold_write(scene: &Scene) {
    assert!(scene.try_write());
    scene.state().writer_queue().begin_slice(1, 0, false);
}

fn write(scene: &Scene) {
    scene.acquire(3);
    scene.release(3);
}

/// A writer that finds `WRITE` taken is woken by the release. It fails without the fence
/// before the try, without the one behind the release, and if the sleepers' mutex is not held
/// while a sleeper loads the word.
#[test]
fn writer_queue_loses_no_wake_up() {
    explore(3, hold_write, [|scene| scene.release(1), write]);
    explore(1, hold_write, [|scene| scene.release(1), write, write]);
}

/// A release that finds the queue empty clears the mark that it is in use, beside a writer
/// that enters. Another one may then acquire `WRITE` ahead of the queue, and has to find the
/// mark when it releases it. It fails if the queue is marked before the slot is occupied, if
/// the mark is cleared after the last look at the slots, and if the fence stands before the
/// first try alone, and not before that of a writer which was woken.
#[test]
fn writer_that_enters_an_emptied_queue_is_woken() {
    fn bypass(scene: &Scene) {
        if scene.state().writer_queue().may_bypass(4, AFTER_SLICE) && scene.try_write() {
            scene.release(4);
        }
    }
    let leave_queue = |scene: &Scene| {
        let queue = scene.state().writer_queue();
        queue.leave(queue.enter(0).unwrap());
        hold_write(scene);
    };
    explore(3, leave_queue, [|scene| scene.release(1), write, bypass]);
}
