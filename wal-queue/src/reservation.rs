//! `WRITE` for a transaction that reads before it writes, and has lost before; off by default.
//!
//! # Protocol
//! A transaction that has read is refused `WRITE` if another connection holds it, or if its own
//! snapshot is not the newest (`SQLITE_BUSY_SNAPSHOT`). To wait does not help: the application
//! rolls the transaction back and repeats it. If peers commit while it reads each time, it never
//! commits. So the next read transaction of such a connection waits in the queue, and acquires
//! `WRITE` *before* its first read lock: `WRITE` is *reserved*. When SQLite asks for `WRITE` later,
//! the connection holds it already, and the snapshot is the newest.
//!
//! SQLite loads the header before it asks for a read lock, so its header may be older than the
//! reservation. The call that reserves `WRITE` therefore returns `SQLITE_BUSY`, and SQLite loads
//! the header again (`walTryBeginRead`). If that call asked for `READ(0)`, SQLite asks for another
//! read lock first, with the old header: that call returns `SQLITE_BUSY` as well.
//!
//! A reservation ends
//! - when SQLite asks for `WRITE`;
//! - with its read transaction, if that writes nothing;
//! - [`LASTS`] after it began: a thread of [`crate::expiry`] releases `WRITE` then, since the
//!   application may make no call for long. Where no thread can be started nothing is reserved.
//!
//! # Ordering
//! The mutex of the file is held around each step, as for `WRITE`.
//!
//! # Crash
//! The system frees the lock of a dead process.
#![allow(unsafe_code)] // SQLite returns whether a transaction is open.

use std::ffi::c_int;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::expiry;
use crate::ffi::{self, Connection};
use crate::main_file::{MainFile, State};
use crate::queue::Queue;
use crate::waiting;
use crate::write_lock::FIRST_READ;

/// How long `WRITE` is reserved. A transaction that reads for longer loses as without a
/// reservation.
pub(crate) const LASTS: Duration = Duration::from_millis(50);
/// How long a read transaction waits for its reservation.
const WAITS: Duration = Duration::from_millis(500);
/// How long after a refusal a read transaction counts as the next try.
const WANTED: Duration = Duration::from_secs(1);
/// `sqlite3_get_autocommit`.
pub(crate) type GetAutocommit = unsafe extern "C" fn(*mut Connection) -> c_int;

/// The reservation of one connection.
#[derive(Debug, Default)]
pub(crate) enum Reservation {
    #[default]
    None,
    /// A transaction was refused at this time.
    Wanted(Instant),
    /// `WRITE` is reserved.
    Held {
        until: Instant,
        /// How many more calls for a read lock are refused.
        refusals: u8,
        /// Lives as long as the reservation.
        _token: Arc<()>,
    },
}

impl Reservation {
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// A transaction that has read was refused `WRITE` at `now`.
    fn lose(&mut self, now: Instant) {
        *self = Self::Wanted(now);
    }

    /// True if the read transaction that begins at `now` is to reserve `WRITE`. It is asked
    /// once for each refusal.
    fn begins(&mut self, now: Instant) -> bool {
        let Self::Wanted(since) = *self else {
            return false;
        };
        *self = Self::None;
        now.duration_since(since) < WANTED
    }

    /// The busy handler sleeps: SQLite repeats the refused call with a new snapshot, so the next
    /// read transaction needs no reservation.
    pub(crate) fn forget(&mut self) {
        if !self.is_held() {
            *self = Self::None;
        }
    }

    /// `WRITE` is reserved at `now`, in a call for the read lock `first` that is refused. Returns
    /// a reference that is dead once the reservation has ended.
    fn hold(&mut self, now: Instant, first: c_int) -> Weak<()> {
        let token = Arc::new(());
        let ended = Arc::downgrade(&token);
        *self = Self::Held {
            until: now + LASTS,
            refusals: u8::from(first == FIRST_READ),
            _token: token,
        };
        ended
    }

    /// True if a call for a read lock is refused, so that SQLite loads the header again.
    fn refuses(&mut self) -> bool {
        match self {
            Self::Held { refusals, .. } if *refusals > 0 => {
                *refusals -= 1;
                true
            }
            _ => false,
        }
    }

    /// Ends the reservation if `WRITE` is reserved; false if it is not.
    fn end(&mut self) -> bool {
        let is_held = self.is_held();
        if is_held {
            *self = Self::None;
        }
        is_held
    }

