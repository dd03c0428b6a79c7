//! The thread that releases read locks whose release was delayed and that no reader uses
//! any more.
//!
//! It is started when release is delayed for the first time, and sleeps without a timer
//! while none is. While one is, it looks at the lock table twice within the delay, and a
//! checkpoint of any process wakes it ([`WaitingRoom::reclaim`]).
//!
//! [`WaitingRoom::reclaim`]: wal_core::waiting::WaitingRoom::reclaim

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::SigSet;
use wal_core::ReadSlot;
use wal_core::fork::ProcessGeneration;
use wal_core::waiting::Bell;

use crate::futex;
use crate::index::Index;
use crate::lock_table::LockTable;
use crate::read_rate::Delay;
use crate::side_file::{self, SideFile};

/// What sweeps the locks of one attachment. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Sweeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    process: ProcessGeneration,
}

#[derive(Debug)]
struct Shared {
    table: Arc<LockTable>,
    index: Arc<Index>,
    /// Where a checkpoint of another process reclaims locks.
    side: Option<Arc<SideFile>>,
    delay: Delay,
    /// The state of [`WaitingRoom::reclaim`](wal_core::waiting::WaitingRoom::reclaim) that
    /// the thread has answered, or that it was started with.
    answered: AtomicU32,
    is_over: Mutex<bool>,
    started: Condvar,
}

/// Why a wait of the sweeper has ended.
enum Woken {
    ToLook,
    Reclaimed,
    Over,
}

impl Sweeper {
    pub(crate) fn new(
        table: Arc<LockTable>,
        index: Arc<Index>,
        side: Option<Arc<SideFile>>,
        delay: Delay,
    ) -> Self {
        Sweeper {
            shared: Arc::new(Shared {
                table,
                index,
                side,
                delay,
                answered: AtomicU32::new(0),
                is_over: Mutex::new(false),
                started: Condvar::new(),
            }),
            thread: Mutex::new(None),
            process: ProcessGeneration::current(),
        }
    }

    /// Releases `slot`, which the caller holds shared, later if that is worth it; false, and
    /// nothing has changed, if it is not.
    #[inline]
    pub(crate) fn unlock_delayed(&self, slot: ReadSlot) -> bool {
        let Shared { table, index, .. } = &*self.shared;
        table.unlock_delayed(&**index, slot, || self.start().is_ok())
    }

    /// Starts to sweep, and to delay release.
    #[cold]
    fn start(&self) -> std::io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = self.shared.clone();
            let sweeper = thread::Builder::new().name("wal-locks".to_owned());
            *thread = Some(sweeper.spawn(move || shared.run())?);
        }
        let _over = lock(&self.shared.is_over);
        // One that is started already has its state to answer from.
        if !self.shared.table.delays() {
            if let Some(reclaim) = self.shared.reclaim() {
                self.shared
                    .answered
                    .store(reclaim.expect(), Ordering::Relaxed);
            }
            self.shared.table.start_delaying();
            self.shared.started.notify_one();
        }
        Ok(())
    }
}

impl Shared {
    fn reclaim(&self) -> Option<&Bell> {
        let room = self.side.as_ref()?.waiting_room()?;
        Some(room.reclaim())
    }

    fn run(&self) {
        // The program's signal handlers run in its own threads.
        let _ = SigSet::all().thread_block();
        while self.wait_until_started() {
            let mut seen = self.table.seen();
            while matches!(self.wait_to_look(), Woken::ToLook)
                && self.table.look(&*self.index, &mut seen)
            {}
            self.table.stop_delaying(&*self.index);
        }
    }

    /// Waits as long as release is not delayed; false if it is over.
    fn wait_until_started(&self) -> bool {
        let mut over = lock(&self.is_over);
        while !*over && !self.table.delays() {
            let woken = self.started.wait(over);
            over = woken.unwrap_or_else(PoisonError::into_inner);
        }
        !*over
    }

    fn wait_to_look(&self) -> Woken {
        let period = self.delay.between_looks();
        let until = Instant::now() + period;
        let Some(reclaim) = self.reclaim() else {
            let over = lock(&self.is_over);
            let woken = self.started.wait_timeout_while(over, period, |over| !*over);
            let (over, _) = woken.unwrap_or_else(PoisonError::into_inner);
            return if *over { Woken::Over } else { Woken::ToLook };
        };
        let answered = self.answered.load(Ordering::Relaxed);
        loop {
            // The state before the look at `is_over`: `end` changes it behind its store.
            let state = reclaim.expect();
            if *lock(&self.is_over) {
                return Woken::Over;
            }
            if state != answered {
                return Woken::Reclaimed;
            }
            if Instant::now() >= until {
                return Woken::ToLook;
            }
            side_file::sleep(reclaim.word(), state, until);
        }
    }

    fn end(&self) {
        *lock(&self.is_over) = true;
        self.started.notify_one();
        if let Some(reclaim) = self.reclaim()
            && reclaim.ring()
        {
            futex::wake_all(reclaim.word());
        }
    }
}

impl Drop for Sweeper {
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
