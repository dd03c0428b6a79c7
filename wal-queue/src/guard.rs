//! The guard: SHARED on a database file, held by this library beside SQLite.
//!
//! # Protocol
//! SQLite holds SHARED on the database file, by a POSIX lock, as long as a connection is open.
//! POSIX locks of a process vanish when anything in the process closes the file, and the next
//! last closer of another process, if that is a SQLite before 3.51, then deletes the log of a
//! database that is in use (later ones look at `-shm` too, `unixIsSharingShmNode`). So this
//! library holds SHARED too, by a lock of an open file description, which no `close` elsewhere
//! drops. Its own descriptor is never closed: that would drop SQLite's locks.
//!
//! The guard is shared by the connections of the process that have the log of the database
//! mapped. It conflicts with EXCLUSIVE of every process, this one included. So the last such
//! connection releases the guard before SQLite asks for EXCLUSIVE, and acquires it again when
//! SQLite does not get it, or returns to SHARED. In between it is as without a guard.
//!
//! Since its descriptor stays open, the number of guarded databases is limited ([`MOST`]). A
//! database beyond that is as without a guard.
//!
//! A database in another journal mode has no guard, since its writers need EXCLUSIVE at each
//! commit.
//!
//! # Crash
//! The system frees the lock of a dead process.

use std::ffi::c_int;
use std::sync::Arc;

use wal_core::LockMode;
use wal_core::storage::{
    ByteLocks, HeldPath, LockKind, OpenMode, OsFile, database_bytes, parked_elsewhere,
};
use wal_core::sync::{Mutex, Unpoison};

use crate::base_file::BaseFile;
use crate::ffi;
use crate::per_database::PerDatabase;

const LOCKS: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);

/// How many databases of a process have a guard at most, those that were closed included: each
/// has a descriptor of its own until its file is removed. A larger number guards more databases
/// and leaves fewer descriptors to the application.
const MOST: usize = 64;

/// SHARED on a database file.
#[derive(Debug)]
struct Guard {
    file: OsFile,
}

static GUARDS: PerDatabase<Guard> = PerDatabase::new();

impl Guard {
    /// The guard of the database at `place`, on which SQLite holds SHARED; `None` if the system
    /// has no such locks.
    fn of(place: HeldPath) -> Option<Arc<Self>> {
        if !LOCKS.belong_to_description() {
            return None;
        }
        GUARDS.get_or_open(place, |place, id| {
            if GUARDS.len() + parked_elsewhere(id) >= MOST {
                return None;
            }
            let file = OsFile::open_for_locks_at(place, OpenMode::ReadOnly).ok()?;
            let guard = Guard { file };
            let open = guard.file.as_file().ok()?;
            let locked = LOCKS.try_lock(open, database_bytes::SHARED, LockMode::Shared);
            let is_it = guard.file.id().is_ok_and(|opened| opened == id);
            (locked.is_ok_and(|locked| locked) && is_it).then_some(guard)
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The descriptor is parked next, and must not keep the lock. In a child there is none.
        if let Ok(file) = self.file.as_file() {
            let _ = LOCKS.unlock(file, database_bytes::SHARED);
        }
    }
}

/// The hold of one connection on the guard of its database.
#[derive(Default)]
pub(crate) struct Guarded {
    held: Mutex<Hold>,
}

#[derive(Default)]
struct Hold {
    /// Where the database is, while the connection has the log mapped.
    place: Option<HeldPath>,
    guard: Option<Arc<Guard>>,
}

impl Guarded {
    /// Acquires the guard. SQLite has mapped the wal-index, with SHARED held.
    pub(crate) fn acquire(&self, place: HeldPath) {
        let mut hold = self.held.lock().unpoison();
        hold.place = Some(place);
        hold.acquire();
    }

    /// Releases the guard: SQLite does without a log from now on.
    pub(crate) fn release(&self) {
        *self.held.lock().unpoison() = Hold::default();
    }

    /// `xLock`.
    pub(crate) fn lock(&self, base: BaseFile, level: c_int) -> c_int {
        if level != ffi::LOCK_EXCLUSIVE {
            return base.lock(level);
        }
        let mut hold = self.held.lock().unpoison();
        let released = hold.release_if_last();
        let mut code = base.lock(level);
        // Another connection of this process may have closed in between.
        if code == ffi::BUSY && !released && hold.release_if_last() {
            code = base.lock(level);
        }
        if code != ffi::OK {
            hold.acquire();
        }
        code
    }

    /// `xUnlock`.
    pub(crate) fn unlock(&self, base: BaseFile, level: c_int) -> c_int {
        let code = base.unlock(level);
        if level == ffi::LOCK_SHARED {
            self.held.lock().unpoison().acquire();
        }
        code
    }
}

impl Hold {
    fn acquire(&mut self) {
        if let Some(place) = &self.place
            && self.guard.is_none()
        {
            self.guard = Guard::of(place.clone());
        }
    }

    /// Releases the guard if no other connection of the process needs it. With another one
    /// SQLite does not get EXCLUSIVE.
    fn release_if_last(&mut self) -> bool {
        let last = self.guard.take_if(|guard| Arc::strong_count(guard) == 1);
        last.is_some()
    }
}
