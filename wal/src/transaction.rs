//! The transactions of a database. They keep it open: its last closer cleans
//! up only when they are gone.

use std::ops::{Deref, DerefMut};

use wal_core::protocol;
use wal_core::{Error, PageNo, Result};

use crate::backend::Backend;
use crate::database::Database;

/// A read transaction: an unchanging view of the database until it is dropped.
///
/// All that can be read through it stands in [`protocol::ReadTx`].
#[derive(Debug)]
pub struct ReadTx<B: Backend> {
    pub(crate) tx: protocol::ReadTx<B>,
}

/// The one write transaction. Dropping it without [`WriteTx::commit`] rolls it
/// back.
///
/// ```
/// # fn main() -> wal::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = wal::Database::open(dir.path().join("pages"))?;
/// use wal::PageNo;
///
/// let mut tx = db.begin_write()?;
/// tx.set_page_count(2)?;
/// tx.page_mut(PageNo::ONE)?[0] = 1;
/// let savepoint = tx.savepoint();
/// tx.page_mut(PageNo::ONE)?[0] = 2;
/// tx.rollback_to(savepoint)?;
/// tx.commit()?;
/// assert_eq!(db.begin_read()?.page(PageNo::ONE)?[0], 1);
/// # db.close()
/// # }
/// ```
///
/// All that can be done through it stands in [`protocol::WriteTx`].
#[derive(Debug)]
pub struct WriteTx<B: Backend> {
    // Dropped before the database.
    pub(crate) tx: protocol::WriteTx<B>,
    pub(crate) database: Database<B>,
}

/// Why a read transaction did not become a write transaction.
#[derive(Debug)]
pub struct UpgradeRefused<B: Backend> {
    /// The read transaction, as it was.
    pub read: ReadTx<B>,
    /// The reason.
    pub error: Error,
}

impl<B: Backend> ReadTx<B> {
    /// Begins another read transaction on the very same state, however much
    /// was committed and checkpointed since. Its age is its own.
    ///
    /// # Errors
    /// [`Error::UsedAfterFork`], [`Error::Io`].
    pub fn try_clone(&self) -> Result<Self> {
        Ok(ReadTx {
            tx: self.tx.try_clone()?,
        })
    }

    /// Turns this, which was begun by `database`, into a write transaction on the
    /// very state that it sees, without waiting.
    ///
    /// # Errors
    /// [`Error::BusySnapshot`] if somebody wrote since it began,
    /// [`Error::Busy`] if somebody is writing; each with this transaction,
    /// which can go on.
    pub fn upgrade(
        self,
        database: &Database<B>,
    ) -> Result<WriteTx<B>, Box<UpgradeRefused<B>>> {
        match self.tx.upgrade() {
            Ok(tx) => Ok(WriteTx {
                tx,
                database: database.clone(),
            }),
            Err(refused) => {
                let protocol::UpgradeRefused { read, error } = *refused;
                Err(Box::new(UpgradeRefused {
                    read: ReadTx { tx: read },
                    error,
                }))
            }
        }
    }
}

impl<B: Backend> WriteTx<B> {
    /// Makes the changes visible to every process, and durable as the
    /// database's [`crate::Synchronous`] promises. A transaction that changed
    /// nothing leaves no trace.
    ///
    /// # Errors
    /// The transaction is rolled back, except for
    /// [`Error::CommitOutcomeUnknown`]: then only opening the database again
    /// tells whether it is there. With [`crate::Options::group_commit`] also
    /// [`Error::DurabilityUnknown`]: it is visible, but may not survive a power
    /// failure.
    pub fn commit(self) -> Result<()> {
        self.tx.commit()?;
        self.database.after_commit();
        Ok(())
    }

    /// Forgets the changes; dropping the transaction does the same.
    pub fn rollback(self) {}

    /// As [`WriteTx::rollback`], and calls `undo` for each page that was
    /// changed, added or cut off, so that whoever keeps copies of pages can
    /// drop them. Nobody else writes before the last call.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the wal-index contradicts itself, [`Error::Poisoned`] if
    /// the state that the transaction began on turns out not to be durable. The
    /// changes are forgotten all the same.
    pub fn rollback_with(self, undo: impl FnMut(PageNo)) -> Result<()> {
        self.tx.rollback_with(undo)
    }
}

impl<B: Backend> Deref for ReadTx<B> {
    type Target = protocol::ReadTx<B>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl<B: Backend> Deref for WriteTx<B> {
    type Target = protocol::WriteTx<B>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl<B: Backend> DerefMut for WriteTx<B> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tx
    }
}
