//! What threads of an attachment leave to each other: see [`super::pipelined_commit`].

use std::collections::VecDeque;

use crate::index::IndexHeader;
use crate::sync::{AtomicBool, AtomicU32, Condvar, Mutex, MutexGuard, Ordering, Unpoison};
use crate::wait::QueueSlot;

/// A commit of this attachment, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) struct Commit {
    pub(in crate::protocol) number: u64,
    /// The state that it makes.
    pub(in crate::protocol) header: IndexHeader,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The newest commit, published or not. It is the state of the log while Write
    /// is kept; later others may have written.
    pub(super) newest: Option<Commit>,
    /// The number of the newest one that is published.
    pub(super) published: u64,
    /// Somebody syncs the log, and publishes then.
    pub(super) is_led: bool,
    /// A sync has failed: nothing is published any more.
    pub(super) has_failed: bool,
    /// The attachment has Write, and no guard has it. Then something is unpublished,
    /// or somebody leads though it has failed: who ends that gives Write back.
    pub(super) is_kept: bool,
    /// The places in line of threads that would take it over.
    pub(super) heirs: VecDeque<QueueSlot>,
    /// How many threads sleep until the leader, or a failure, changes the state.
    pub(super) sleepers: u32,
}

impl State {
    pub(super) fn unpublished(&self) -> Option<Commit> {
        self.newest.filter(|newest| newest.number > self.published)
    }

    pub(super) fn is_published(&self, number: u64) -> bool {
        self.published >= number
    }
}

/// What threads of an attachment leave to each other.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    state: Mutex<State>,
    /// Something is unpublished. Whoever has Write has set it, or has taken Write
    /// over from who did, so nobody who has Write misses it.
    pub(super) has_unpublished: AtomicBool,
    /// Counts how often a leader, or a failure, has changed the state.
    pub(super) changes: AtomicU32,
    pub(super) changed: Condvar,
}

impl Pipeline {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unpoison()
    }

    pub(super) fn tell_unpublished(&self, state: &State) {
        let unpublished = state.unpublished().is_some();
        self.has_unpublished.store(unpublished, Ordering::Release);
    }
}