    /// True if the reservation has lasted its time at `now`.
    fn is_over(&self, now: Instant) -> bool {
        matches!(self, Self::Held { until, .. } if now >= *until)
    }
}

impl MainFile {
    /// True if the connection is refused the read lock `first`, since this call or an earlier one
    /// has reserved `WRITE`.
    pub(crate) fn reserves(&self, state: &mut State, first: c_int) -> bool {
        if state.reservation.refuses() {
            return true;
        }
        let now = Instant::now();
        if !state.reservation.begins(now) || state.has_write {
            return false;
        }
        let Some(queue) = state.queue.clone() else {
            return false;
        };
        self.reserve(state, &queue, first)
    }

    fn reserve(&self, state: &mut State, queue: &Arc<Queue>, first: c_int) -> bool {
        let mut code = ffi::BUSY;
        waiting::wait_until_first(queue, Instant::now() + WAITS, || {
            code = self.try_write();
            code != ffi::BUSY
        });
        let from_queue = waiting::leave_queue(queue, code == ffi::OK);
        if code != ffi::OK {
            return false;
        }
        let token = state.reservation.hold(Instant::now(), first);
        queue.begin_slice(from_queue);
        let file = self.weak();
        let expire = move || {
            // Without the mutex: a connection that waits without an end holds it.
            let has_ended = token.strong_count() == 0;
            has_ended || file.upgrade().is_none_or(|main| main.expire_reservation())
        };
        if !expiry::call_after(LASTS, expire) {
            self.end_reservation(state);
            return false;
        }
        true
    }

    /// SQLite asks for `WRITE`. True if it was reserved: SQLite has it, and it does not expire.
    pub(crate) fn takes_reserved_write(&self, state: &mut State) -> bool {
        state.reservation.end()
    }

    /// SQLite was refused `WRITE`.
    pub(crate) fn lose_upgrade(&self, state: &mut State) {
        let Some(get_autocommit) = self.options().reserve else {
            return;
        };
        let connection = self.owner().connection();
        // SAFETY: the connection is that of the call of SQLite which asks for `WRITE`.
        if !connection.is_null() && (unsafe { get_autocommit(connection) }) == 0 {
            state.reservation.lose(Instant::now());
        }
    }

    /// Ends the reservation, if there is one, and releases `WRITE`.
    pub(crate) fn end_reservation(&self, state: &mut State) {
        if !state.reservation.end() {
            return;
        }
        self.unlock_write();
        if let Some(queue) = &state.queue {
            queue.wake_next();
        }
    }

    /// Ends the reservation if it has lasted its time; false if another thread holds the mutex.
    fn expire_reservation(&self) -> bool {
        let Some(mut state) = self.try_state() else {
            return false;
        };
        if state.reservation.is_over(Instant::now()) {
            self.end_reservation(&mut state);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_followed_by_one_reservation() {
        let start = Instant::now();
        let mut reservation = Reservation::default();
        assert!(!reservation.begins(start), "nothing was refused");
        reservation.lose(start);
        assert!(reservation.begins(start));
        assert!(!reservation.begins(start), "once for each refusal");
        reservation.lose(start);
        assert!(!reservation.begins(start + WANTED), "long after it");
    }

    #[test]
    fn reservation_refuses_read_locks_until_the_header_is_loaded_again() {
        let start = Instant::now();
        for (first, refusals) in [(FIRST_READ, 1), (FIRST_READ + 1, 0)] {
            let mut reservation = Reservation::default();
            reservation.hold(start, first);
            for _ in 0..refusals {
                assert!(reservation.refuses(), "lock {first}");
            }
            assert!(!reservation.refuses(), "lock {first}");
        }
    }

    #[test]
    fn reservation_is_over_after_its_time_and_ends_once() {
        let start = Instant::now();
        let mut reservation = Reservation::default();
        let token = reservation.hold(start, FIRST_READ + 1);
        assert!(!reservation.is_over(start + LASTS / 2));
        assert!(reservation.is_over(start + LASTS));
        assert_eq!(token.strong_count(), 1);
        assert!(reservation.end());
        assert_eq!(token.strong_count(), 0);
        assert!(!reservation.end());
        assert!(!reservation.is_over(start + LASTS));
    }

    #[test]
    fn end_of_no_reservation_keeps_the_wish_for_one() {
        let start = Instant::now();
        let mut reservation = Reservation::Wanted(start);
        assert!(!reservation.end());
        assert!(reservation.begins(start));
    }
}
