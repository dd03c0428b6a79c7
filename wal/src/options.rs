//! How a database is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wal_core::PageSize;
use wal_core::protocol::{BusyHandler, DatabaseKind, Synchronous, WalConfig};
use wal_core::storage::{LockKind, OsFile};

/// How long to wait unless told otherwise.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the release of a read lock is delayed by default, at most.
const READ_LOCK_DELAY: Duration = Duration::from_millis(1);

/// How pages are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum ReadStrategy {
    /// As slices of the mapped files, without a copy or a system call, wherever the
    /// locks keep them still: see [`crate::Database::open`] for where they do not, and
    /// for what is assumed of other programs.
    #[default]
    Mapped,
    /// By `pread` into a buffer. Nothing is assumed of other programs: what one does to
    /// a file shows as a wrong page or a typed error, and never in a page that was
    /// handed out before.
    Pread,
}

/// How a database is opened.
///
/// ```
/// # fn main() -> wal::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("pages");
/// use std::time::Duration;
/// use wal::{DatabaseKind, Options, PageSize, Synchronous};
///
/// let db = Options::new()
///     .kind(DatabaseKind::PageStore)
///     .page_size(PageSize::new(16384)?)
///     .synchronous(Synchronous::Normal)
///     .busy_timeout(Duration::from_secs(1))
///     .open(&path)?;
/// assert_eq!(db.page_size().bytes(), 16384);
/// # db.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Options {
    /// What the attachment is configured with, but for the kind and the page size, which
    /// are those of the file.
    pub(crate) config: WalConfig,
    pub(crate) kind: Option<DatabaseKind>,
    pub(crate) page_size: Option<PageSize>,
    pub(crate) busy: BusyHandler,
    pub(crate) busy_timeout: Duration,
    pub(crate) create: bool,
    pub(crate) read_strategy: ReadStrategy,
    pub(crate) checkpoint_thread: bool,
    pub(crate) side_file: bool,
    pub(crate) read_lock_delay: Duration,
    pub(crate) lock_kind: LockKind,
    pub(crate) close_descriptors: bool,
    pub(crate) allow_network_file_system: bool,
    pub(crate) allow_other_names: bool,
    pub(crate) immutable: bool,
    /// The attachment that is replaced, for a handle that goes on reading.
    pub(crate) replaces: Option<Replaced>,
}

/// An attachment that another one replaces: the same file, where it was opened, as what it
/// was found to be.
#[derive(Clone, Debug)]
pub(crate) struct Replaced {
    pub(crate) file: Arc<OsFile>,
    pub(crate) config: WalConfig,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config: WalConfig::new(DatabaseKind::PageStore, PageSize::DEFAULT),
            kind: None,
            page_size: None,
            busy: BusyHandler::timeout(BUSY_TIMEOUT),
            busy_timeout: BUSY_TIMEOUT,
            create: true,
            read_strategy: ReadStrategy::default(),
            checkpoint_thread: false,
            side_file: true,
            read_lock_delay: READ_LOCK_DELAY,
            lock_kind: LockKind::default(),
            close_descriptors: false,
            allow_network_file_system: false,
            allow_other_names: false,
            immutable: false,
            replaces: None,
        }
    }
}

