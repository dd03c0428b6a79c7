//! What the extension knows of an open database file.
#![allow(unsafe_code)] // The wal-index is memory that SQLite has mapped.

use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError, Weak};

use wal_core::index::IndexHeader;
use wal_core::inspect::IndexInfo;
use wal_core::storage::HeldPath;
use wal_core::sync::{Mutex, MutexGuard, Unpoison};

use crate::base_file::BaseFile;
use crate::block::Block;
use crate::group_commit::Group;
use crate::guard::Guarded;
use crate::open_files::Owner;
use crate::options::Options;
use crate::queue::Queue;
use crate::reservation::Reservation;
use crate::waiting;

/// An open database file.
pub(crate) struct MainFile {
    base: BaseFile,
    path: PathBuf,
    may_write: bool,
    options: Options,
    guard: Guarded,
    owner: Owner,
    state: Mutex<State>,
    this: Weak<MainFile>,
}

pub(crate) struct State {
    /// False once SQLite has closed the file: the VFS beneath is not called any more.
    pub(crate) is_open: bool,
    pub(crate) queue: Option<Arc<Queue>>,
    /// Block 0 of the wal-index, as SQLite has mapped it.
    pub(crate) block: Option<Block>,
    /// This connection has `WRITE`.
    pub(crate) has_write: bool,
    pub(crate) group: Group,
    pub(crate) reservation: Reservation,
    /// What was published when the connection acquired its last read lock.
    pub(crate) read_at: u64,
    /// What was published when the connection acquired `WRITE`.
    pub(crate) began_at: u64,
    /// The connection was refused `WRITE`, and has not slept by the extension since.
    pub(crate) was_refused: bool,
    /// How long SQLite waits in its lock calls; 0 if it does not, negative without an end.
    pub(crate) lock_timeout: c_int,
}

impl MainFile {
    pub(crate) fn new(base: BaseFile, path: &Path, may_write: bool, options: Options) -> Arc<Self> {
        Arc::new_cyclic(|this| MainFile {
            base,
            path: path.to_owned(),
            may_write,
            options,
            guard: Guarded::default(),
            owner: Owner::default(),
            state: Mutex::new(State {
                is_open: true,
                queue: None,
                block: None,
                has_write: false,
                group: Group::default(),
                reservation: Reservation::None,
                read_at: 0,
                began_at: 0,
                was_refused: false,
                lock_timeout: 0,
            }),
            this: this.clone(),
        })
    }

    /// The file as the VFS beneath has it.
    pub(crate) fn base(&self) -> BaseFile {
        self.base
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What this connection holds on the database file beside SQLite.
    pub(crate) fn guard(&self) -> &Guarded {
        &self.guard
    }

    /// Whose file it is.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// True if SQLite opens the log of this connection by `log`, and the connection shares its syncs.
    pub(crate) fn has_log_in_group(&self, log: &CStr) -> bool {
        self.options.group_commit && log.as_ptr().addr() == self.options.log_name
    }

    pub(crate) fn options(&self) -> Options {
        self.options
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unpoison()
    }

    /// The state; `None` while another thread has it.
    pub(crate) fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// SQLite has mapped, or tried to map, a region of the wal-index; `out` points to where it
    /// is. It holds SHARED on the file, so the side file is not removed concurrently.
    pub(crate) fn mapped(&self, region: c_int, len: c_int, code: c_int, out: *mut *mut c_void) {
        // SAFETY: the caller passes the arguments and the result of the method.
        let Some(block) = (unsafe { Block::of_map(region, len, code, out) }) else {
            return;
        };
        let mut state = self.state();
        state.block = Some(block);
        // Without its directory a database has neither a guard nor a queue.
        let Ok(place) = HeldPath::of(&self.path) else {
            return;
        };
        self.guard.acquire(place.clone());
        // A connection that may not write does not wait for `WRITE`.
        if self.may_write && state.queue.is_none() {
            state.queue = Queue::of(place);
        }
    }

    /// SQLite unmaps the wal-index next. With `delete` it removes the file, which it does only
    /// with EXCLUSIVE held on the database file.
    pub(crate) fn unmapping(&self, delete: bool) {
        self.guard.release();
        let mut state = self.state();
        self.end_reservation(&mut state);
        state.block = None;
        if let Some(queue) = state.queue.take()
            && delete
        {
            queue.remove();
        }
    }

    /// SQLite closes the file next.
    pub(crate) fn close(&self) {
        self.guard.release();
        waiting::give_up();
        let mut state = self.state();
        self.end_reservation(&mut state);
        state.is_open = false;
        state.block = None;
        state.queue = None;
    }

    /// SQLite waits for locks for `millis` by itself (`SQLITE_ENABLE_SETLK_TIMEOUT`).
    pub(crate) fn set_lock_timeout(&self, millis: c_int) {
        self.state().lock_timeout = millis;
    }

    /// This file, unless it is being closed.
    pub(crate) fn shared(&self) -> Option<Arc<MainFile>> {
        self.this.upgrade()
    }

    /// True if SQLite has mapped the wal-index.
    pub(crate) fn has_index(&self) -> bool {
        self.state().block.is_some()
    }

    /// A number that changes with each commit of any process; 0 without a wal-index.
    pub(crate) fn version(&self) -> i64 {
        self.state().publication().cast_signed()
    }

    /// What the wal-index says; `None` if SQLite has not mapped it.
    pub(crate) fn inspect(&self) -> Option<IndexInfo> {
        self.state().block.map(Block::inspect)
    }

    /// The queue of the database.
    pub(crate) fn queue(&self) -> Option<Arc<Queue>> {
        self.state().queue.clone()
    }

    /// This file, for a thread that may outlive it.
    pub(crate) fn weak(&self) -> Weak<MainFile> {
        self.this.clone()
    }
}

impl State {
    pub(crate) fn publication(&self) -> u64 {
        self.block.map_or(0, Block::publication)
    }

    /// The header that is published; `None` if it cannot be read at this moment.
    pub(crate) fn header(&self) -> Option<IndexHeader> {
        self.block?.header()
    }
}
