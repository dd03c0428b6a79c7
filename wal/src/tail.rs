//! Follows the log of a database, for a replicator.

use wal_core::Result;
use wal_core::protocol::{ResumedTail, Tail, TailPosition};

use crate::backend::Backend;
use crate::database::Database;

impl<B: Backend> Database<B> {
    /// Begins to follow the log behind the newest state: every committed frame
    /// once, in order. The tail keeps the database open, and the log from
    /// beginning anew but by [`Tail::restart_log`].
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

    /// Goes on where an earlier tail stood.
    ///
    /// # Errors
    /// [`wal_core::Error::SnapshotGone`] if the log has begun anew since, has lost frames
    /// in a power failure, or was empty as SQLite leaves it: then the whole database has
    /// to be copied again; those of
    /// [`Database::begin_read`].
    pub fn resume_tail(&self, position: TailPosition) -> Result<ResumedTail<B>> {
        self.begin_reading(|wal| wal.resume_tail(position))
    }
}