impl fmt::Debug for Options {
    /// What differs from the defaults: all would fill several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Options::default();
        let mut fields = f.debug_struct("Options");
        macro_rules! configured {
            ($($field:ident $(in $part:ident)?),* $(,)?) => {$(
                let value = format!("{:?}", self $(.$part)? .$field);
                if value != format!("{:?}", default $(.$part)? .$field) {
                    fields.field(stringify!($field), &format_args!("{value}"));
                }
            )*};
        }
        configured!(
            kind,
            page_size,
            synchronous in config,
            group_commit in config,
            busy,
            busy_timeout,
            create,
            read_strategy,
            auto_actions in config,
            checkpoint_thread,
            log_size_limit in config,
            cache_spill in config,
            snapshot_age_limit in config,
            max_log_frames in config,
            persistent_log in config,
            side_file,
            read_lock_delay,
            lock_kind,
            close_descriptors,
            allow_network_file_system,
            allow_other_names,
            strict_log in config,
            read_only in config,
            immutable,
        );
        fields.finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults that each method names.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the file has to be; a file of another kind is refused. Unless it is set, the file
    /// is a SQLite database or a page store, each of which is recognised, and is never created.
    ///
    /// - [`DatabaseKind::Sqlite`]: a SQLite database in WAL mode. Stock SQLite creates it.
    /// - [`DatabaseKind::PageStore`]: a page store, which is created if there is no file, or an
    ///   empty one ([`Options::create`]).
    /// - [`DatabaseKind::RawPages`]: any file that is neither of these, as pages of
    ///   [`Options::page_size`]. Nothing in the file tells that it is one: with another page
    ///   size, or of an encrypted SQLite database, it reads as pages of the wrong content. It
    ///   is created like a page store.
    #[must_use]
    pub fn kind(mut self, kind: DatabaseKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// The page size of a page store that is created, and of raw pages; 4096 bytes by
    /// default. A page store remembers it, and one of another page size is refused where this
    /// is set. A SQLite database has its own, whatever is set here.
    #[must_use]
    pub fn page_size(mut self, page_size: PageSize) -> Self {
        self.page_size = Some(page_size);
        self
    }

    /// How much survives a power failure; [`Synchronous::Full`] unless told
    /// otherwise.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.config.synchronous = synchronous;
        self
    }

    /// Lets the commits of many processes share their syncs, at
    /// [`Synchronous::Full`], as those of threads of one handle do anyway: several
    /// times as many commits per second, where many write. A commit is then *visible before it is durable*. It is
    /// durable when [`crate::WriteTx::commit`] returns; until then others may
    /// read it, and a power failure undoes it together with what was built on
    /// it and is not acknowledged either. So a program that acts on what it has
    /// read, outside the database, should leave this off, which is the default.
    ///
    /// Each process chooses for itself. Without a side file
    /// ([`Options::side_file`]) it does nothing.
    #[must_use]
    pub fn group_commit(mut self, group_commit: bool) -> Self {
        self.config.group_commit = group_commit;
        self
    }

