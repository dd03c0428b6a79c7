//! A look at the side file by a program that does not use it.
//!
//! # Protocol
//! A user of the file holds its lock byte shared, and the first one empties the file. A look
//! holds nothing, makes no file and empties none: it copies the bytes by a call, so a process
//! that cuts the file is no signal here. The words may be of different moments, or
//! of processes that have ended; all of them are hints.

use std::path::Path;

use wal_core::shared_memory::copy_of;
use wal_core::storage::{File, HeldPath, OpenMode, OsFile};
use wal_core::wait::WaitState;
use wal_core::{Lock, ReadSlot, Result};

use crate::namespaces::Namespaces;
use crate::process_table::{ProcessTable, bits};
use crate::side_file::SideMemory;

/// What the side file of a database held at one moment.
#[derive(Debug)]
pub struct SideView {
    memory: Box<SideMemory>,
    here: Namespaces,
}

/// A process that uses the side file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AttachedProcess {
    /// Its number.
    pub pid: u32,
    /// Those of the eight locks of the protocol that it has noted to hold.
    pub locks: Vec<Lock>,
}

impl SideView {
    /// Looks at the side file of `database`. `None` if there is none, or it is of another
    /// version of this library.
    ///
    /// # Errors
    /// [`wal_core::Error::Io`] if it cannot be read, [`wal_core::Error::CannotOpen`] if it is
    /// no regular file.
    ///
    /// ```no_run
    /// use wal_core::wait::now;
    /// use wal_shm::inspect::SideView;
    ///
    /// if let Some(view) = SideView::of("app.db".as_ref())? {
    ///     for writer in view.wait_state().writer_queue().waiting_writers(now()) {
    ///         println!("process {:?} waits since {:?}", writer.process.pid(), writer.waited);
    ///     }
    /// }
    /// # Ok::<(), wal_core::Error>(())
    /// ```
    pub fn of(database: &Path) -> Result<Option<Self>> {
        let place = HeldPath::of(database)?.beside("-coord");
        let found = place.find();
        let found = found.map_err(|e| wal_core::Error::io(place.path(), "stat", e))?;
        if found.is_none() {
            return Ok(None);
        }
        let file = OsFile::open_for_locks_at(place, OpenMode::Observed)?;
        // No SQLite knows the file. While an attachment of this process uses it, its descriptor
        // is parked anyway: a close would drop classic locks of that.
        file.set_close_on_drop(true);
        let mut bytes = vec![0; size_of::<SideMemory>()];
        let len = file.read_at(&mut bytes, 0)?;
        let memory = copy_of::<SideMemory>(&bytes[..len]);
        let here = Namespaces::here();
        let view = memory.map(|memory| SideView { memory, here });
        Ok(view.filter(|view| view.memory.is_ours()))
    }

    /// The wait state of that moment. Its words are a copy: to change them has no effect, and
    /// no sleeper of them is woken.
    pub fn wait_state(&self) -> &WaitState {
        self.memory.wait_state()
    }

    /// The processes that use the side file, but for those of other containers.
    pub fn processes(&self) -> Vec<AttachedProcess> {
        let table = ProcessTable::of(self.memory.processes(), self.here);
        let locks = [Lock::Write, Lock::Checkpoint, Lock::Recover].into_iter();
        let locks: Vec<Lock> = locks.chain(ReadSlot::ALL.map(Lock::Read)).collect();
        let attached = table.attached().map(|(pid, held)| {
            let is_held = |lock: &&Lock| u32::from(bits(**lock)) & held != 0;
            AttachedProcess {
                pid,
                locks: locks.iter().filter(is_held).copied().collect(),
            }
        });
        attached.collect()
    }

    /// How many entries are of processes of other containers, or hidden ones. Such a process
    /// may have ended without removing its entry.
    pub fn unnamed_processes(&self) -> usize {
        ProcessTable::of(self.memory.processes(), self.here).unnamed()
    }
}
