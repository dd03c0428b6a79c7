//! The attachments of this process, by the file that they are of.
//!
//! # Protocol
//! Each database has a list of attachments with a mutex of its own. The mutex is held while
//! an attachment is opened or joined, so opens of one database follow each other. The mutex
//! of the table is held for look-ups only: opening a database may wait for another process
//! or for the disk, and opens of other databases do not wait with it. Lock order: a list, then
//! the tables of `wal_core::storage`. Dropping an attachment locks neither a list nor the table, so
//! an attachment may be dropped with a list locked.
#![expect(
    clippy::disallowed_types,
    reason = "the table is a static, which outlives a model"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::storage::FileId;
use wal_core::sync::Unpoison;

use crate::attachment::Attachment;

/// An attachment with at least one user.
pub(crate) struct Member {
    attachment: Weak<Attachment>,
    /// How many users have opened it and not left.
    users: usize,
}

impl Member {
    /// `attachment` with its first user.
    pub(crate) fn new(attachment: &Arc<Attachment>) -> Self {
        Member {
            attachment: Arc::downgrade(attachment),
            users: 1,
        }
    }

    pub(crate) fn attachment(&self) -> Option<Arc<Attachment>> {
        self.attachment.upgrade()
    }

    pub(crate) fn join(&mut self) {
        self.users += 1;
    }
}

type Members = Mutex<Vec<Member>>;

/// One table for each generation of forks: a parent's mutex may have been held at the fork,
/// and its attachments are of no use to the child.
static TABLE: OnceTable<Mutex<BTreeMap<FileId, Arc<Members>>>> = OnceTable::new();

fn table() -> MutexGuard<'static, BTreeMap<FileId, Arc<Members>>> {
    let generation = ProcessGeneration::current().number();
    lock(TABLE.get_or_make(generation, Mutex::default))
}

/// Calls `change` with the attachments of the database `id`, with their mutex held.
pub(crate) fn with_members<T>(id: FileId, change: impl FnOnce(&mut Vec<Member>) -> T) -> T {
    let members = table().entry(id).or_default().clone();
    let changed = change(&mut lock(&members));
    drop(members);
    let mut table = table();
    // Threads get a list from the table only, so a list that no thread has stays unused.
    let is_unused = |members: &Arc<Members>| {
        Arc::strong_count(members) == 1 && members.try_lock().is_ok_and(|list| list.is_empty())
    };
    if table.get(&id).is_some_and(is_unused) {
        table.remove(&id);
    }
    changed
}

/// Removes one user of `attachment` and returns how many are left. Without users it cannot be
/// joined.
pub(crate) fn leave(id: FileId, attachment: &Arc<Attachment>) -> usize {
    let this = Arc::downgrade(attachment);
    with_members(id, |members| {
        let is_this = |member: &Member| member.attachment.ptr_eq(&this);
        let Some(at) = members.iter().position(is_this) else {
            return 0;
        };
        members[at].users -= 1;
        let left = members[at].users;
        if left == 0 {
            members.swap_remove(at);
        }
        left
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unpoison()
}
