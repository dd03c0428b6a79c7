//! What an attachment is configured with: when it is made, and while it is in use.

use std::time::Duration;

use crate::sync::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::types::PageSize;

/// What a database file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DatabaseKind {
    /// A SQLite database: stock SQLite can use it at the same time, and page 1
    /// is kept as SQLite wants it.
    Sqlite,
    /// Pages of the application's own, behind a header by which the file is recognised: page
    /// 1 begins with [`PageStoreHeader::LEN`](crate::format::PageStoreHeader::LEN) bytes that no commit may change. The rest of it
    /// is the application's.
    PageStore,
    /// Pages of which the log knows nothing. Such a file is not told from any other, and
    /// does not tell its page size, so it is opened only where this kind was asked for.
    RawPages,
}

impl DatabaseKind {
    /// What to do about a page 1 that is refused.
    pub(in crate::protocol) fn advice_on_page_one(self) -> &'static str {
        match self {
            DatabaseKind::Sqlite => "keep its header, or change pages that you allocated",
            DatabaseKind::PageStore => "write behind byte 64 of it, or allocate a page",
            DatabaseKind::RawPages => "write something else there",
        }
    }
}

/// How much survives a power failure. A process that is killed loses nothing
/// at any level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub enum Synchronous {
    /// Nothing is synced. A power failure can corrupt the database.
    Off,
    /// The log is synced before it is checkpointed, and its header when it
    /// begins anew. A power failure can undo the last commits, and nothing
    /// else.
    Normal,
    /// The log is also synced at each commit, before it becomes visible, or
    /// before [`crate::protocol::WriteTx::commit`] returns if [`WalConfig::group_commit`] is
    /// set. A power failure undoes nothing that was acknowledged. Threads of one
    /// attachment share syncs: see [`crate::protocol::Wal::begin_write`].
    #[default]
    Full,
}

/// What is done to the log without being asked. A program that owns the life
/// of the log, a replicator for one, switches both off, and calls
/// [`crate::protocol::Wal::checkpoint_with`] and [`crate::protocol::Wal::restart_log`] when it has what it
/// needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalAutoActions {
    /// A commit that leaves at least this many frames in the log that are not in
    /// the database file is followed by [`crate::protocol::Wal::checkpoint_automatically`]; 0
    /// switches it off. That is up to the [`crate::protocol::Opener`].
    pub checkpoint: u32,
    /// A commit begins the log anew if all of it is in the database file and
    /// nobody reads it.
    pub restart: bool,
}

impl Default for WalAutoActions {
    /// As SQLite: a checkpoint at 1000 frames, and restarts.
    fn default() -> Self {
        WalAutoActions {
            checkpoint: 1000,
            restart: true,
        }
    }
}

/// What an attachment is told about its database.
#[derive(Clone, Copy, Debug)]
pub struct WalConfig {
    /// What [`crate::protocol::inspect`] found.
    pub kind: DatabaseKind,
    /// The page size of the database.
    pub page_size: PageSize,
    /// How much survives a power failure.
    pub synchronous: Synchronous,
    /// After a restart of the log, its file is cut to this many bytes, or to
    /// its committed frames if they need more (`journal_size_limit`). `None`
    /// leaves it as long as it is.
    pub log_size_limit: Option<u64>,
    /// A write transaction whose changed pages need more bytes than this
    /// spills them to the log (`cache_spill`). 0 lets it keep all of them on
    /// the heap.
    pub cache_spill: u64,
    /// A read transaction that is older than this is refused further pages.
    /// `None` lets it last.
    pub snapshot_age_limit: Option<Duration>,
    /// A write transaction waits to begin while the log has this many frames
    /// or more and cannot begin anew; 0 sets no limit.
    pub max_log_frames: u32,
    /// Whether the last closer leaves the log and the index where they are
    /// (`SQLITE_FCNTL_PERSIST_WAL`).
    pub persistent_log: bool,
    /// Whether whatever writes is refused. The files may not even be
    /// writable.
    pub read_only: bool,
    /// Whether a log that seems not to follow from the database file is refused by
    /// [`crate::Error::ForeignLog`], instead of used with an event.
    pub strict_log: bool,
    /// What is done to the log without being asked.
    pub auto_actions: WalAutoActions,
    /// Whether a commit at [`Synchronous::Full`] is visible before it is
    /// durable, so that one sync serves the commits of many users. It is
    /// durable when [`crate::protocol::WriteTx::commit`] returns. Others may see it before, and
    /// a power failure in between undoes it, with whatever was committed on
    /// top of it and not acknowledged either. Frames of an engine are synced
    /// before anybody sees them all the same.
    pub group_commit: bool,
}

