//! The database files that this process has open by the extension, and which of them one
//! connection writes.
//!
//! # Protocol
//! A transaction over several files commits in two phases: SQLite syncs each file in the first,
//! and calls them done in the second. A commit whose sync is postponed fails in the second
//! phase, when other files of the transaction may be done. So it is postponed only if the
//! connection writes no other file ([`is_only_file_written`]), and has opened no super-journal
//! ([`has_super_journal`]), after which SQLite ignores what fails.
#![allow(unsafe_code)] // SQLite passes the place at which it stores a connection.
#![expect(
    clippy::disallowed_types,
    reason = "the list of files is a static, which outlives a model"
)]

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::sync::Unpoison;

use crate::ffi::Connection;
use crate::main_file::MainFile;

/// One list for each generation of forks, as for the side files.
static FILES: OnceTable<Mutex<Vec<Weak<MainFile>>>> = OnceTable::new();

thread_local! {
    /// This thread has opened a super-journal since it began to write a file.
    static SUPER_JOURNAL: Cell<bool> = const { Cell::new(false) };
}

fn files() -> &'static Mutex<Vec<Weak<MainFile>>> {
    FILES.get_or_make(ProcessGeneration::current().number(), Mutex::default)
}

/// Adds `file`, which was opened just now.
pub(crate) fn add(file: &Arc<MainFile>) {
    let mut files = files().lock().unpoison();
    files.retain(|file| file.strong_count() > 0);
    files.push(Arc::downgrade(file));
}

/// The open files, in the order in which they were opened. Dropped without the mutex.
fn open() -> Vec<Arc<MainFile>> {
    let files = files().lock().unpoison();
    files.iter().filter_map(Weak::upgrade).collect()
}

/// The file that was opened last of those for which `is_so` holds.
pub(crate) fn newest(is_so: impl Fn(&MainFile) -> bool) -> Option<Arc<MainFile>> {
    open().into_iter().rev().find(|file| is_so(file))
}

/// The connection that uses a file, and the one that writes it.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    /// Where SQLite stores the connection that uses the file at this moment.
    place: AtomicPtr<*mut Connection>,
    /// The address of the connection that writes the file; 0 for none. It identifies the
    /// connection and is not dereferenced.
    writer: AtomicUsize,
}

impl Owner {
    /// SQLite stores the connection that uses the file at `place` (`SQLITE_FCNTL_PDB`).
    pub(crate) fn set_place(&self, place: *mut *mut Connection) {
        self.place.store(place, Ordering::Relaxed);
    }

    /// The connection that uses the file; null if it is unknown. The caller is in a call of
    /// SQLite for this file.
    pub(crate) fn connection(&self) -> *mut Connection {
        let place = self.place.load(Ordering::Relaxed);
        match place.is_null() {
            true => null_mut(),
            // SAFETY: the place is a member of the structure through which SQLite has the file,
            // which stays until the file is closed. In a call for this file no other thread
            // changes it.
            false => unsafe { place.read() },
        }
    }

    /// The connection that uses the file begins to write it.
    pub(crate) fn begin_write(&self) {
        SUPER_JOURNAL.set(false);
        self.writer
            .store(self.connection().addr(), Ordering::Relaxed);
    }

    /// The connection writes the file no more.
    pub(crate) fn end_write(&self) {
        self.writer.store(0, Ordering::Relaxed);
    }
}

/// True if the connection that writes the file of `owner` is known, and writes no other file.
pub(crate) fn is_only_file_written(owner: &Owner) -> bool {
    // The connection itself has stored each of these words, in calls before this one.
    let writer = owner.writer.load(Ordering::Relaxed);
    let is_another = |file: &Arc<MainFile>| {
        let other = file.owner();
        !std::ptr::eq(other, owner) && other.writer.load(Ordering::Relaxed) == writer
    };
    writer != 0 && !open().iter().any(is_another)
}

/// This thread has opened a super-journal.
pub(crate) fn opened_super_journal() {
    SUPER_JOURNAL.set(true);
}

/// True if this thread has opened a super-journal since it began to write.
pub(crate) fn has_super_journal() -> bool {
    SUPER_JOURNAL.get()
}
