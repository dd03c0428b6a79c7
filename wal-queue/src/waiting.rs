//! A thread that waits for `WRITE` in the queue, while SQLite believes that it sleeps.
//!
//! # Protocol
//! A thread that is refused `WRITE` has a *wish*. The busy handler of SQLite sleeps next, by the
//! method `xSleep` of the VFS, whatever timeout the application has set. With a wish the sleep
//! is a wait in the queue: it ends when the thread is the first in the queue and `WRITE` is
//! free, or when the time is over. The first in the queue finds out by a probe: it acquires
//! `WRITE`, which begins its time slice, and releases it. SQLite asks for it again at once;
//! within the time slice no other writer of the queue tries.
//!
//! SQLite counts the time that it asked to sleep, not the time that has passed. After a sleep
//! that was too short it is *ahead*: the next sleep for the same database lasts from the time
//! at which SQLite believes to be, so that a timeout stays what the application has set.
//!
//! `xSleep` serves `sqlite3_sleep` too, and the retries of a read transaction. So a wish is
//! forgotten when the thread opens or locks a file, or begins to read, and after a moment.
//!
//! A thread that returns to SQLite because the time is over, or that is refused `WRITE`, may
//! not try again. It steps aside: it keeps its slot for a moment, and its ticket. If SQLite
//! tries or sleeps once more, the thread is where it was; if it is late, it queues again by its
//! ticket. A thread that reads another database, or closes a file, leaves the queue.
//!
//! What a thread keeps between calls holds no side file open: after the last connection is
//! closed, another process may remove it.
//!
//! # Crash
//! A waiter that dies in the queue is skipped after a moment; see `wal_core::wait`.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use wal_core::fork::ProcessGeneration;
use wal_core::sync::Ordering;
use wal_core::wait::{HEARTBEAT, POLL_INTERVAL, Position, QueueSlot, now, thread_number};

use crate::main_file::MainFile;
use crate::queue::Queue;
use crate::write_lock::Probe;

/// How long a wish, and a ticket without a slot, last. SQLite comes to its busy handler within
/// microseconds, but a thread may be without a processor for a while.
const WISH_LASTS: Duration = Duration::from_millis(50);

/// How far a thread is ahead at most: the sum of what its sleeps were too short.
const MOST_AHEAD: Duration = Duration::from_millis(100);

/// How long the first in the queue finds `WRITE` taken before it tries more often.
const BEFORE_SHORT_POLLS: Duration = Duration::from_millis(10);
/// How often it tries then. A shorter interval takes more of the processor, and finds a stock
/// writer between two transactions sooner.
const SHORT_POLL_INTERVAL: Duration = Duration::from_micros(100);

thread_local! {
    static WAITER: RefCell<Waiter> = RefCell::new(Waiter::default());
}

/// This thread.
#[derive(Default)]
struct Waiter {
    /// The process in which the rest was set.
    process: Option<ProcessGeneration>,
    wish: Option<Wish>,
    queued: Option<Queued>,
    ahead: Option<Ahead>,
}

/// What a thread was refused.
struct Wish {
    main: Weak<MainFile>,
    queue: Weak<Queue>,
    at: Instant,
}

/// A sleep for `main` has ended early.
struct Ahead {
    main: Weak<MainFile>,
    /// The time at which SQLite believes to be.
    until: Instant,
}

/// The queue slot of a thread.
struct Queued {
    queue: Weak<Queue>,
    slot: QueueSlot,
    /// Since when the thread is the first in the queue and finds `WRITE` taken.
    first_since: Option<Instant>,
    /// When the thread has stepped aside, if it has.
    aside: Option<Instant>,
    /// The thread holds `WRITE` of the database, and wakes the next waiter when it releases it.
    is_served: bool,
}

/// Calls `with` with this thread's waiter; `None` while the thread ends.
fn with_waiter<T>(with: impl FnOnce(&mut Waiter) -> T) -> Option<T> {
    let waiter = WAITER.try_with(|waiter| {
        let mut waiter = waiter.try_borrow_mut().ok()?;
        let process = Some(ProcessGeneration::current());
        if waiter.process != process {
            // In a forked child what was set is the parent's, whose slot stays.
            std::mem::forget(std::mem::take(&mut *waiter));
            waiter.process = process;
        }
        Some(with(&mut waiter))
    });
    waiter.ok().flatten()
}

/// Forgets what the thread was refused.
pub(crate) fn forget_wish() {
    with_waiter(|waiter| {
        waiter.wish = None;
    });
}

/// The thread begins to read a database, whose queue is `queue`.
pub(crate) fn begin_read(queue: Option<&Arc<Queue>>) {
    with_waiter(|waiter| {
        waiter.wish = None;
        waiter.leave_unless_in(queue);
    });
}

/// The thread gives up what it was refused, and leaves the queue.
pub(crate) fn give_up() {
    with_waiter(|waiter| {
        waiter.wish = None;
        waiter.queued = None;
    });
}

