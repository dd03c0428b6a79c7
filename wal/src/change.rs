//! Tells of commits of any process.

use std::time::Duration;

use wal_core::Result;
use wal_core::protocol::{BusyHandler, Snapshot};

use crate::backend::Backend;
use crate::database::Database;

impl<B: Backend> Database<B> {
    /// True if something was committed since `snapshot` was taken, at worst
    /// once too often: a log that begins anew counts as a change.
    ///
    /// # Errors
    /// [`crate::Error::UsedAfterFork`], and, if the database was opened read-only,
    /// those of [`Database::begin_read`].
    pub fn changed_since(&self, snapshot: &Snapshot) -> Result<bool> {
        if self.only_reads() {
            // A private index is not kept up to date by others.
            return Ok(!self.begin_read()?.snapshot().is_same_state(snapshot));
        }
        self.wal().changed_since(snapshot)
    }

    /// Waits up to `timeout` until something is committed after `snapshot` was
    /// taken, by any process; false if nothing was. A commit of ours wakes at
    /// once, one of stock SQLite, which wakes nobody, is seen within
    /// milliseconds.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("pages");
    /// # use std::time::Duration;
    /// # let db = wal::Database::open(&path)?;
    /// let seen = *db.begin_read()?.snapshot();
    /// assert!(!db.wait_for_change(&seen, Duration::from_millis(1))?);
    /// let mut write = db.begin_write()?; // in any process
    /// write.allocate()?;
    /// write.commit()?;
    /// assert!(db.wait_for_change(&seen, Duration::from_secs(60))?);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::changed_since`].
    pub fn wait_for_change(&self, snapshot: &Snapshot, timeout: Duration) -> Result<bool> {
        self.wait_for_change_with(snapshot, BusyHandler::timeout(timeout))
    }

    /// As [`Database::wait_for_change`], until `until` gives up; another
    /// thread can cancel it.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and those of [`Database::changed_since`].
    pub fn wait_for_change_with(&self, snapshot: &Snapshot, until: BusyHandler) -> Result<bool> {
        self.wal().wait_for(until, || self.changed_since(snapshot))
    }
}
