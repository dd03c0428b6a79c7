//! Keeps a database the same as another one, frame by frame.

use wal_core::Result;
use wal_core::protocol::ApplyTx;

use crate::backend::Backend;
use crate::database::Database;

impl<B: Backend> Database<B> {
    /// Begins to apply frames that a [`crate::Tail`] of another database gave:
    /// its log becomes this one's, byte for byte, so how far this one has come
    /// is in its own log. Any number of readers, of stock SQLite too, may use
    /// the replica meanwhile; whoever else writes it ends its being one.
    ///
    /// Open a replica with [`crate::Options::persistent_log`] on, so that its
    /// last closer does not forget where it stands, and with
    /// [`crate::Options::auto_restart`] off. Before the source's log begins
    /// anew here too, all of it must be in the database file: checkpoint it. A commit is
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