    /// How long to wait for other writers, for readers that are in a
    /// checkpoint's way, and for the owner of the database when it is opened;
    /// five seconds unless told otherwise.
    #[must_use]
    pub fn busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy = BusyHandler::timeout(busy_timeout);
        self.busy_timeout = busy_timeout;
        self
    }

    /// What to do while others are in the way, instead of waiting up to the
    /// busy timeout: ask a function, or let another thread cancel it. Opening
    /// goes by the timeout.
    #[must_use]
    pub fn busy_handler(mut self, busy: BusyHandler) -> Self {
        self.busy = busy;
        self
    }

    /// Whether a file of the kinds [`DatabaseKind::PageStore`] and [`DatabaseKind::RawPages`]
    /// is created if there is no file, or an empty one; on by default. A SQLite database is
    /// never created.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How pages are read; [`ReadStrategy::Mapped`] unless told otherwise. All
    /// handles of a process that share a database read it in the same way.
    #[must_use]
    pub fn read_strategy(mut self, read_strategy: ReadStrategy) -> Self {
        self.read_strategy = read_strategy;
        self
    }

    /// After a commit that leaves at least this many frames in the log that are
    /// not in the database file, a passive checkpoint is tried; 1000 unless told
    /// otherwise, as SQLite does. 0 switches it off.
    ///
    /// Where commits and readers keep coming, a passive checkpoint is never
    /// complete, and the log would grow for ever. What is left is then moved
    /// while writers wait: for a few pages and a sync, and for some milliseconds
    /// until readers of the log are done. Readers are waited for so also where
    /// nothing is left, as where another process checkpoints all the time. If they
    /// are not done, this handle tries that again only when the log is twice as long. Without [`Options::auto_restart`] it is not
    /// done.
    #[must_use]
    pub fn auto_checkpoint(mut self, frames: u32) -> Self {
        self.config.auto_actions.checkpoint = frames;
        self
    }

    /// Whether automatic checkpoints run in a thread of their own, so that no
    /// commit pays for one; off unless told otherwise. The thread ends with
    /// the database.
    #[must_use]
    pub fn checkpoint_thread(mut self, thread: bool) -> Self {
        self.checkpoint_thread = thread;
        self
    }

    /// Whether a commit begins the log anew when all of it is in the database
    /// file and nobody reads it; on unless told otherwise. Who owns the life
    /// of the log, as a replicator does, switches it off together with
    /// [`Options::auto_checkpoint`]. Other processes have their own setting.
    #[must_use]
    pub fn auto_restart(mut self, restart: bool) -> Self {
        self.config.auto_actions.restart = restart;
        self
    }

    /// After a restart of the log, its file is cut to this many bytes, or to
    /// its committed frames if they need more, as by SQLite's
    /// `journal_size_limit`. Unless told otherwise it stays as long as it is,
    /// to be overwritten.
    #[must_use]
    pub fn log_size_limit(mut self, bytes: u64) -> Self {
        self.config.log_size_limit = Some(bytes);
        self
    }

    /// How many bytes of changed pages a write transaction keeps on the heap;
    /// 8 MiB unless told otherwise. When it needs more, it writes all of them
    /// to the log before it commits, where nobody else sees them. 0 keeps them
    /// on the heap, however many they are.
    #[must_use]
    pub fn cache_spill(mut self, bytes: u64) -> Self {
        self.config.cache_spill = bytes;
        self
    }

    /// A read transaction that is older than this gets
    /// [`crate::Error::SnapshotTooOld`] instead of pages, so that nobody keeps
    /// the log from beginning anew without knowing it. It still has to be
    /// ended. Unless told otherwise it may last.
    #[must_use]
    pub fn snapshot_age_limit(mut self, limit: Duration) -> Self {
        self.config.snapshot_age_limit = Some(limit);
        self
    }

    /// A write transaction that finds this many frames in the log, or more,
    /// waits to begin until the log can begin anew, up to the busy timeout,
    /// and then gets [`crate::Error::LogFull`] with the name of who is in the
    /// way; so a reader that does not end cannot let the log grow for ever. It
    /// runs the checkpoint that is needed itself, unless
    /// [`Options::auto_restart`] is off. 0, the default, sets no limit. Other
    /// processes have their own setting, stock SQLite none.
    #[must_use]
    pub fn max_log_frames(mut self, frames: u32) -> Self {
        self.config.max_log_frames = frames;
        self
    }

    /// Whether a last closer leaves the log and its index in place, for
    /// readers that could not make them; off unless told otherwise. With a
    /// log size limit the log that is left is empty.
    #[must_use]
    pub fn persistent_log(mut self, persistent: bool) -> Self {
        self.config.persistent_log = persistent;
        self
    }

    /// Whether processes wake each other through `<db>-coord`; on unless told
    /// otherwise. Shared backend only.
    #[must_use]
    pub fn side_file(mut self, side_file: bool) -> Self {
        self.side_file = side_file;
        self
    }

    /// How long a process that reads often may keep its read lock after a reader has ended,
    /// so that the next reader needs no system call; 1 ms by default. Zero turns that off,
    /// and needs no thread. Shared backend only; the first handle of a process on a
    /// database decides for all.
    ///
    /// Release is delayed after 17 reads in a row, each within a twentieth of this time
    /// (50 µs) after the one before, and as long as there are 10 in each half of it; only
    /// at the end of a log that is short or kept short, or that is all in the database
    /// file. A process that reads less often holds no lock between two transactions.
    ///
    /// A checkpoint of this library, of any mode, reclaims the lock. Stock SQLite cannot:
    /// its checkpoint may be incomplete or busy up to this long after the last reader, as
    /// beside a reader of its own that has not ended yet. A process that is stopped
    /// (`SIGSTOP`, `docker pause`) while it reads at full speed keeps the lock until it is
    /// continued.
    #[must_use]
    pub fn read_lock_delay(mut self, read_lock_delay: Duration) -> Self {
        self.read_lock_delay = read_lock_delay;
        self
    }

    /// Which locks of the system are used. A system without locks of open file descriptions
    /// (WSL 1, some sandboxes) needs [`LockKind::Classic`], as the error of an open says
    /// there. They vanish when anything in this process closes the file, so no other SQLite in
    /// it may use the database. With [`LockKind::Classic`] the handles of this
    /// process share a database if they have one backend and this kind of locks; others get
    /// [`crate::Error::Locked`] or [`crate::Error::CannotOpen`].
    #[must_use]
    pub fn lock_kind(mut self, lock_kind: LockKind) -> Self {
        self.lock_kind = lock_kind;
        self
    }

    /// Says that **no other SQLite in this process uses the database**, so that its
    /// descriptors are closed with the last handle. Off unless told otherwise: descriptors
    /// of the database and `-shm` files are kept without locks, one or two for each file,
    /// and are used again when this process opens the database again. Closing them drops
    /// all locks that another SQLite in this process has on the file, or is just acquiring;
    /// another process then writes beside it, and commits are lost without an error.
    ///
    /// A process that opens thousands of databases, one after the other, needs this or a
    /// larger limit of open files (`RLIMIT_NOFILE`). Where handles share a database, all of
    /// them have to say so.
    #[must_use]
    pub fn close_descriptors(mut self, close: bool) -> Self {
        self.close_descriptors = close;
        self
    }

    /// Whether to open a database on a network file system, where it is safe
    /// only if no other machine uses it; off unless told otherwise. Shared
    /// backend only.
    #[must_use]
    pub fn allow_network_file_system(mut self, allow: bool) -> Self {
        self.allow_network_file_system = allow;
        self
    }

    /// Whether to open a database file that may have another name: one with hard links, or
    /// one that is mounted by itself, as into a container. The log lies beside one name, so
    /// processes that use two names lose each other's commits without an error; it is safe
    /// only if all of them use the same one. Off by default: such a file is refused. Share
    /// the directory of a database with a container, and not the file.
    ///
    /// The process that has the file by its first name does not notice that it is mounted
    /// elsewhere, a hard link that is made later is noticed by the next opener, and before
    /// Linux 5.8 no mount is noticed.
    #[must_use]
    pub fn allow_other_names(mut self, allow: bool) -> Self {
        self.allow_other_names = allow;
        self
    }

    /// Whether a log that does not seem to follow from the database file is refused by
    /// [`crate::Error::ForeignLog`]; off by default. The pages of such a log replace those of
    /// the database, which is then of no single state, where a database was restored beside an
    /// old log. A log may also seem foreign after a power failure. In either case it is reported as a
    /// `tracing` event and counted, with the feature `observe`.
    #[must_use]
    pub fn refuse_foreign_log(mut self, refuse: bool) -> Self {
        self.config.strict_log = refuse;
        self
    }

    /// Whether the database is only read, for who may not write its files or
    /// its directory; off unless told otherwise. Others may write it
    /// meanwhile, and every new transaction sees their last commit. Nothing
    /// is written, whatever the permissions are: no file is made, removed or
    /// checkpointed. Shared backend only.
    ///
    /// It needs the `-shm` file, which stays where a process has the database
    /// open for writing, or left it with [`Options::persistent_log`], or was
    /// killed. With classic locks such a process has to be there.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.config.read_only = read_only;
        self
    }

    /// Whether the database file is read as it is, because **nobody writes
    /// it**: on read-only media, or in a backup. Off unless told otherwise.
    /// The log is ignored, and nothing is locked: commits that are only in
    /// the log are not seen, and if somebody does write, what is read is of
    /// no single state, and a file that is cut ends this process with a
    /// signal if it is mapped. Shared backend only.
    #[must_use]
    pub fn immutable(mut self, immutable: bool) -> Self {
        self.immutable = immutable;
        self
    }
}
