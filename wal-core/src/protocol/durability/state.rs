//! What the commits of one attachment share.

use super::pipeline::Pipeline;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, Unpoison};

/// What the commits of one attachment share.
#[derive(Debug, Default)]
pub(in crate::protocol) struct DurabilityState {
    /// A sync has failed. It is set once and stays.
    poisoned: AtomicBool,
    leading: Mutex<()>,
    pipeline: Pipeline,
}

impl DurabilityState {
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Relaxed);
    }

    /// Held by the thread of an attachment that leads: a thread cannot die alone, so
    /// it is not replaced by another one of its process.
    pub(super) fn lead(&self) -> MutexGuard<'_, ()> {
        self.leading.lock().unpoison()
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }
}
