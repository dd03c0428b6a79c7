//! The shared wait state: memory in which the users of a database wait for each other.
//!
//! | file | what a user waits for |
//! |---|---|
//! | `event_count` | a commit, or that a checkpointer reclaims read locks |
//! | `writer_queue` | `WRITE`; its part `observe` shows the queue to observers |
//! | `synced` | a sync of the log |
//! | `delayed` | read slots that processes keep without a reader, which a checkpointer reclaims |
//! | `identity` | nothing: it names the waiters |
//! | `spin` | whether a waiter yields before it blocks |
//! | `clock` | the time by which waiters go |
//!
//! All of it is a hint but [`SyncedLog`]. Whatever the memory holds, zeros, garbage or what a
//! dead process left, a waiter retries by itself within a bound, and the header and the lock
//! alone decide what it waits for. So a backend may lose the wait state, or have none. A
//! [`SyncedLog`] is believed: zeros say that nothing is known, and only a user that has synced
//! the log stores to it. It is not shared with peers that do not keep the protocol.

mod clock;
mod delayed;
mod event_count;
mod identity;
#[cfg(all(feature = "step-points", not(loom)))]
#[doc(hidden)]
pub mod manual_clock;
mod spin;
mod synced;
mod writer_queue;

use std::fmt;

use crate::sync::{AtomicU32, Ordering};

pub use clock::POLL_INTERVAL;
#[doc(hidden)]
pub use clock::now;
pub use delayed::DelayedReleases;
pub use event_count::EventCount;
pub use identity::ProcessName;
#[doc(hidden)]
pub use identity::thread_number;
pub(crate) use spin::yield_until;
pub use synced::{LEASE, SyncedLog};
pub use writer_queue::{HEARTBEAT, Position, QueueSlot, TimeSlice, WaitingWriter, WriterQueue};

/// The wait state, in memory that all users share; zeros are an empty one.
#[repr(C)]
#[derive(Default)]
pub struct WaitState {
    commits: EventCount,
    checkpointing_commit: CheckpointingCommit,
    reclaim: EventCount,
    unused: [AtomicU32; 3],
    delayed: DelayedReleases,
    synced: SyncedLog,
    writer_queue: WriterQueue,
}

crate::shared_memory!(WaitState {
    commits,
    checkpointing_commit,
    reclaim,
    unused,
    delayed,
    synced,
    writer_queue,
});

impl fmt::Debug for WaitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitState")
            .field("commits", &self.commits)
            .field("writer_queue", &self.writer_queue)
            .finish_non_exhaustive()
    }
}

/// What follows a wait state in a file begins a cache line.
#[cfg(not(loom))]
const _: () = assert!(size_of::<WaitState>().is_multiple_of(64));

impl WaitState {
    /// Notified at each commit.
    pub fn commits(&self) -> &EventCount {
        &self.commits
    }

    /// The last commit whose writer checkpoints.
    pub(crate) fn checkpointing_commit(&self) -> &CheckpointingCommit {
        &self.checkpointing_commit
    }

    /// Notified when a checkpoint waits for readers: every process then releases the read
    /// locks that it does not use.
    pub fn reclaim(&self) -> &EventCount {
        &self.reclaim
    }

    /// The slots whose release some process delays.
    pub fn delayed(&self) -> &DelayedReleases {
        &self.delayed
    }

    /// How far the log is synced, and the event that a sync has ended.
    pub fn synced(&self) -> &SyncedLog {
        &self.synced
    }

    /// The writers that wait for `WRITE`.
    pub fn writer_queue(&self) -> &WriterQueue {
        &self.writer_queue
    }
}

/// The last commit whose writer checkpoints: it keeps the log short, and waits for readers to
/// that end. A commit of a peer that does not know of this word does not match it.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CheckpointingCommit {
    /// One more than the change counter of that commit.
    change_plus_one: AtomicU32,
}

crate::shared_memory!(CheckpointingCommit { change_plus_one });

impl CheckpointingCommit {
    /// Records the commit with the change counter `change`, before it is published.
    pub(crate) fn record(&self, change: u32) {
        self.change_plus_one
            .store(change.wrapping_add(1), Ordering::Relaxed);
    }

    /// True if the commit with the change counter `change` is the recorded one.
    pub(crate) fn matches(&self, change: u32) -> bool {
        self.change_plus_one.load(Ordering::Relaxed) == change.wrapping_add(1)
    }
}
