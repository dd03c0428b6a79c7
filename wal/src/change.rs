//! Tells of commits of any process.

use std::time::Duration;

use wal_core::Result;
use wal_core::protocol::{BusyHandler, SavedSnapshot, Snapshot};

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
    /// # let db = wal::Database::open_pages(&path)?;
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

    /// Waits until a read transaction that begins here is known to see `commit`, which
    /// [`crate::WriteTx::commit`] returned: on a replica that follows the database, in a process
    /// on any machine. False if `until` gave up before.
    ///
    /// In the database where it was committed nobody has to wait: what is committed is
    /// seen by every transaction that begins later, in every process.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (dir.path().join("pages"), dir.path().join("copy"));
    /// # use std::time::Duration;
    /// # let source = wal::Options::new().kind(wal::DatabaseKind::PageStore);
    /// # let source = source.auto_checkpoint(0).open(&path)?;
    /// # let options = wal::Options::new().persistent_log(true).auto_restart(false);
    /// # let mut tail = source.tail()?;
    /// # source.backup(&copy, |_| Ok(()))?;
    /// # let replica = options.open(&copy)?;
    /// let mut write = source.begin_write()?;
    /// write.allocate()?;
    /// let token = write.commit()?.to_bytes(); // to whoever reads the replica
    ///
    /// let commit = wal::SavedSnapshot::from_bytes(token).unwrap();
    /// assert!(!replica.wait_for_commit(&commit, Duration::ZERO)?);
    /// # let mut apply = replica.begin_apply()?;
    /// # tail.advance()?;
    /// # apply.apply_frames(tail.log_so_far(), None)?;
    /// # apply.commit()?;
    /// // … the replicator applies what was committed …
    /// assert!(replica.wait_for_commit(&commit, Duration::from_secs(5))?);
    /// # drop(tail);
    /// # replica.close()?;
    /// # source.close()
    /// # }
    /// ```
    ///
    /// It is known as long as the log has it, and for 65536 restarts of the log after that
    /// ([`Snapshot::includes`]). It is not known any more once the log was removed by its last
    /// user.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and those of [`Database::begin_read`].
    pub fn wait_for_commit(
        &self,
        commit: &SavedSnapshot,
        until: impl Into<BusyHandler>,
    ) -> Result<bool> {
        let is_there = || Ok(self.begin_read()?.snapshot().includes(commit));
        self.wal().wait_for(until, is_there)
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
