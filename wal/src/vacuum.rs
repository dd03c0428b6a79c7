//! Rewrites the whole database.

use std::time::{Duration, Instant};

use wal_core::protocol::{
    BusyHandler, CheckpointMode, CheckpointOptions, CheckpointReport, NewPages, OldPages,
};
use wal_core::{Error, Result};

use crate::backend::Backend;
use crate::database::Database;

/// How long Write is left alone between two tries to empty the log.
const PAUSE: Duration = Duration::from_millis(5);

/// How a database is rewritten.
#[derive(Clone, Debug, Default)]
pub struct VacuumOptions {
    exclusive: bool,
    btrees_rewritten: bool,
}

/// What a vacuum did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct VacuumReport {
    /// The size of the database before, in pages.
    pub pages_before: u32,
    /// Its size now.
    pub pages_after: u32,
    /// The last try to empty the log into the database file. It tells who
    /// was in the way, if somebody was until the busy timeout; `None` if it
    /// was another checkpoint, or an error, which the next checkpoint shows
    /// again. The vacuum is committed all the same, and the file shrinks with
    /// the next complete checkpoint.
    pub checkpoint: Option<CheckpointReport>,
}

impl VacuumOptions {
    /// Readers go on meanwhile, and the database holds pages of the
    /// application's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shuts out every reader and writer of every process while the database
    /// is rewritten, instead of only writers. Stock SQLite fails with
    /// `SQLITE_PROTOCOL` if that takes more than about ten seconds.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Says that the pages of a SQLite database are moved with all that points
    /// at them, and that the schema cookie is changed. Without it a SQLite
    /// database is refused.
    #[must_use]
    pub fn btrees_rewritten(mut self) -> Self {
        self.btrees_rewritten = true;
        self
    }
}

impl<B: Backend> Database<B> {
    /// Replaces all pages by those that `rewrite` pushes, in one transaction,
    /// and shrinks the files. Other writers wait meanwhile; readers go on, and
    /// are waited for, up to the busy timeout, only to empty the log.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("pages");
    /// use wal::{Database, PageNo, VacuumOptions};
    ///
    /// let db = Database::open_pages(&path)?;
    /// let mut write = db.begin_write()?;
    /// for _ in 0..9 {
    ///     let page = write.allocate()?;
    ///     write.page_mut(page)?[0] = page.get() as u8;
    /// }
    /// write.commit()?;
    ///
    /// // Keep page 1, which begins with the header, and pages whose first byte is even.
    /// let report = db.vacuum(&VacuumOptions::new(), |old, new| {
    ///     for number in 1..=old.page_count() {
    ///         let page = old.page(PageNo::new(number)?)?;
    ///         if number == 1 || page[0] % 2 == 0 {
    ///             new.push(&page)?;
    ///         }
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!((report.pages_before, report.pages_after), (10, 6));
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] for a SQLite database unless
    /// [`VacuumOptions::btrees_rewritten`] is said and true, or if no page was
    /// pushed; what `rewrite`, [`Database::begin_write`] and a commit give.
    /// Nothing is changed then, except for [`Error::CommitOutcomeUnknown`].
    pub fn vacuum(
        &self,
        options: &VacuumOptions,
        rewrite: impl FnOnce(&OldPages<B>, &mut NewPages<'_, B>) -> Result<()>,
    ) -> Result<VacuumReport> {
        if options.exclusive {
            return self.vacuum_exclusively(options, rewrite);
        }
        let mut write = self.quiet_wal().begin_write(self.busy().clone())?;
        let pages_before = write.page_count();
        write.rewrite(options.btrees_rewritten, rewrite)?;
        let pages_after = write.page_count();
        write.commit()?;
        Ok(VacuumReport {
            pages_before,
            pages_after,
            checkpoint: self.empty_log(),
        })
    }

    fn vacuum_exclusively(
        &self,
        options: &VacuumOptions,
        rewrite: impl FnOnce(&OldPages<B>, &mut NewPages<'_, B>) -> Result<()>,
    ) -> Result<VacuumReport> {
        let locks = self
            .wal()
            .try_begin_vacuum_checkpoint_lock(self.busy().clone())?;
        let mut vacuum = locks.begin_vacuum_blocking_tx()?;
        let pages_before = vacuum.tx().page_count();
        vacuum.tx().rewrite(options.btrees_rewritten, rewrite)?;
        let pages_after = vacuum.tx().page_count();
        let locks = vacuum.commit()?;
        Ok(VacuumReport {
            pages_before,
            pages_after,
            checkpoint: locks.vacuum_checkpoint_with_held_lock().ok(),
        })
    }

    /// Moves the log into the database file and cuts both. Nobody is kept
    /// waiting: what is busy is tried again, with all locks given back
    /// between, until the busy timeout.
    fn empty_log(&self) -> Option<CheckpointReport> {
        let (started, timeout) = (Instant::now(), self.busy_timeout());
        loop {
            let truncate = CheckpointOptions::new(CheckpointMode::Truncate).busy(BusyHandler::FAIL);
            let report = match self.checkpoint_with(truncate) {
                Err(Error::Busy { .. }) => None,
                report => Some(report.ok()?),
            };
            let done = report.as_ref().is_some_and(|r| r.held_back_by.is_none());
            if done || started.elapsed() >= timeout {
                return report;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
