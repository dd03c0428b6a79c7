//! The side file of a database, shared by all its connections in this process.
//!
//! # Protocol
//! A connection attaches when SQLite maps the wal-index, and detaches when SQLite unmaps it.
//! In between the connection holds SHARED on the database file, so no process removes the side
//! file.
//!
//! # Crash
//! The side file is a hint: a database without one, or whose side file holds garbage, has
//! writers that poll as stock SQLite does.

use std::sync::Arc;
use std::time::Instant;

use wal_core::storage::HeldPath;
use wal_core::sync::AtomicU32;
use wal_core::wait::{WaitState, WriterQueue, now, thread_number};
use wal_shm::SideFile;

use crate::per_database::PerDatabase;

/// The queue of the writers of one database.
#[derive(Debug)]
pub(crate) struct Queue {
    side: SideFile,
}

static QUEUES: PerDatabase<Queue> = PerDatabase::new();

impl Queue {
    /// The queue of the database at `place`, which SQLite has open with SHARED held; `None` if
    /// there cannot be one.
    pub(crate) fn of(place: HeldPath) -> Option<Arc<Self>> {
        QUEUES.get_or_open(place, |place, _| {
            let side = SideFile::of_engine(place)?;
            Some(Queue { side })
        })
    }

    /// The wait state; `None` in a forked child.
    pub(crate) fn wait_state(&self) -> Option<&WaitState> {
        self.side.wait_state()
    }

    /// The writers that wait for `WRITE`; `None` in a forked child.
    pub(crate) fn writers(&self) -> Option<&WriterQueue> {
        Some(self.wait_state()?.writer_queue())
    }

    /// Sleeps until `word` is not `seen`, or until `deadline`, or less.
    pub(crate) fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        self.side.sleep(word, seen, deadline);
    }

    /// Wakes each sleeper on `word`.
    pub(crate) fn wake(&self, word: &AtomicU32) {
        self.side.wake(word);
    }

    /// Wakes the first writer in the queue, once this thread has released `WRITE` or has left
    /// the queue.
    pub(crate) fn wake_next(&self) {
        if let Some(writers) = self.writers()
            && let Some(word) = writers.next_to_wake(thread_number(), now)
        {
            self.side.wake(word);
        }
    }

    /// Notes that this thread has acquired `WRITE`: its time slice begins, as that of a writer that
    /// was in the queue or came without one.
    pub(crate) fn begin_slice(&self, from_queue: bool) {
        if let Some(writers) = self.writers() {
            writers.begin_slice(thread_number(), now(), from_queue);
        }
    }

    /// Notifies of a commit.
    pub(crate) fn notify_commit(&self) {
        if let Some(wait_state) = self.wait_state()
            && wait_state.commits().notify()
        {
            self.side.wake(wait_state.commits().word());
        }
    }

    /// Prepares to wait for a commit: one that is notified after this call ends the wait.
    /// `None` in a forked child.
    pub(crate) fn prepare_wait_for_commit(&self) -> Option<u32> {
        Some(self.wait_state()?.commits().prepare_wait())
    }

    /// Waits for a commit since `seen`, until `deadline`, or less.
    pub(crate) fn wait_for_commit(&self, seen: u32, deadline: Instant) {
        if let Some(wait_state) = self.wait_state() {
            self.sleep(wait_state.commits().word(), seen, deadline);
        }
    }

    /// Removes the side file. SQLite holds EXCLUSIVE on the database file.
    pub(crate) fn remove(&self) {
        // A thread of this process may still wait in it.
        QUEUES.forget(self);
        // A side file that stays is reset by the next first opener.
        let _ = self.side.remove();
    }
}
