//! Follows the log of a database, and applies its frames to a replica.

use wal_core::Result;
use wal_core::protocol::{ApplyTx, ResumedTail, Tail, TailPosition};

use crate::backend::Backend;
use crate::database::Database;

impl<B: Backend> Database<B> {
    /// Begins to follow the log behind the newest state: every committed frame
    /// once, in order. The tail keeps the database open. While it lives, only
    /// [`Tail::restart_log`] restarts the log.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = wal::Database::open_pages(dir.path().join("pages"))?;
    /// let mut tail = db.tail()?;
    /// // tail.state() is the base to be copied.
    /// let mut write = db.begin_write()?; // in any process
    /// let page = write.allocate()?;
    /// write.commit()?;
    /// for frame in tail.advance()? {
    ///     let frame = frame?;
    ///     assert_eq!((frame.page, frame.commit_size), (page, Some(2)));
    /// }
    /// # drop(tail);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Database::begin_read`].
    pub fn tail(&self) -> Result<Tail<B>> {
        self.begin_reading(|wal| wal.tail())
    }

    /// Continues an earlier tail at `position`.
    ///
    /// # Errors
    /// [`wal_core::Error::SnapshotGone`] if the log was restarted since, has lost frames
    /// in a power failure, or was empty as SQLite leaves it: then the whole database has
    /// to be copied again; those of [`Database::begin_read`].
    pub fn resume_tail(&self, position: TailPosition) -> Result<ResumedTail<B>> {
        self.begin_reading(|wal| wal.resume_tail(position))
    }

    /// Begins to apply frames that a [`crate::Tail`] of another database gave:
    /// its log becomes this one's, byte for byte, so how far this one has come
    /// is in its own log. Any number of readers, of stock SQLite too, may use
    /// the replica concurrently. A commit by any other writer makes it a database
    /// of its own.
    ///
    /// Open a replica with [`crate::Options::persistent_log`] on, so that its
    /// last closer does not discard its position, and with
    /// [`crate::Options::auto_restart`] off. Before the restart of the source's log
    /// is applied here, all of the log must be in the database file: checkpoint it. A commit is
    /// followed by an automatic checkpoint, as any commit.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (dir.path().join("pages"), dir.path().join("copy"));
    /// # let options = wal::Options::new().kind(wal::DatabaseKind::PageStore);
    /// # let source = options.auto_checkpoint(0).open(&path)?;
    /// # let write = || -> wal::Result<()> {
    /// #     let mut write = source.begin_write()?;
    /// #     write.allocate()?;
    /// #     write.commit().map(drop)
    /// # };
    /// # write()?;
    /// let options = wal::Options::new().persistent_log(true).auto_restart(false);
    /// let mut tail = source.tail()?; // from here on the source's log stays
    /// source.backup(&copy, |_| Ok(()))?;
    /// # write()?;
    /// let replica = options.open(&copy)?;
    ///
    /// let mut apply = replica.begin_apply()?;
    /// tail.advance()?; // at least to the state that was copied
    /// apply.apply_frames(tail.log_so_far(), None)?;
    /// assert_eq!(apply.commit()?, tail.position());
    ///
    /// # write()?;
    /// let mut apply = replica.begin_apply()?; // whenever there is more
    /// apply.apply_frames(tail.advance()?, None)?;
    /// assert_eq!(apply.commit()?, tail.position());
    /// # drop(tail);
    /// # replica.close()?;
    /// # source.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Database::begin_write`].
    pub fn begin_apply(&self) -> Result<ApplyTx<B>> {
        self.wal().begin_apply(self.busy().clone())
    }
}
