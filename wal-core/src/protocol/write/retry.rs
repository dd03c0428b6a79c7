//! Runs a closure in a write transaction, again where that can succeed.
//!
//! # Protocol
//! One waiter covers all runs, so the caller's timeout bounds them together. Between two runs
//! nothing is held: the transaction is rolled back, and its locks are released, before
//! the waiter pauses.
//!
//! What the wait for `WRITE` ends with is final: the waiter has given up. So is
//! [`Error::CommitOutcomeUnknown`], after which a second run might apply the change twice, and
//! [`Error::DurabilityUnknown`], after which it would.

use std::any::Any;
use std::error::Error as StdError;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::Error;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::write::begin::pause_without_write;
use crate::protocol::write::write_tx::WriteTx;
use crate::types::Lock;

impl<C: WalCoordination> Wal<C> {
    /// Runs `change` in a write transaction, commits that, and returns what `change`
    /// returned. An error of `change` rolls the transaction back.
    ///
    /// If `change` or the commit ends with [`Error::BusySnapshot`], or with an error that
    /// [`Error::is_busy`], but for [`Error::OwnWrite`], `change` runs again, in a new
    /// transaction, until `busy` gives up. An error of `change` counts if it is this library's
    /// own, as it is or in a `Box<dyn Error>`; an error of another type is returned at once.
    ///
    /// # Errors
    /// Those of [`Wal::begin_write`] and [`WriteTx::commit`], and what `change` returns.
    /// [`Error::OwnWrite`] at once for an operation within `change` that needs a second
    /// write transaction of the database.
    pub fn write<T, E: From<Error> + 'static>(
        self: &Arc<Self>,
        busy: impl Into<BusyHandler>,
        mut change: impl FnMut(&mut WriteTx<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut waiter = Waiter::new(busy.into());
        let mut attempt = 0;
        loop {
            let mut tx = self.begin_write_by(&mut waiter)?;
            tx.stay();
            let error = match change(&mut tx) {
                Ok(result) => match tx.commit() {
                    Ok(_committed) => return Ok(result),
                    Err(e) => e.into(),
                },
                Err(e) => {
                    drop(tx);
                    e
                }
            };
            attempt += 1;
            let lock = of_library(&error).and_then(lock_to_wait_for);
            let pause = pause_without_write(attempt);
            let Some(lock) = lock else {
                return Err(error);
            };
            if !waiter.pause(lock, pause)? {
                return Err(error);
            }
        }
    }
}

/// The error of this library that `error` is, as it is or in a box.
fn of_library<E: 'static>(error: &E) -> Option<&Error> {
    let error: &dyn Any = error;
    if let Some(boxed) = error.downcast_ref::<Box<dyn StdError>>() {
        return boxed.downcast_ref();
    }
    if let Some(boxed) = error.downcast_ref::<Box<dyn StdError + Send + Sync>>() {
        return boxed.downcast_ref();
    }
    error.downcast_ref()
}

/// What a new run waits for; `None` if it would end as the last one did.
fn lock_to_wait_for(error: &Error) -> Option<Lock> {
    match error {
        // A nested transaction: it waits for this one in each run.
        Error::OwnWrite { .. } => None,
        Error::Busy { lock, .. } | Error::LogFull { lock, .. } => Some(*lock),
        error if error.is_busy() || matches!(error, Error::BusySnapshot) => Some(Lock::Write),
        _ => None,
    }
}
