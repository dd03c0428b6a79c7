//! Which thread began the write transaction of an attachment, so that a thread that waits
//! for its own transaction learns that before its timeout.
//!
//! # Protocol
//! A write transaction notes its thread at its attachment once it has `WRITE`, and clears the
//! note before `WRITE` is released. A thread that waits for `WRITE` compares the notes of the
//! attachments at which it ever began one, by the path of the database: the transaction may
//! be that of another handle.
//!
//! A transaction may be moved to another thread. That leaves no trace until the other thread
//! changes something or ends the transaction, which clears the note. So the note is
//! believed at once only where the transaction cannot be moved, in the closure of
//! [`Wal::write`]. Elsewhere the wait ends early once the note has stayed for
//! [`UNTOUCHED`], unless the caller's function decides how long to wait. A call that does
//! not wait gets `Busy`, as beside any other writer.
//!
//! An operation that calls a function of the caller with `WRITE` held, as a checkpoint does
//! with its progress, notes its thread in the same way.
//!
//! # Ordering
//! Relaxed: a thread stores its own number and looks for its own number, which no other
//! thread stores. That the note is cleared is seen late at worst.

use std::time::{Duration, Instant};

use crate::coordination::WalCoordination;
use crate::error::Error;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::Waiter;
use crate::protocol::locking::write_note::{Own, OwnWrite};
use crate::types::Lock;

/// How long a write transaction that its thread began has to stay untouched by other threads
/// until that thread stops waiting for it. A longer time delays the error, a shorter one
/// refuses more transactions that were moved to another thread and pause there.
const UNTOUCHED: Duration = Duration::from_millis(250);

impl<C: WalCoordination> Wal<C> {
    /// True if the caller, which failed to acquire `WRITE`, waits for a transaction of its
    /// own thread.
    pub(in crate::protocol) fn waits_for_itself(&self, waiter: &mut Waiter) -> bool {
        if waiter.is_hasty() {
            return false;
        }
        let is_asked = waiter.is_asked();
        let wait = &mut waiter.for_itself;
        wait.found = match OwnWrite::of_thread(self.path()) {
            Own::Yes => true,
            Own::Untouched if !is_asked => {
                let since = *wait.since.get_or_insert_with(Instant::now);
                since.elapsed() >= UNTOUCHED
            }
            Own::Untouched => false,
            Own::No => {
                wait.since = None;
                false
            }
        };
        wait.found
    }

    /// The error for `lock`, which stayed busy until `waiter` gave up.
    pub(in crate::protocol) fn busy_after(&self, lock: Lock, waiter: &Waiter) -> Error {
        match lock == Lock::Write && waiter.for_itself.found {
            true => Error::OwnWrite {
                path: self.path().to_owned(),
            },
            false => self.busy(lock),
        }
    }
}
