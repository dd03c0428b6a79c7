//! The lock `WRITE` of a connection, and the other locks of the wal-index.
//!
//! # Protocol
//! The lock byte is the truth: the queue says only which writer tries next. A connection that
//! asks for `WRITE` while peers are before it in the queue is answered `SQLITE_BUSY` without a
//! try. SQLite then ends the read transaction that it has begun, and asks its busy
//! handler, which sleeps by [`crate::waiting`]. Waiting here would be wrong: SQLite asks for
//! `WRITE` after it has taken its snapshot, which the next commit makes too old
//! (`sqlite3WalBeginWriteTransaction`). The exception is a SQLite that has set a timeout for
//! locks: it asks for `WRITE` first.
//!
//! A connection without a busy handler does not sleep through the extension. So one that was
//! refused, and asks again without a sleep in between, tries, by whichever thread it is used.
//!
//! # Ordering
//! The mutex of a file is held around each lock call beneath, since the thread that waits may
//! probe the lock of a connection that another thread uses by then. SQLite itself makes one such
//! call of a connection at a time, and the VFS beneath relies on that.
//!
//! # Crash
//! The system frees the lock of a dead process; its peers in the queue try at intervals.
#![allow(unsafe_code)] // SQLite is called with the raw pointer of a connection.

use std::ffi::c_int;
use std::ptr::null;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ffi;
use crate::main_file::{MainFile, State};
use crate::queue::Queue;
use crate::waiting;

/// `WRITE`, by the numbers of SQLite.
const WRITE: (c_int, c_int) = (0, 1);
/// `CKPT`, by the numbers of SQLite.
const CKPT: c_int = 1;
/// `READ(0)`, the first of the locks `READ(k)`, by the numbers of SQLite.
pub(crate) const FIRST_READ: c_int = 3;

/// What SQLite waits for a lock if it waits without an end (`unixFileControl`).
const WITHOUT_END: Duration = Duration::from_millis(i32::MAX as u64);

/// What became of a try to acquire `WRITE`, and to release it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    /// It was free.
    Free,
    /// Another connection has it.
    Taken,
    /// The connection cannot be asked any more.
    Gone,
}

impl MainFile {
    /// `xShmLock`.
    pub(crate) fn shm_lock(&self, first: c_int, count: c_int, flags: c_int) -> c_int {
        const ACQUIRE: c_int = ffi::SHM_LOCK | ffi::SHM_EXCLUSIVE;
        const RELEASE: c_int = ffi::SHM_UNLOCK | ffi::SHM_EXCLUSIVE;
        const READ: c_int = ffi::SHM_LOCK | ffi::SHM_SHARED;
        const READ_RELEASE: c_int = ffi::SHM_UNLOCK | ffi::SHM_SHARED;
        match ((first, count), flags) {
            (WRITE, ACQUIRE) => self.acquire_write(),
            (WRITE, RELEASE) => self.release_write(),
            (_, READ) if first >= FIRST_READ => {
                let mut state = self.state();
                waiting::begin_read(state.queue.as_ref());
                if self.reserves(&mut state, first) {
                    return ffi::BUSY;
                }
                let code = self.base().shm_lock(first, count, flags);
                state.read_at = state.publication();
                code
            }
            (_, READ_RELEASE) if first >= FIRST_READ && self.options().reserve.is_some() => {
                let mut state = self.state();
                let code = self.base().shm_lock(first, count, flags);
                self.end_reservation(&mut state);
                code
            }
            (_, ACQUIRE | RELEASE) if (first..first + count).contains(&CKPT) => {
                let mut state = self.state();
                let code = self.base().shm_lock(first, count, flags);
                let has_checkpoint = code == ffi::OK && flags == ACQUIRE;
                state.group.set_checkpoint(has_checkpoint);
                code
            }
            _ => {
                let _state = self.state();
                self.base().shm_lock(first, count, flags)
            }
        }
    }

    fn acquire_write(&self) -> c_int {
        let code = self.acquire_write_in_order();
        if code == ffi::OK {
            self.owner().begin_write();
        }
        code
    }

    fn acquire_write_in_order(&self) -> c_int {
        let mut state = self.state();
        let Some(queue) = state.queue.clone() else {
            return self.try_write();
        };
        if self.takes_reserved_write(&mut state) {
            state.acquired(&queue);
            return ffi::OK;
        }
        if state.lock_timeout != 0 {
            return self.wait_for_write(&mut state, &queue);
        }
        let may_try = state.was_refused || waiting::may_try(&queue) || self.is_upgrade();
        let code = match may_try {
            true => self.try_write(),
            false => ffi::BUSY,
        };
        match code {
            ffi::OK => state.acquired(&queue),
            ffi::BUSY => self.refuse(&mut state, &queue),
            _ => {}
        }
        code
    }