/// The thread is refused `WRITE` of `main`.
pub(crate) fn refuse(main: &MainFile, queue: &Arc<Queue>) {
    with_waiter(|waiter| {
        waiter.step_aside();
        waiter.wish = Some(Wish {
            main: main.weak(),
            queue: Arc::downgrade(queue),
            at: Instant::now(),
        });
    });
}

/// The thread has acquired `WRITE` of the database of `queue`. True if it was in a queue.
pub(crate) fn served(queue: &Queue) -> bool {
    let was_queued = with_waiter(|waiter| {
        waiter.wish = None;
        waiter.ahead = None;
        waiter.leave_served(queue)
    });
    was_queued.unwrap_or(false)
}

/// True if the thread may try `WRITE` by the order of `queue`.
pub(crate) fn may_try(queue: &Arc<Queue>) -> bool {
    with_waiter(|waiter| waiter.may_try(queue)).unwrap_or(true)
}

/// Leaves `queue`; false if the thread was in none. If the thread `is_served`, it holds `WRITE`,
/// which no other waiter can acquire yet; else the next waiter is woken.
pub(crate) fn leave_queue(queue: &Queue, is_served: bool) -> bool {
    let was_queued = with_waiter(|waiter| match is_served {
        true => waiter.leave_served(queue),
        false => waiter.queued.take().is_some(),
    });
    was_queued.unwrap_or(false)
}

/// Sleeps for `micros`, or until a thread that was refused may try. Returns how many
/// microseconds are left for the VFS beneath to sleep; `None` for all.
pub(crate) fn sleep(micros: c_int) -> Option<c_int> {
    with_waiter(|waiter| waiter.sleep(micros)).flatten()
}

/// Waits until this thread is first in `queue` and `try_write` returns true; false if it is not
/// before `deadline`.
pub(crate) fn wait_until_first(
    queue: &Arc<Queue>,
    deadline: Instant,
    try_write: impl FnMut() -> bool,
) -> bool {
    let ended = with_waiter(|waiter| waiter.wait(queue, deadline, try_write));
    ended == Some(Ended::Served)
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// The last try was successful.
    Served,
    /// The time is over.
    Late,
    /// The queue is full, or cannot be used.
    Unqueued,
}

impl Waiter {
    /// True if the thread may try `WRITE` by the order of `queue`.
    fn may_try(&mut self, queue: &Arc<Queue>) -> bool {
        let Some(writers) = queue.writers() else {
            return true;
        };
        if self.queued.is_none() && writers.is_empty() {
            return true;
        }
        let slot = self.enter_again(queue);
        match slot.map(|slot| writers.position(slot, now())) {
            Some(Position::First) => true,
            Some(Position::Behind) => false,
            Some(Position::Removed) | None => {
                self.queued = None;
                let now = now();
                writers.may_bypass(thread_number(), now) || !writers.has_live_waiter(now)
            }
        }
    }

    fn sleep(&mut self, micros: c_int) -> Option<c_int> {
        let wish = self.wish.take()?;
        let main = wish.main.upgrade()?;
        main.sleeps();
        let queue = wish.queue.upgrade()?;
        if wish.at.elapsed() >= WISH_LASTS {
            return None;
        }
        let asked = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        let ahead = self.ahead.take();
        let ahead = ahead.filter(|ahead| ahead.main.ptr_eq(&wish.main));
        let mut start = ahead.map_or_else(Instant::now, |ahead| ahead.until.max(Instant::now()));
        let early = start.saturating_duration_since(Instant::now());
        if early >= MOST_AHEAD {
            // Peers outside the queue were faster again and again. Otherwise SQLite would use up
            // its timeout in a fraction of it.
            self.queued = None;
            std::thread::sleep(early);
            start = Instant::now();
        }
        let deadline = start + asked;
        let mut probe = Probe::Taken;
        let ended = self.wait(&queue, deadline, || {
            probe = main.probe(&queue);
            probe != Probe::Taken
        });
        match (ended, probe) {
            (Ended::Served, Probe::Free) => {
                self.ahead = Some(Ahead {
                    main: wish.main,
                    until: deadline,
                });
                Some(0)
            }
            (Ended::Late, _) => {
                self.step_aside();
                Some(0)
            }
            _ => {
                self.queued = None;
                let left = deadline.saturating_duration_since(Instant::now());
                c_int::try_from(left.as_micros()).ok()
            }
        }
    }

    fn wait(
        &mut self,
        queue: &Arc<Queue>,
        deadline: Instant,
        mut try_write: impl FnMut() -> bool,
    ) -> Ended {
        loop {
            let Some(writers) = queue.writers() else {
                return Ended::Unqueued;
            };
            let Some(slot) = self.enter_again(queue).or_else(|| self.enter(queue)) else {
                return Ended::Unqueued;
            };
            // The word is loaded before the try: a release after it ends the sleep at once.
            let word = writers.word(slot);
            let seen = word.load(Ordering::SeqCst);
            let pause = match writers.position(slot, now()) {
                Position::Removed => {
                    self.queued = None;
                    continue;
                }
                Position::Behind => HEARTBEAT,
                Position::First if try_write() => return Ended::Served,
                Position::First => {
                    let left = writers.defer_wake_up(slot, now());
                    left.unwrap_or_else(|| self.poll_interval())
                }
            };
            let time = Instant::now();
            if time >= deadline {
                return Ended::Late;
            }
            queue.sleep(word, seen, deadline.min(time + pause));
        }
    }

