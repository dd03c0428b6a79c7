//! A database, shared by the threads of a process.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wal_core::protocol::{
    BackfillProof, BusyHandler, CheckpointMode, CheckpointOptions, CheckpointReport, DatabaseKind,
    Opener, ReadTx, SavedSnapshot, Wal,
};
use wal_core::storage::OsFile;
use wal_core::wait::POLL_INTERVAL;
use wal_core::{Error, PageSize, Result, stripes};

use crate::backend::Backend;
use crate::checkpointer::Checkpointer;
use crate::open::{attach, resolve};
use crate::options::{Options, Replaced};
use crate::successor::Successor;

/// An open database. Clones are cheap and are the same database; the last one
/// to go closes it. A last closer of all processes moves the log into the
/// database file and removes it.
pub struct Database<B: Backend> {
    /// A handle for each stripe of threads. They, and so the transactions that are
    /// begun by them, keep `opened`.
    handles: Arc<[Arc<Wal<B>>]>,
    opened: Arc<Opened<B>>,
}

/// As [`Wal`], whatever a panic interrupts. The checkpoint thread has a channel of its own.
impl<B: Backend> UnwindSafe for Database<B> {}
impl<B: Backend> RefUnwindSafe for Database<B> {}

impl<B: Backend> fmt::Debug for Database<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path())
            .field("kind", &self.kind())
            .field("page_size", &self.page_size())
            .field("read_only", &self.only_reads())
            .finish_non_exhaustive()
    }
}

/// What the clones of a database share.
struct Opened<B: Backend> {
    wal: Arc<Wal<B>>,
    /// Where reading goes on if `wal` was superseded.
    successor: Successor<B>,
    file: Arc<OsFile>,
    options: Options,
    /// Runs the automatic checkpoints, if that is wanted.
    checkpointer: Option<Checkpointer>,
}

impl<B: Backend> Clone for Database<B> {
    fn clone(&self) -> Self {
        Database {
            handles: self.handles.clone(),
            opened: self.opened.clone(),
        }
    }
}

