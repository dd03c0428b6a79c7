//! Follows the log of a database, for a replicator.

use std::ops::{Deref, DerefMut};

use wal_core::Result;
use wal_core::protocol::{self, TailFrames, TailPosition};

use crate::backend::Backend;
use crate::database::Database;

/// Follows the log. It keeps the database open, and the log from beginning
/// anew but by [`protocol::Tail::restart_log`].
///
/// All that can be done with it stands in [`protocol::Tail`].
#[derive(Debug)]
pub struct Tail<B: Backend> {
    // Dropped before the database.
    tail: protocol::Tail<B>,
    _database: Database<B>,
}

impl<B: Backend> Database<B> {
    /// Begins to follow the log behind the newest state: every committed frame
    /// once, in order.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = wal::Database::open(dir.path().join("pages"))?;
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
        Ok(Tail {
            tail: self.wal().tail()?,
            _database: self.clone(),
        })
    }

    /// Goes on where an earlier tail stood.
    ///
    /// # Errors
    /// [`wal_core::Error::SnapshotGone`] if the log has begun anew since: then
    /// the whole database has to be copied again; those of
    /// [`Database::begin_read`].
    pub fn resume_tail(&self, position: TailPosition) -> Result<ResumedTail<B>> {
        Ok(ResumedTail {
            resumed: self.wal().resume_tail(position)?,
            database: self.clone(),
        })
    }
}

/// A tail that has missed what was committed while there was none.
#[derive(Debug)]
pub struct ResumedTail<B: Backend> {
    // Dropped before the database.
    resumed: protocol::ResumedTail<B>,
    database: Database<B>,
}

impl<B: Backend> ResumedTail<B> {
    /// The frames that were missed.
    pub fn missed(&self) -> TailFrames<'_, B> {
        self.resumed.missed()
    }

    /// The tail, which stands behind them.
    pub fn into_tail(self) -> Tail<B> {
        Tail {
            tail: self.resumed.into_tail(),
            _database: self.database,
        }
    }
}

impl<B: Backend> Deref for Tail<B> {
    type Target = protocol::Tail<B>;

    fn deref(&self) -> &Self::Target {
        &self.tail
    }
}

impl<B: Backend> DerefMut for Tail<B> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tail
    }
}
