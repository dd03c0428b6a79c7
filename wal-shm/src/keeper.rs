//! The thread that gives back locks that linger and are not used any more.
//!
//! It is started when the first lock lingers, and sleeps without a timer as
//! long as nobody leaves one. While one does, who waits for readers calls it in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use wal_core::fork::ProcessGeneration;

use crate::futex;
use crate::index::Index;
use crate::lock_table::LockTable;
use crate::side_file::{self, SideFile};

/// A moment that is further ahead may not be one that can be told.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a slot is avoided at a time, however long locks linger.
const LONGEST_AVOIDED: Duration = Duration::from_millis(5);

/// The locks of one attachment, and what sweeps them. Dropping it ends the
/// thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    process: ProcessGeneration,
}

#[derive(Debug)]
struct Shared {
    table: Arc<LockTable>,
    index: Arc<Index>,
    /// Where others call locks in.
    side: Option<Arc<SideFile>>,
    /// A lock that lingers is given back after this long at least, and twice
    /// as long at most.
    period: Duration,
    /// Whether the thread will sweep within the period.
    awake: AtomicBool,
    is_over: Mutex<bool>,
    bell: Condvar,
}

impl Keeper {
    pub(crate) fn new(
        table: Arc<LockTable>,
        index: Arc<Index>,
        side: Option<Arc<SideFile>>,
        period: Duration,
    ) -> Self {
        Keeper {
            shared: Arc::new(Shared {
                table,
                index,
                side,
                period,
                awake: AtomicBool::new(false),
                is_over: Mutex::new(false),
                bell: Condvar::new(),
            }),
            thread: Mutex::new(None),
            process: ProcessGeneration::current(),
        }
    }

    /// Whether it is worth it that a lock lingers: others came not long ago.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.is_awake() || self.shared.table.is_taken_often(self.shared.period)
    }

    fn is_awake(&self) -> bool {
        // SeqCst: the lock lingers before this, and the thread that goes to
        // sleep looks at the locks behind its store; one of both sees the
        // other.
        self.shared.awake.load(Ordering::SeqCst)
    }

    /// A reader has left a lock, which lingers if it was the last. If the thread cannot
    /// be started, what lingers is given back now.
    pub(crate) fn notice(&self) {
        if !self.is_awake() && self.wake().is_err() {
            self.shared.table.sweep_all(&*self.shared.index);
        }
    }

    fn wake(&self) -> std::io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = self.shared.clone();
            let keeper = thread::Builder::new().name("wal-locks".to_owned());
            *thread = Some(keeper.spawn(move || shared.run())?);
        }
        let _over = lock(&self.shared.is_over);
        self.shared.awake.store(true, Ordering::SeqCst);
        self.shared.bell.notify_one();
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        // The program's signal handlers run in its own threads.
        let _ = SigSet::all().thread_block();
        while self.sleeps_until_awake() {
            let called_in = self.is_called_in_within_a_period();
            self.awake.store(false, Ordering::SeqCst);
            if called_in {
                self.table.sweep_all(&*self.index);
            }
            let used = self.table.sweep(&*self.index);
            // Looked at behind the store; see `is_awake`.
            if used || self.table.lingers() {
                self.awake.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Sleeps as long as nothing lingers; false if it is over.
    fn sleeps_until_awake(&self) -> bool {
        let mut over = lock(&self.is_over);
        while !*over && !self.awake.load(Ordering::SeqCst) {
            over = self.bell.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
        !*over
    }

    /// Sleeps until what lingers is to be looked at; true if it was called in.
    fn is_called_in_within_a_period(&self) -> bool {
        let period = match self.table.avoids_any() {
            true => self.period.min(LONGEST_AVOIDED),
            false => self.period.min(LONGEST_PERIOD),
        };
        let Some(room) = self.side.as_ref().and_then(|side| side.waiting_room()) else {
            let over = lock(&self.is_over);
            if !*over {
                drop(self.bell.wait_timeout(over, period));
            }
            return false;
        };
        let called_in = room.called_in();
        let seen = called_in.expect();
        let rings = || called_in.word().load(Ordering::SeqCst) != seen;
        let until = Instant::now() + period;
        // Behind the look at the word, which is changed behind this.
        while !*lock(&self.is_over) && !rings() && Instant::now() < until {
            side_file::sleep(called_in.word(), seen, until);
        }
        rings()
    }

    fn end(&self) {
        *lock(&self.is_over) = true;
        self.bell.notify_one();
        if let Some(room) = self.side.as_ref().and_then(|side| side.waiting_room())
            && room.called_in().ring()
        {
            futex::wake_all(room.called_in().word());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let thread = self.thread.get_mut();
        let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        // In a forked child the thread does not exist.
        if self.process.is_over() {
            std::mem::forget(thread);
            return;
        }
        self.shared.end();
        let _ = thread.join();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
