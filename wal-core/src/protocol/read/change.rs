//! Tells whether the database is still in a state that was seen before, and
//! waits until it is not.
//!
//! # Protocol
//! The states are compared by all 48 bytes of the header, without a lock. A
//! restart of the log and a recovery change them too, so a change may be told
//! where no page differs, and is never missed: the change counter goes up with
//! every commit, and a recovery, which sets it back, draws the other bytes
//! from the log.
//!
//! Who waits reads the count of commits first, then looks, then sleeps: a
//! commit behind the look ends the sleep. Stock SQLite wakes nobody, so where there may
//! be one the sleep is short (rule 9).

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::read::snapshot::Snapshot;
use crate::types::Lock;

impl<C: WalCoordination> Wal<C> {
    /// True if something was committed since `snapshot` was taken, at worst
    /// once too often. It takes no lock and makes no system call.
    ///
    /// # Errors
    /// [`crate::Error::UsedAfterFork`] in a forked child,
    /// [`crate::Error::Corrupt`] if the index is gone.
    pub fn changed_since(&self, snapshot: &Snapshot) -> Result<bool> {
        self.check_process()?;
        Ok(!self.header_cell()?.is(&snapshot.header))
    }

    /// Waits until something is committed after `snapshot` was taken, by
    /// whichever process. False if `until` gave up first; one that asks is
    /// asked with the Write lock.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and those of [`Wal::changed_since`].
    pub fn wait_for_change(
        &self,
        snapshot: &Snapshot,
        until: impl Into<BusyHandler>,
    ) -> Result<bool> {
        self.wait_for(until, || self.changed_since(snapshot))
    }

    /// Waits until `happened` says so; it is asked after each commit, and now
    /// and then where others may commit. False if `until` gave up first.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and what `happened` gives.
    pub fn wait_for(
        &self,
        until: impl Into<BusyHandler>,
        mut happened: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let mut waiter = Waiter::new(until.into());
        loop {
            let wait_state = self.coordination().wait_state();
            let on = wait_state.map(|wait_state| {
                (
                    wait_state.commits().word(),
                    wait_state.commits().prepare_wait(),
                )
            });
            if happened()? {
                return Ok(true);
            }
            let sleep = |until| self.sleep(on, Self::before_foreign_peers(until));
            if !waiter.again(Lock::Write, sleep)? {
                return Ok(false);
            }
        }
    }
}
