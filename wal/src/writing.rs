//! Begins write transactions.

use wal_core::protocol::{BusyHandler, WriteTx};
use wal_core::{Error, Result};

use crate::backend::Backend;
use crate::database::Database;

impl<B: Backend> Database<B> {
    /// Begins a write transaction on the newest state, once other writers are
    /// done: never on a stale snapshot. Its commit is followed by an automatic
    /// checkpoint if one is due ([`crate::Options::auto_checkpoint`]).
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = wal::Database::open_pages(dir.path().join("pages"))?;
    /// let mut tx = db.begin_write()?;
    /// let page = tx.allocate()?;
    /// tx.page_mut(page)?[0] = 1;
    /// let savepoint = tx.savepoint();
    /// tx.page_mut(page)?[0] = 2;
    /// tx.rollback_to(savepoint)?;
    /// tx.commit()?;
    /// assert_eq!(db.begin_read()?.page(page)?[0], 1);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// At [`crate::Synchronous::Full`] that state may be a commit of another thread of
    /// this handle which is not durable yet, and which readers do not see. The
    /// transaction ends, by commit or rollback, when that is durable, so it may
    /// wait for the disk at its end; if it never is, the commit is refused.
    ///
    /// # Errors
    /// [`Error::Busy`] if another writer is still at work after the busy
    /// timeout, [`Error::OwnWrite`] instead if this thread waits for its own transaction,
    /// [`Error::LogFull`] beyond [`crate::Options::max_log_frames`],
    /// [`Error::Poisoned`] after a failed sync,
    /// [`Error::ReadOnly`] if the database was opened so, and those of
    /// [`Database::begin_read`].
    pub fn begin_write(&self) -> Result<WriteTx<B>> {
        self.wal().begin_write(self.busy().clone())
    }

    /// As [`Database::begin_write`], but waits for other writers as `busy` says: up to a
    /// [`std::time::Duration`], as a function decides, or until another thread cancels it.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = wal::Database::open_pages(dir.path().join("pages"))?;
    /// use std::time::Duration;
    /// use wal::{BusyHandler, Cancel};
    ///
    /// let request = Cancel::new(); // another thread may call `request.cancel()`
    /// let busy = BusyHandler::timeout(Duration::from_millis(200)).cancelled_by(&request);
    /// db.begin_write_with(busy)?.commit()?;
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Cancelled`], and those of [`Database::begin_write`].
    pub fn begin_write_with(&self, busy: impl Into<BusyHandler>) -> Result<WriteTx<B>> {
        self.wal().begin_write(busy)
    }

    /// Runs `change` in a write transaction, commits that, and returns what `change`
    /// returned. An error of `change` rolls the transaction back.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = wal::Database::open_pages(dir.path().join("pages"))?;
    /// let page = db.write(|tx| {
    ///     let page = tx.allocate()?;
    ///     tx.page_mut(page)?[0] = 7;
    ///     Ok::<_, wal::Error>(page)
    /// })?;
    /// assert_eq!(db.begin_read()?.page(page)?[0], 7);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// `change` runs again, in a new transaction, if it or the commit ends with
    /// [`Error::BusySnapshot`] or an error that [`Error::is_busy`], but for
    /// [`Error::OwnWrite`], until the busy handler gives up. So it should have no other effect
    /// than on the transaction. An error of `change` counts if it is this library's own, as it
    /// is or in a `Box<dyn Error>`; an error of another type is returned at once. After
    /// [`Error::CommitOutcomeUnknown`] and [`Error::DurabilityUnknown`] it does not run again.
    ///
    /// # Errors
    /// Those of [`Database::begin_write`] and [`WriteTx::commit`], and what `change`
    /// returns. [`Error::OwnWrite`] at once for an operation within `change` that needs a
    /// second write transaction of this database.
    pub fn write<T, E: From<Error> + 'static>(
        &self,
        change: impl FnMut(&mut WriteTx<B>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.wal().write(self.busy().clone(), change)
    }

    /// As [`Database::write`], but waits for other writers, over all runs of `change`
    /// together, as `busy` says.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and those of [`Database::write`].
    pub fn write_with<T, E: From<Error> + 'static>(
        &self,
        busy: impl Into<BusyHandler>,
        change: impl FnMut(&mut WriteTx<B>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.wal().write(busy, change)
    }

    /// As [`Database::begin_write`], but without waiting (`BEGIN IMMEDIATE`
    /// without a busy handler).
    ///
    /// # Errors
    /// [`Error::Busy`] at once if another writer is at work, and those of
    /// [`Database::begin_write`].
    pub fn try_begin_write(&self) -> Result<WriteTx<B>> {
        self.wal().begin_write(BusyHandler::FAIL)
    }
}
