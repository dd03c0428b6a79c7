//! What the connections of this process share, by the database file that it is of.
#![expect(
    clippy::disallowed_types,
    reason = "the tables are statics, which outlive a model"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::storage::{FileId, HeldPath};
use wal_core::sync::Unpoison;

/// A table of shared values, which go with their last user. There is one for each generation of
/// forks: a parent's mutex may have been held at the fork, and its values are of no use to the
/// child.
pub(crate) struct PerDatabase<T>(OnceTable<Mutex<BTreeMap<FileId, Weak<T>>>>);

impl<T> PerDatabase<T> {
    pub(crate) const fn new() -> Self {
        PerDatabase(OnceTable::new())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<FileId, Weak<T>>> {
        let generation = ProcessGeneration::current().number();
        let table = self.0.get_or_make(generation, Mutex::default);
        table.lock().unpoison()
    }

    /// The value of the database at `place`; what `open` gives if there is none. `None` if the
    /// file is not there, or `open` gives none.
    pub(crate) fn get_or_open(
        &self,
        place: HeldPath,
        open: impl FnOnce(HeldPath, FileId) -> Option<T>,
    ) -> Option<Arc<T>> {
        let id = place.find().ok()??.id;
        if let Some(value) = self.table().get(&id).and_then(Weak::upgrade) {
            return Some(value);
        }
        // Without the mutex, since it may wait for the disk or for another process. Two threads
        // may both open one; then one of the two is kept.
        let opened = Arc::new(open(place, id)?);
        let mut table = self.table();
        if let Some(value) = table.get(&id).and_then(Weak::upgrade) {
            // The other one is dropped without the mutex.
            drop(table);
            return Some(value);
        }
        table.retain(|_, value| value.strong_count() > 0);
        table.insert(id, Arc::downgrade(&opened));
        Some(opened)
    }

    /// How many databases have a value.
    pub(crate) fn len(&self) -> usize {
        let table = self.table();
        table
            .values()
            .filter(|value| value.strong_count() > 0)
            .count()
    }

    /// Forgets `value`: the next user opens another one.
    pub(crate) fn forget(&self, value: &T) {
        let mut table = self.table();
        table.retain(|_, known| !std::ptr::eq(known.as_ptr(), value));
    }
}