/// How many bytes of changed pages are kept on the heap unless told otherwise:
/// so few that an allocator hands the same memory out again, which is faster
/// than what the system gives anew.
pub const CACHE_SPILL: u64 = 8 << 20;

impl WalConfig {
    /// A database of `kind` with pages of `page_size`, and defaults for the
    /// rest.
    pub fn new(kind: DatabaseKind, page_size: PageSize) -> Self {
        WalConfig {
            kind,
            page_size,
            synchronous: Synchronous::default(),
            log_size_limit: None,
            cache_spill: CACHE_SPILL,
            snapshot_age_limit: None,
            max_log_frames: 0,
            persistent_log: false,
            read_only: false,
            strict_log: false,
            auto_actions: WalAutoActions::default(),
            group_commit: false,
        }
    }
}

/// No limit for the log. No file can be that long.
const UNLIMITED: u64 = u64::MAX;

/// The part of [`WalConfig`] that can change while an attachment is in use, as by the
/// pragmas of an SQL engine.
///
/// Each value is loaded when it is needed. An operation that is under way may use the old
/// or the new one, so no order between them is needed.
#[derive(Debug)]
pub struct Tuning {
    synchronous: AtomicU8,
    log_size_limit: AtomicU64,
    persistent_log: AtomicBool,
}

impl Tuning {
    pub(in crate::protocol) fn of(config: &WalConfig) -> Self {
        Tuning {
            synchronous: AtomicU8::new(config.synchronous as u8),
            log_size_limit: AtomicU64::new(config.log_size_limit.unwrap_or(UNLIMITED)),
            persistent_log: AtomicBool::new(config.persistent_log),
        }
    }

    /// How much survives a power failure ([`WalConfig::synchronous`]).
    pub fn synchronous(&self) -> Synchronous {
        match self.synchronous.load(Ordering::Relaxed) {
            0 => Synchronous::Off,
            1 => Synchronous::Normal,
            _ => Synchronous::Full,
        }
    }

    /// Sets how much survives a power failure from now on (`PRAGMA synchronous`).
    pub fn set_synchronous(&self, synchronous: Synchronous) {
        self.synchronous.store(synchronous as u8, Ordering::Relaxed);
    }

    /// To how many bytes the log is cut after a restart ([`WalConfig::log_size_limit`]).
    pub fn log_size_limit(&self) -> Option<u64> {
        let limit = self.log_size_limit.load(Ordering::Relaxed);
        (limit != UNLIMITED).then_some(limit)
    }

    /// Sets that limit (`PRAGMA journal_size_limit`).
    pub fn set_log_size_limit(&self, limit: Option<u64>) {
        let limit = limit.unwrap_or(UNLIMITED);
        self.log_size_limit.store(limit, Ordering::Relaxed);
    }

    /// Whether the last closer leaves the log in place ([`WalConfig::persistent_log`]).
    pub fn persistent_log(&self) -> bool {
        self.persistent_log.load(Ordering::Relaxed)
    }

    /// Sets whether the last closer leaves the log in place (`SQLITE_FCNTL_PERSIST_WAL`).
    pub fn set_persistent_log(&self, persistent: bool) {
        self.persistent_log.store(persistent, Ordering::Relaxed);
    }
}
