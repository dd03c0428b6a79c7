//! Which thread began the write transaction of an attachment, so that a thread that waits
//! for its own transaction learns that before its timeout.
//!
//! # Protocol
//! A write transaction notes its thread at its attachment once it has `WRITE`, and clears the
//! note before `WRITE` is released. A thread that waits for `WRITE` compares the notes of the
//! attachments at which it ever began one, by the path of the database: the transaction may
//! be that of another handle.
//!
//! A transaction may be moved to another thread. That leaves no trace until the other thread
//! changes something or ends the transaction, which clears the note. So the note is
//! believed at once only where the transaction cannot be moved, in the closure of
//! [`Wal::write`]. Elsewhere the wait ends early once the note has stayed for
//! [`UNTOUCHED`], unless the caller's function decides how long to wait. A call that does
//! not wait gets `Busy`, as beside any other writer.
//!
//! An operation that calls a function of the caller with `WRITE` held, as a checkpoint does
//! with its progress, notes its thread in the same way.
//!
//! # Ordering
//! Relaxed: a thread stores its own number and looks for its own number, which no other
//! thread stores. That the note is cleared is seen late at worst.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::coordination::WalCoordination;
use crate::error::Error;
use crate::fork::ProcessGeneration;
use crate::protocol::Wal;
use crate::protocol::locking::busy::Waiter;
use crate::protocol::write::transaction::WriteTx;
use crate::types::Lock;
use crate::wait::who;

/// How long a write transaction that its thread began has to stay untouched by other threads
/// until that thread stops waiting for it. A longer time delays the error, a shorter one
/// refuses more transactions that were moved to another thread and pause there.
const UNTOUCHED: Duration = Duration::from_millis(250);

/// Beside the number of a thread: the transaction cannot be moved to another one.
const STAYS: u64 = 1;

/// The note of one attachment.
#[derive(Debug)]
pub(in crate::protocol) struct OwnWrite {
    path: PathBuf,
    process: ProcessGeneration,
    /// The number of the thread, shifted by one, and [`STAYS`]; 0 for none.
    thread: AtomicU64,
}

/// Until it is dropped, an operation of this thread has `WRITE`, and may call a function of
/// the caller.
pub(in crate::protocol) struct Staying<'w> {
    note: &'w OwnWrite,
    thread: u32,
}

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.note.end(self.thread);
    }
}

/// What a thread knows of the transaction that has `WRITE`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    No,
    /// The thread began it, and no other thread has touched it since.
    Untouched,
    /// The thread has it.
    Yes,
}

thread_local! {
    /// The notes of attachments at which this thread began a write transaction.
    static NOTES: RefCell<Vec<Weak<OwnWrite>>> = const { RefCell::new(Vec::new()) };
}

/// A wait for `WRITE`, as far as it may be one for the thread's own transaction.
#[derive(Default)]
pub(in crate::protocol) struct SelfWait {
    /// Since when the transaction was seen to be untouched.
    since: Option<Instant>,
    /// The wait ended for that reason.
    found: bool,
}

impl OwnWrite {
    pub(in crate::protocol) fn none(path: PathBuf) -> Arc<Self> {
        Arc::new(OwnWrite {
            path,
            process: ProcessGeneration::current(),
            thread: AtomicU64::new(0),
        })
    }

    /// Notes that this thread has begun a write transaction, and returns its number.
    pub(in crate::protocol) fn begin(self: &Arc<Self>) -> u32 {
        let thread = who();
        self.thread.store(u64::from(thread) << 1, Ordering::Relaxed);
        // A thread that ends has no list any more, and does not wait for itself.
        let _ = NOTES.try_with(|notes| {
            let Ok(mut notes) = notes.try_borrow_mut() else {
                return;
            };
            let is_this = |note: &Weak<Self>| std::ptr::eq(note.as_ptr(), Arc::as_ptr(self));
            if !notes.iter().any(is_this) {
                notes.retain(|note| note.strong_count() > 0);
                notes.push(Arc::downgrade(self));
            }
        });
        thread
    }

    /// Notes that the transaction, which `thread` began, stays on it until it ends.
    fn stays(&self, thread: u32) {
        self.thread
            .store(u64::from(thread) << 1 | STAYS, Ordering::Relaxed);
    }

    /// Clears the note of a transaction that `thread` began, if another thread calls this.
    #[inline]
    pub(in crate::protocol) fn touch(&self, thread: u32) {
        if self.thread.load(Ordering::Relaxed) == u64::from(thread) << 1 && who() != thread {
            self.thread.store(0, Ordering::Relaxed);
        }
    }

    /// Clears the note of a transaction that `thread` began. The caller still has `WRITE`.
    pub(in crate::protocol) fn end(&self, thread: u32) {
        if self.thread.load(Ordering::Relaxed) >> 1 == u64::from(thread) {
            self.thread.store(0, Ordering::Relaxed);
        }
    }

    fn is_of(&self, thread: u32) -> Own {
        match self.thread.load(Ordering::Relaxed) {
            // In a forked child a note is the parent's.
            _ if self.process.is_over() => Own::No,
            note if note >> 1 != u64::from(thread) => Own::No,
            note if note & STAYS == 0 => Own::Untouched,
            _ => Own::Yes,
        }
    }
}

impl<C: WalCoordination> Wal<C> {
    /// True if the caller, which failed to acquire `WRITE`, waits for a transaction of its
    /// own thread.
    pub(in crate::protocol) fn waits_for_itself(&self, waiter: &mut Waiter) -> bool {
        if waiter.is_hasty() {
            return false;
        }
        let is_asked = waiter.is_asked();
        let wait = &mut waiter.for_itself;
        wait.found = match self.own_write_of_thread() {
            Own::Yes => true,
            Own::Untouched if !is_asked => {
                let since = *wait.since.get_or_insert_with(Instant::now);
                since.elapsed() >= UNTOUCHED
            }
            Own::Untouched => false,
            Own::No => {
                wait.since = None;
                false
            }
        };
        wait.found
    }

    fn own_write_of_thread(&self) -> Own {
        let thread = who();
        let of_this_database = |note: Weak<OwnWrite>| {
            let note = note.upgrade().filter(|note| note.path == self.path());
            note.map(|note| note.is_of(thread))
        };
        let found = NOTES.try_with(|notes| {
            let notes = notes.borrow().clone();
            let own = notes.into_iter().filter_map(of_this_database);
            own.into_iter().find(|own| *own != Own::No)
        });
        found.ok().flatten().unwrap_or(Own::No)
    }

    /// Notes that an operation of this thread has `WRITE`, which it releases once the value
    /// that this returns is dropped.
    pub(in crate::protocol) fn stay_with_write(&self) -> Staying<'_> {
        let note: &OwnWrite = &self.own_write;
        let thread = self.own_write.begin();
        note.stays(thread);
        Staying { note, thread }
    }

    /// The error for `lock`, which stayed busy until `waiter` gave up.
    pub(in crate::protocol) fn busy_after(&self, lock: Lock, waiter: &Waiter) -> Error {
        match lock == Lock::Write && waiter.for_itself.found {
            true => Error::OwnWrite {
                path: self.path().to_owned(),
            },
            false => self.busy(lock),
        }
    }
}

impl<C: WalCoordination> WriteTx<C> {
    /// Notes that this transaction stays on its thread until it ends.
    pub(in crate::protocol) fn stay(&self) {
        self.wal().own_write.stays(self.thread);
    }
}