impl<B: Backend> Database<B> {
    /// Opens the SQLite database or page store at `path` with the default [`Options`]. It
    /// creates none: an empty file may be a SQLite database that another program is just
    /// creating, and is left alone. [`Database::open_pages`] creates a page store.
    ///
    /// # What is assumed of other programs
    /// Pages are slices of mapped files ([`crate::ReadStrategy::Mapped`]). As for every
    /// mapped file, of memmap2, of heed (LMDB) or of SQLite's `mmap_size`, that is sound
    /// only as long as no program on the machine, this one included, changes or cuts the
    /// database file or its log regardless of the locks: by its name, through a
    /// descriptor, or by a program that takes the locks of SQLite for something else. Other
    /// handles, and SQLite in any process, go by the locks. If a program does not, a page
    /// may change while it is borrowed, which Rust does not allow, and a file that is cut
    /// ends this process with SIGBUS.
    ///
    /// Where that cannot be assumed, say [`crate::ReadStrategy::Pread`]: pages are copied,
    /// nothing is assumed, and such a program costs what it does to any database. Pages
    /// are copied also where a mapping could change though all keep the rules: in an
    /// [immutable](crate::Options::immutable) database, which has no locks, with
    /// [classic locks](crate::LockKind::Classic), which any `close` of the file in this
    /// process drops, and on a network file system.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Options::new())
    }

    /// Opens the page store at `path` with the default [`Options`]; creates one if there is
    /// no file, or an empty one.
    ///
    /// The first [`PAGE_STORE_HEADER_LEN`](crate::PAGE_STORE_HEADER_LEN) bytes of page 1 are
    /// the store's header, which no commit may change; all other bytes are the caller's.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("pages");
    /// let db = wal::Database::open_pages(&path)?;
    /// let mut write = db.begin_write()?;
    /// write.page_mut(wal::PageNo::ONE)?[wal::PAGE_STORE_HEADER_LEN] = 7;
    /// write.commit()?;
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_pages(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Options::new().kind(DatabaseKind::PageStore))
    }

    /// Opens the database at `path` with `options`, and the backend that the
    /// type names.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let path = resolve(path.as_ref())?;
        options.make_missing(&path)?;
        let (wal, file) = attach(&path, options, options.busy_timeout)?;
        let checkpointer = match options.checkpoint_thread {
            true => Some(Checkpointer::start(&wal)?),
            false => None,
        };
        let opened = Arc::new(Opened {
            checkpointer,
            wal,
            successor: Successor::none(),
            file,
            options: options.clone(),
        });
        let handle = |_| opened.wal.another(opened.clone());
        Ok(Database {
            handles: (0..stripes::count()).map(handle).collect(),
            opened,
        })
    }

    /// Begins a read transaction on the newest state. Any number of them can
    /// be open, on any thread; none waits for a writer, only for a recovery. One
    /// can be held for a while, so that others begin on the same state:
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = wal::Database::open_pages(dir.path().join("pages"))?;
    /// # use std::time::Duration;
    /// let held = db.begin_read()?.hold(Duration::from_secs(60))?;
    /// let mut write = db.begin_write()?;
    /// write.allocate()?;
    /// write.commit()?;
    /// let read = held.begin_read()?; // as often as you like, on any thread
    /// assert_eq!(read.page_count(), 1);
    /// # drop((read, held));
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] if another process still recovers the log after the
    /// busy timeout, [`Error::Protocol`], [`Error::UsedAfterFork`],
    /// [`Error::Corrupt`], [`Error::PageSizeMismatch`], [`Error::Io`]; opened
    /// read-only also [`Error::NeedsRecovery`] if no writer has mended the
    /// index after the busy timeout, and [`Error::Superseded`] if writers came
    /// and went all the time.
    pub fn begin_read(&self) -> Result<ReadTx<B>> {
        self.opened.begin_read(self.wal())
    }

    /// Begins a read transaction on a state that was saved, by this process or
    /// another, while the log has it.
    ///
    /// ```
    /// # fn main() -> wal::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("pages");
    /// # let options = wal::Options::new().kind(wal::DatabaseKind::PageStore);
    /// # let db = options.auto_checkpoint(0).open(&path)?;
    /// # const FIRST: usize = wal::PAGE_STORE_HEADER_LEN;
    /// # let commit = |byte| -> wal::Result<()> {
    /// #     let mut write = db.begin_write()?;
    /// #     write.page_mut(wal::PageNo::ONE)?[FIRST] = byte;
    /// #     write.commit().map(drop)
    /// # };
    /// commit(1)?;
    /// let saved = db.begin_read()?.snapshot().save();
    /// commit(2)?;
    /// let bytes = saved.to_bytes(); // to any process that has the database open
    ///
    /// let saved = wal::SavedSnapshot::from_bytes(bytes).unwrap();
    /// assert_eq!(db.open_snapshot(&saved)?.page(wal::PageNo::ONE)?[FIRST], 1);
    /// let changed = db.begin_read()?.pages_changed_since(&saved)?;
    /// assert_eq!(changed, [wal::PageNo::ONE]);
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] if the log began anew or a checkpoint went
    /// beyond it, [`Error::Busy`] while a checkpoint is running, readers of newer states
    /// have all four slots or a writer was stopped while it published, and those of
    /// [`Database::begin_read`].
    pub fn open_snapshot(&self, saved: &SavedSnapshot) -> Result<ReadTx<B>> {
        self.begin_reading(|wal| wal.open_snapshot(saved))
    }

    /// Moves committed pages from the log into the database file. The modes
    /// beyond Passive wait for writers and readers up to the busy timeout, and
    /// keep other writers waiting meanwhile.
    ///
    /// # Errors
    /// As [`Database::checkpoint_with`].
    pub fn checkpoint(&self, mode: CheckpointMode) -> Result<CheckpointReport> {
        let busy = self.busy().clone();
        self.checkpoint_with(CheckpointOptions::new(mode).busy(busy))
    }

    /// Moves committed pages from the log into the database file, and tells
    /// how far that got and who was in the way. Being held back is no error.
    ///
    /// # Errors
    /// [`Error::Busy`] if another checkpoint is running, whatever the busy
    /// handler says, [`Error::Cancelled`], [`Error::Poisoned`] after a failed
    /// sync, [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn checkpoint_with(&self, options: CheckpointOptions<'_>) -> Result<CheckpointReport> {
        self.opened.wal.checkpoint_with(options)
    }

    /// Syncs the database file, if all of the log is in it, and gives the
    /// proof of that; `None` if some of the log is not. It is for who has
    /// switched [`Options::auto_restart`] off.
    ///
    /// # Errors
    /// As [`Database::checkpoint_with`], but a checkpoint that is running is
    /// waited for.
    pub fn prove_backfill(&self) -> Result<Option<BackfillProof>> {
        self.opened.wal.prove_backfill(self.busy().clone())
    }

    /// Begins the log anew, once nobody reads it or writes.
    ///
    /// # Errors
    /// [`Error::ProofRefused`] if something was committed since, and those of
    /// [`Database::begin_write`].
    pub fn restart_log(&self, proof: &BackfillProof) -> Result<()> {
        let busy = self.busy().clone();
        self.opened.wal.restart_log(proof, busy)
    }

    /// What has happened to this handle and its clones since it was opened.
    /// The same is told as `tracing` events with the target `wal`. A subscriber is called
    /// in the middle of an operation, and must not use the database.
    #[cfg(feature = "observe")]
    pub fn counters(&self) -> wal_core::protocol::Counters {
        self.opened.wal.counters()
    }

    /// The path of the database file, without symbolic links.
    pub fn path(&self) -> &Path {
        self.opened.wal.path()
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.opened.wal.config().page_size
    }

    /// What the database file holds.
    pub fn kind(&self) -> DatabaseKind {
        self.opened.wal.config().kind
    }

    /// Closes the database and tells what went wrong, which dropping the last
    /// handle does not. While clones or transactions are left, it only gives
    /// up this handle.
    ///
    /// # Errors
    /// What the last checkpoint gives. Nothing that was committed is lost
    /// then: the log stays.
    pub fn close(self) -> Result<()> {
        let Database { handles, opened } = self;
        drop(handles);
        match Arc::into_inner(opened) {
            Some(mut opened) => opened.close(),
            None => Ok(()),
        }
    }

    /// True if the index may be one of its own, which others do not update.
    pub(crate) fn only_reads(&self) -> bool {
        self.opened.options.only_reads()
    }

    /// The handle for this thread.
    #[inline]
    pub(crate) fn wal(&self) -> &Arc<Wal<B>> {
        stripes::mine(&self.handles)
    }

    /// Lets `begin` begin where reading goes on, if the attachment was superseded.
    pub(crate) fn begin_reading<T>(&self, begin: impl Fn(&Arc<Wal<B>>) -> Result<T>) -> Result<T> {
        self.wal().check_process()?;
        let started = Instant::now();
        let timeout = self.opened.options.busy_timeout;
        // A thread that reads while another one rebuilds a private index may be refused.
        let begin = |wal: &Arc<Wal<B>>, _| loop {
            match begin(wal) {
                Err(Error::NeedsRecovery { .. }) if started.elapsed() < timeout => {
                    std::thread::sleep(POLL_INTERVAL);
                }
                begun => return begun,
            }
        };
        self.opened.where_reading_goes_on(self.wal(), begin)
    }

    pub(crate) fn file(&self) -> &OsFile {
        &self.opened.file
    }

    pub(crate) fn busy(&self) -> &BusyHandler {
        &self.opened.options.busy
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        self.opened.options.busy_timeout
    }

    /// The handle whose commits no automatic checkpoint follows.
    pub(crate) fn quiet_wal(&self) -> &Arc<Wal<B>> {
        &self.opened.wal
    }
}

