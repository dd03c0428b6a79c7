//! A thread that ends reservations in time, whatever the application does.
//!
//! # Protocol
//! The thread is started with the first reminder, and ends when none is left. A call that finds
//! its file busy is repeated after [`PAUSE`], in the order of time among the other reminders: the
//! thread never waits for one file while the reservation of another is over.
//!
//! # Crash
//! A forked child has a list of its own, and starts a thread of its own. A call that panics is
//! not repeated, and the thread continues with the next reminder.
#![expect(
    clippy::disallowed_types,
    reason = "the list is a static, which outlives a model"
)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use wal_core::background;
use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::sync::Unpoison;

/// After this time a file is tried again that another thread uses at the moment.
const PAUSE: Duration = Duration::from_millis(1);

static REMINDERS: OnceTable<Mutex<Reminders>> = OnceTable::new();

/// The calls that are due, and the thread that makes them.
#[derive(Default)]
struct Reminders {
    has_thread: bool,
    /// In the order of time.
    list: VecDeque<Reminder>,
}

struct Reminder {
    at: Instant,
    /// Returns false if it is to be called again.
    call: Box<dyn FnMut() -> bool + Send>,
}

impl Reminders {
    fn add(&mut self, reminder: Reminder) {
        let place = self.list.partition_point(|other| other.at <= reminder.at);
        self.list.insert(place, reminder);
    }
}

fn reminders() -> MutexGuard<'static, Reminders> {
    let generation = ProcessGeneration::current().number();
    REMINDERS
        .get_or_make(generation, Mutex::default)
        .lock()
        .unpoison()
}

/// Calls `call` in another thread after `time`, which is the same for each caller, and again
/// until it returns true; false if no thread can be started.
pub(crate) fn call_after(time: Duration, call: impl FnMut() -> bool + Send + 'static) -> bool {
    let mut reminders = reminders();
    if !reminders.has_thread {
        reminders.has_thread = background::spawn("wal-reservation", run).is_ok();
    }
    if reminders.has_thread {
        reminders.add(Reminder {
            at: Instant::now() + time,
            call: Box::new(call),
        });
    }
    reminders.has_thread
}

fn run() {
    loop {
        let next = {
            let mut reminders = reminders();
            let next = reminders.list.pop_front();
            if next.is_none() {
                reminders.has_thread = false;
            }
            next
        };
        let Some(mut reminder) = next else {
            return;
        };
        thread::sleep(reminder.at.saturating_duration_since(Instant::now()));
        let is_done = catch_unwind(AssertUnwindSafe(|| (reminder.call)()));
        if !is_done.unwrap_or(true) {
            reminder.at = Instant::now() + PAUSE;
            reminders().add(reminder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const TIME: Duration = Duration::from_millis(1);
    const WATCHDOG: Duration = Duration::from_secs(20);

    #[test]
    fn busy_file_delays_no_other_reminder() {
        let (other_is_called, called) = mpsc::channel();
        let (done, busy_is_done) = mpsc::channel();
        // Busy until the call for the other file was made.
        let busy = move || {
            let is_done = called.try_recv().is_ok();
            if is_done {
                done.send(()).unwrap();
            }
            is_done
        };
        assert!(call_after(TIME, busy));
        let other = move || {
            other_is_called.send(()).unwrap();
            true
        };
        assert!(call_after(TIME, other));
        busy_is_done.recv_timeout(WATCHDOG).unwrap();
    }

    #[test]
    fn panic_in_a_call_stops_no_later_reminder() {
        for _ in 0..2 {
            assert!(call_after(TIME, || panic!("a test")));
            let (done, is_done) = mpsc::channel();
            let call = move || {
                done.send(()).unwrap();
                true
            };
            assert!(call_after(TIME, call));
            is_done.recv_timeout(WATCHDOG).unwrap();
        }
    }
}