    /// True if a read transaction asks for `WRITE`. SQLite does not ask its busy handler then, so
    /// a refusal without a try would fail the statement.
    fn is_upgrade(&self) -> bool {
        let connection = self.owner().connection();
        let Some(state) = self.options().txn_state.filter(|_| !connection.is_null()) else {
            return false;
        };
        // SAFETY: the connection is that of the call of SQLite which asks for `WRITE`.
        (unsafe { state(connection, null()) }) == ffi::TXN_READ
    }

    /// Notes that the connection was refused `WRITE`, so that its busy handler sleeps in the
    /// queue.
    fn refuse(&self, state: &mut State, queue: &Arc<Queue>) {
        state.was_refused = true;
        waiting::refuse(self, queue);
        self.lose_upgrade(state);
    }

    /// The thread that was refused sleeps by the extension.
    pub(crate) fn sleeps(&self) {
        // Held while another thread is in a lock call of this connection.
        if let Some(mut state) = self.try_state() {
            state.was_refused = false;
            state.reservation.forget();
        }
    }

    pub(crate) fn try_write(&self) -> c_int {
        let (first, count) = WRITE;
        self.base()
            .shm_lock(first, count, ffi::SHM_LOCK | ffi::SHM_EXCLUSIVE)
    }

    pub(crate) fn unlock_write(&self) -> c_int {
        let (first, count) = WRITE;
        self.base()
            .shm_lock(first, count, ffi::SHM_UNLOCK | ffi::SHM_EXCLUSIVE)
    }

    /// Acquires `WRITE` in the order of the queue, within the timeout that SQLite has set.
    fn wait_for_write(&self, state: &mut State, queue: &Arc<Queue>) -> c_int {
        // The VFS beneath would wait in its own call, out of order.
        let millis = state.lock_timeout;
        self.set_timeout_beneath(0);
        let timeout = u64::try_from(millis).map_or(WITHOUT_END, Duration::from_millis);
        let deadline = Instant::now() + timeout;
        let mut code = ffi::BUSY;
        let ended = waiting::wait_until_first(queue, deadline, || {
            code = self.try_write();
            code != ffi::BUSY
        });
        if !ended {
            code = self.try_write();
        }
        self.set_timeout_beneath(millis);
        if code == ffi::OK {
            state.acquired(queue);
        } else {
            waiting::give_up();
            self.lose_upgrade(state);
        }
        match code {
            // Otherwise SQLite asks its busy handler, which waits as long again and again.
            ffi::BUSY if Instant::now() >= deadline => ffi::BUSY_TIMEOUT,
            code => code,
        }
    }

    fn set_timeout_beneath(&self, mut millis: c_int) {
        let argument = (&raw mut millis).cast();
        self.base().file_control(ffi::FCNTL_LOCK_TIMEOUT, argument);
    }

    fn release_write(&self) -> c_int {
        self.owner().end_write();
        let mut state = self.state();
        let header = state.group.wants_header().then(|| state.header()).flatten();
        let is_new = state.publication() != state.began_at;
        state.group.publish(header, is_new);
        let code = self.unlock_write();
        if !std::mem::take(&mut state.has_write) {
            return code;
        }
        let Some(queue) = state.queue.clone() else {
            return code;
        };
        if is_new {
            queue.notify_commit();
        } else if state.began_at != state.read_at {
            // SQLite has found that its snapshot is not the newest. If it may read anew, it asks
            // its busy handler, although `WRITE` was free (`sqlite3BtreeBeginTrans`).
            self.refuse(&mut state, &queue);
        }
        drop(state);
        queue.wake_next();
        code
    }

    /// Tries `WRITE` for a thread that waits in the queue, and begins its time slice if it was
    /// free. SQLite then asks for it again, with a new snapshot.
    pub(crate) fn probe(&self, queue: &Queue) -> Probe {
        // Held while another thread is in a lock call of this connection.
        let Some(state) = self.try_state() else {
            return Probe::Taken;
        };
        // A lock that this connection has would be granted again, and lost by the release.
        if !state.is_open || state.queue.is_none() || state.has_write || state.reservation.is_held()
        {
            return Probe::Gone;
        }
        match self.try_write() {
            ffi::OK => {
                queue.begin_slice(true);
                self.unlock_write();
                Probe::Free
            }
            ffi::BUSY => Probe::Taken,
            _ => Probe::Gone,
        }
    }
}

impl State {
    /// This connection has acquired `WRITE`.
    pub(crate) fn acquired(&mut self, queue: &Queue) {
        self.has_write = true;
        self.was_refused = false;
        self.began_at = self.publication();
        self.group.begin();
        queue.begin_slice(waiting::served(queue));
    }
}