impl<B: Backend> Opener for Opened<B> {
    /// The automatic checkpoint. A failed sync shows itself at the next write.
    fn committed(&self) {
        match &self.checkpointer {
            None => drop(self.wal.checkpoint_automatically()),
            Some(checkpointer) if self.wal.checkpoint_is_due().unwrap_or(false) => {
                checkpointer.wake();
            }
            Some(_) => {}
        }
    }
}

impl<B: Backend> Opened<B> {
    /// Does nothing the second time.
    fn close(&mut self) -> Result<()> {
        // The thread holds the database open, so it ends first.
        drop(self.checkpointer.take());
        self.wal.close()
    }

    #[inline(always)]
    fn begin_read(self: &Arc<Self>, by: &Arc<Wal<B>>) -> Result<ReadTx<B>> {
        if self.successor.exists() {
            // In a forked child its lock may be that of a thread which is not there.
            by.check_process()?;
            return self.begin_read_waiting(by);
        }
        // Looked at where it is, as in `Wal::begin_read`.
        let begun = by.begin_read();
        if let Err(Error::Busy { .. } | Error::NeedsRecovery { .. } | Error::Superseded { .. }) =
            begun
        {
            return self.begin_read_waiting(by);
        }
        begun
    }

    #[cold]
    fn begin_read_waiting(self: &Arc<Self>, by: &Arc<Wal<B>>) -> Result<ReadTx<B>> {
        self.where_reading_goes_on(by, |wal, left| wal.begin_read_within(left))
    }

    /// Lets `begin` begin, within a time, by the newest attachment; by a newer one if
    /// that is superseded.
    fn where_reading_goes_on<T>(
        self: &Arc<Self>,
        by: &Arc<Wal<B>>,
        begin: impl Fn(&Arc<Wal<B>>, Duration) -> Result<T>,
    ) -> Result<T> {
        let timeout = self.options.busy_timeout;
        let started = Instant::now();
        let mut first = true;
        loop {
            let successor = self.successor.get();
            // By a handle that keeps the database, which the successor itself must not.
            let by = match &successor {
                Some(successor) => &successor.another(self.clone()),
                None => by,
            };
            let left = timeout.saturating_sub(started.elapsed());
            match begin(by, left) {
                Err(Error::Superseded { .. }) if first || !left.is_zero() => {
                    let superseded = successor.as_ref();
                    self.successor
                        .replace(superseded, || self.attach_again(left))?;
                }
                begun => return begun,
            }
            first = false;
        }
    }

    fn attach_again(&self, timeout: Duration) -> Result<Arc<Wal<B>>> {
        self.file.check_in_place()?;
        let mut options = self.options.clone();
        options.replaces = Some(Replaced {
            file: self.file.clone(),
            config: *self.wal.config(),
        });
        let (wal, _same_file) = attach(self.wal.path(), &options, timeout)?;
        Ok(wal)
    }
}

impl<B: Backend> Drop for Opened<B> {
    fn drop(&mut self) {
        // Does nothing if `close` was called before. Whatever goes wrong here
        // leaves the log, which the next opener recovers.
        let _ = self.close();
    }
}
