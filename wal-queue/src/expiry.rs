//! A thread that ends reservations in time, whatever the application does.
//!
//! # Protocol
//! The thread is started with the first reservation, and ends when none is left: some
//! milliseconds later. It has weak references, so a file may be closed at any time.
//!
//! # Crash
//! A forked child has a list of its own, and starts a thread of its own.
#![expect(
    clippy::disallowed_types,
    reason = "the list is a static, which outlives a model"
)]

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::sync::Unpoison;

use crate::main_file::MainFile;

/// After this time a file is tried again that another thread uses at the moment.
const PAUSE: Duration = Duration::from_millis(1);

static REMINDERS: OnceTable<Mutex<Reminders>> = OnceTable::new();

/// What ends when.
#[derive(Default)]
struct Reminders {
    has_thread: bool,
    list: VecDeque<(Instant, Weak<MainFile>)>,
}

fn reminders() -> MutexGuard<'static, Reminders> {
    let generation = ProcessGeneration::current().number();
    REMINDERS
        .get_or_make(generation, Mutex::default)
        .lock()
        .unpoison()
}

/// Ends the reservation of `file` after `time`; false if no thread can be started.
pub(crate) fn end_after(time: Duration, file: Weak<MainFile>) -> bool {
    let mut reminders = reminders();
    if !reminders.has_thread {
        let builder = thread::Builder::new().name("wal-reservation".to_owned());
        reminders.has_thread = builder.spawn(run).is_ok();
    }
    if reminders.has_thread {
        reminders.list.push_back((Instant::now() + time, file));
    }
    reminders.has_thread
}

fn run() {
    // The program's signal handlers run in its own threads.
    let _ = SigSet::all().thread_block();
    loop {
        let next = {
            let mut reminders = reminders();
            let next = reminders.list.pop_front();
            if next.is_none() {
                reminders.has_thread = false;
            }
            next
        };
        let Some((at, file)) = next else {
            return;
        };
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if let Some(main) = file.upgrade()
            && !main.expire_reservation()
        {
            let mut reminders = reminders();
            reminders.list.push_front((Instant::now() + PAUSE, file));
        }
    }
}