    /// How soon the first in the queue, which has found `WRITE` taken, tries again. A stock writer
    /// that is not in the queue wakes no waiter, and may leave `WRITE` free for some
    /// microseconds only, again and again.
    fn poll_interval(&mut self) -> Duration {
        let since = self
            .queued
            .as_mut()
            .map(|queued| *queued.first_since.get_or_insert_with(Instant::now));
        match since.is_some_and(|since| since.elapsed() >= BEFORE_SHORT_POLLS) {
            true => SHORT_POLL_INTERVAL,
            false => POLL_INTERVAL,
        }
    }

    /// Occupies a slot at the end of `queue`.
    fn enter(&mut self, queue: &Arc<Queue>) -> Option<QueueSlot> {
        let slot = queue.writers()?.enter(now())?;
        self.queued = Some(Queued {
            queue: Arc::downgrade(queue),
            slot,
            aside: None,
            first_since: None,
            is_served: false,
        });
        Some(slot)
    }

    /// The slot of the thread in `queue`, which it occupies again if it was skipped while it was
    /// aside for a moment. A slot in another queue is left.
    fn enter_again(&mut self, queue: &Arc<Queue>) -> Option<QueueSlot> {
        self.leave_unless_in(Some(queue));
        let queued = self.queued.as_mut()?;
        let Some(aside) = queued.aside.take() else {
            return Some(queued.slot);
        };
        let writers = queue.writers()?;
        if aside.elapsed() >= WISH_LASTS {
            self.queued = None;
            return None;
        }
        if writers.position(queued.slot, now()) == Position::Removed {
            let Some(slot) = writers.enter_again(queued.slot, now()) else {
                self.queued = None;
                return None;
            };
            queued.slot = slot;
        }
        Some(queued.slot)
    }

    /// Leaves the queue that the thread is in, unless that is `queue`.
    fn leave_unless_in(&mut self, queue: Option<&Arc<Queue>>) {
        let queue = queue.map_or(std::ptr::null(), Arc::as_ptr);
        self.queued
            .take_if(|queued| !std::ptr::eq(queued.queue.as_ptr(), queue));
    }

    /// Leaves `queue` with `WRITE` held; false if the thread was in none.
    fn leave_served(&mut self, queue: &Queue) -> bool {
        let queued = self.queued.take();
        let was_queued = queued.is_some();
        if let Some(mut queued) = queued {
            queued.is_served = std::ptr::eq(queued.queue.as_ptr(), queue);
        }
        was_queued
    }

    /// Keeps the slot of the thread for a moment, and its ticket. A slot that the thread has not
    /// come back to is given up.
    fn step_aside(&mut self) {
        let is_stale =
            |queued: &mut Queued| queued.aside.is_some_and(|at| at.elapsed() >= WISH_LASTS);
        self.queued.take_if(is_stale);
        if let Some(queued) = &mut self.queued
            && let Some(queue) = queued.queue.upgrade()
            && let Some(writers) = queue.writers()
        {
            writers.step_aside(queued.slot, now());
            queued.aside = Some(Instant::now());
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // Without connections the queue is gone, and the slot with it.
        if let Some(queue) = self.queue.upgrade()
            && let Some(writers) = queue.writers()
        {
            writers.leave(self.slot);
            // This waiter may have been woken to try, and has not acquired `WRITE`.
            if !self.is_served {
                queue.wake_next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wal_core::storage::HeldPath;

    use super::*;

    /// Whether the waiter behind this thread is woken when this thread leaves by `leave`.
    fn wakes_next(leave: impl FnOnce(&Queue) -> bool) -> bool {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("database");
        std::fs::write(&path, b"").expect("a file");
        let place = HeldPath::of(&path).expect("a folder");
        let queue = Queue::of(place).expect("a queue");
        assert!(wait_until_first(&queue, Instant::now(), || true), "first");
        let writers = queue.writers().expect("a queue");
        let behind = writers.enter(now()).expect("a slot");
        let word = || writers.word(behind).load(Ordering::SeqCst);
        let before = word();
        assert!(leave(&queue), "it was in the queue");
        let woken = word() != before;
        writers.leave(behind);
        woken
    }

    #[test]
    fn writer_that_is_served_wakes_no_waiter() {
        assert!(!wakes_next(served));
        assert!(!wakes_next(|queue| leave_queue(queue, true)));
    }

    #[test]
    fn writer_that_gives_up_wakes_the_next_waiter() {
        assert!(wakes_next(|queue| leave_queue(queue, false)));
    }
}
