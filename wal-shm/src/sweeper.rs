//! The thread that releases read locks whose release was delayed and that no reader uses
//! any more: one for all databases of the process.
//!
//! It is started when release is delayed for the first time, and ends with the last
//! attachment for which it was. It sleeps without a timer while no release is delayed. While
//! one is, it looks at its lock table twice within the delay, and a checkpoint of any process
//! wakes it ([`WaitState::reclaim`]).
//!
//! # Protocol
//! Lock order: [`Process::control`], [`Process::swept`], then the mutex of a lock table. The
//! thread acquires the last two only. While it sleeps it holds no mutex, but references to
//! what it sleeps on; an attachment that is dropped wakes it and waits until it has let go of
//! them, so that no file is closed later than its attachment.
//!
//! [`WaitState::reclaim`]: wal_core::wait::WaitState::reclaim

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use wal_core::ReadSlot;
use wal_core::background;
use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::sync::{
    AtomicBool, AtomicU32, Condvar, Mutex, MutexGuard, Ordering, Unpoison, wait_while,
};
use wal_core::wait::EventCount;

use crate::futex;
use crate::index::Index;
use crate::lock_table::{LockTable, Seen};
use crate::read_rate::Delay;
use crate::side_file::SideFile;

/// What is swept of one attachment. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Sweeper {
    locks: Arc<Locks>,
    /// Whether the thread was ever needed for it.
    has_started: AtomicBool,
    process: ProcessGeneration,
}

/// The locks of one attachment.
#[derive(Debug)]
struct Locks {
    table: Arc<LockTable>,
    index: Arc<Index>,
    /// Where a checkpoint of another process reclaims locks.
    side: Option<Arc<SideFile>>,
    delay: Delay,
}

/// An attachment for which release is delayed.
#[derive(Debug)]
struct Swept {
    locks: Arc<Locks>,
    /// What the last look has seen.
    seen: Seen,
    next_look: Instant,
    /// The state of [`WaitState::reclaim`](wal_core::wait::WaitState::reclaim) since
    /// which no checkpoint has reclaimed the locks.
    answered: Option<u32>,
}

/// What there is once for each process.
#[derive(Debug, Default)]
struct Process {
    control: Mutex<Control>,
    swept: Mutex<Vec<Swept>>,
    /// Notified when the thread holds no reference.
    woken: Condvar,
    /// Changed, and woken, when the thread has to look at `swept` or `is_over`.
    changed: AtomicU32,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Control {
    /// There is one while there are users.
    thread: Option<JoinHandle<()>>,
    /// The attachments for which the thread was needed.
    users: usize,
}

/// One for each generation of forks: a child has no thread of its parent.
static PROCESSES: OnceTable<Process> = OnceTable::new();

fn process() -> &'static Process {
    PROCESSES.get_or_make(ProcessGeneration::current().number(), Process::default)
}

impl Sweeper {
    pub(crate) fn new(
        table: Arc<LockTable>,
        index: Arc<Index>,
        side: Option<Arc<SideFile>>,
        delay: Delay,
    ) -> Self {
        Sweeper {
            locks: Arc::new(Locks {
                table,
                index,
                side,
                delay,
            }),
            has_started: AtomicBool::new(false),
            process: ProcessGeneration::current(),
        }
    }

    /// Releases `slot`, which the caller holds shared, later if that is worth it; false, and
    /// nothing has changed, if it is not.
    #[inline]
    pub(crate) fn unlock_delayed(&self, slot: ReadSlot) -> bool {
        let Locks { table, index, .. } = &*self.locks;
        table.unlock_delayed(&**index, slot, || self.start().is_ok())
    }

    /// Starts to sweep, and to delay release.
    #[cold]
    fn start(&self) -> std::io::Result<()> {
        if self.process.is_over() {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let process = process();
        let mut control = lock(&process.control);
        if control.thread.is_none() {
            process.is_over.store(false, Ordering::Relaxed);
            control.thread = Some(background::spawn("wal-locks", || process.run())?);
        }
        if !self.has_started.swap(true, Ordering::Relaxed) {
            control.users += 1;
        }
        let mut swept = lock(&process.swept);
        // Another thread may have started it meanwhile.
        if !self.locks.table.delays() {
            swept.retain(|swept| !Arc::ptr_eq(&swept.locks, &self.locks));
            swept.push(Swept::begin(&self.locks));
            self.locks.table.start_delaying();
            process.wake();
        }
        Ok(())
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // In a forked child the thread does not exist.
        if self.process.is_over() || !self.has_started.load(Ordering::Relaxed) {
            return;
        }
        let process = process();
        let mut control = lock(&process.control);
        process.forget(&self.locks);
        control.users -= 1;
        if control.users == 0 {
            process.is_over.store(true, Ordering::Relaxed);
            process.wake();
            if let Some(thread) = control.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Process {
    fn wake(&self) {
        self.changed.fetch_add(1, Ordering::SeqCst);
        futex::wake_all(&self.changed);
    }

    /// Returns when the thread has no reference to `locks`.
    fn forget(&self, locks: &Arc<Locks>) {
        let mut swept = lock(&self.swept);
        swept.retain(|swept| !Arc::ptr_eq(&swept.locks, locks));
        // The other references are those of the thread, which drops them before it acquires
        // the mutex.
        if Arc::strong_count(locks) > 1 {
            self.wake();
            let sleeps = |_: &mut Vec<Swept>| Arc::strong_count(locks) > 1;
            drop(wait_while(&self.woken, swept, sleeps));
        }
    }

    fn run(&self) {
        loop {
            let mut swept = lock(&self.swept);
            self.woken.notify_all();
            // Loaded before the looks: what changes behind this ends the sleep.
            let changed = self.changed.load(Ordering::SeqCst);
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            swept.retain_mut(Swept::goes_on);
            let until = swept.iter().map(|swept| swept.next_look).min();
            let reclaimed = |swept: &Swept| Some((swept.locks.clone(), swept.answered?));
            let reclaimed: Vec<_> = swept.iter().filter_map(reclaimed).collect();
            drop(swept);
            let words = reclaimed.iter().filter_map(|(locks, answered)| {
                let reclaim = locks.reclaim()?;
                Some((reclaim.word(), *answered))
            });
            let words: Vec<_> = [(&self.changed, changed)]
                .into_iter()
                .chain(words)
                .collect();
            futex::wait_any(&words, until);
        }
    }
}

impl Swept {
    fn begin(locks: &Arc<Locks>) -> Self {
        Swept {
            seen: locks.table.seen(),
            next_look: Instant::now() + locks.delay.between_looks(),
            answered: locks.reclaim().map(EventCount::prepare_wait),
            locks: locks.clone(),
        }
    }

    /// Looks, if it is time to. False once release is not delayed any more.
    fn goes_on(&mut self) -> bool {
        let Locks {
            table,
            index,
            delay,
            ..
        } = &*self.locks;
        if !table.delays() {
            // The last user of the attachment has ended it.
            return false;
        }
        let is_reclaimed = self.locks.reclaim().map(EventCount::prepare_wait) != self.answered;
        let now = Instant::now();
        let is_due = now >= self.next_look;
        if is_reclaimed || is_due && !table.look(&**index, &mut self.seen) {
            table.stop_delaying(&**index);
            return false;
        }
        if is_due {
            self.next_look = now + delay.between_looks();
        }
        true
    }
}

impl Locks {
    fn reclaim(&self) -> Option<&EventCount> {
        let wait_state = self.side.as_ref()?.wait_state()?;
        Some(wait_state.reclaim())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unpoison()
}
