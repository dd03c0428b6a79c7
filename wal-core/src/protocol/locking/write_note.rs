//! The note of an attachment about which thread began its write transaction, and the list of
//! such notes that each thread keeps: see [`super::own_write`].

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::fork::ProcessGeneration;
use crate::sync::{AtomicU64, Ordering};
use crate::wait::thread_number;

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
pub(super) enum Own {
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
        let thread = thread_number();
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
    pub(in crate::protocol) fn stays(&self, thread: u32) {
        self.thread
            .store(u64::from(thread) << 1 | STAYS, Ordering::Relaxed);
    }

    /// Clears the note of a transaction that `thread` began, if another thread calls this.
    #[inline]
    pub(in crate::protocol) fn touch(&self, thread: u32) {
        if self.thread.load(Ordering::Relaxed) == u64::from(thread) << 1
            && thread_number() != thread
        {
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

    /// What the calling thread knows of the transaction that has `WRITE` of the database at
    /// `path`.
    pub(super) fn of_thread(path: &Path) -> Own {
        let thread = thread_number();
        let of_this_database = |note: Weak<OwnWrite>| {
            let note = note.upgrade().filter(|note| note.path == path);
            note.map(|note| note.is_of(thread))
        };
        let found = NOTES.try_with(|notes| {
            let notes = notes.borrow().clone();
            let own = notes.into_iter().filter_map(of_this_database);
            own.into_iter().find(|own| *own != Own::No)
        });
        found.ok().flatten().unwrap_or(Own::No)
    }

    /// Notes that an operation of this thread has `WRITE`, until the value is dropped.
    pub(in crate::protocol) fn begin_operation(self: &Arc<Self>) -> Staying<'_> {
        let thread = self.begin();
        self.stays(thread);
        Staying { note: self, thread }
    }
}

/// A wait for `WRITE`, as far as it may be one for the thread's own transaction.
#[derive(Default)]
pub(super) struct SelfWait {
    /// Since when the transaction was seen to be untouched.
    pub(super) since: Option<Instant>,
    /// The wait ended for that reason.
    pub(super) found: bool,
}
