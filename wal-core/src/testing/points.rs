//! Step points: the places at which a test stops or kills the process.

named! {
    /// A named place: a system call, or a store to shared memory, of a
    /// protocol step. The process dies or stops just *before* it.
    Point:
    /// A lock byte is about to be taken.
    Lock => "lock",
    /// A lock byte is about to be released.
    Unlock => "unlock",
    /// A read mark is about to be stored.
    MarkStore => "mark-store",
    /// The log header is about to be written.
    LogHeaderWrite => "log-header-write",
    /// The new log header is about to be synced.
    LogHeaderSync => "log-header-sync",
    /// The frames of a transaction are about to be written.
    FramesWrite => "frames-write",
    /// Pages are about to be spilled to new frames.
    SpillWrite => "spill-write",
    /// A page is about to be written over the one in a spilled frame.
    FrameOverwrite => "frame-overwrite",
    /// The checksum of a spilled frame is about to be made right.
    ChecksumRewrite => "checksum-rewrite",
    /// The log is about to be synced for a commit.
    CommitSync => "commit-sync",
    /// An index block is about to be made.
    IndexGrow => "index-grow",
    /// A block is about to be cleared for its first frame.
    IndexClear => "index-clear",
    /// The page number of a frame is about to be stored.
    IndexPageStore => "index-page-store",
    /// The hash slot of a frame is about to be stored.
    IndexHashStore => "index-hash-store",
    /// A leftover of a dead writer is about to be cleared.
    IndexTrim => "index-trim",
    /// The second header copy is about to be stored.
    HeaderStoreSecond => "header-store-second",
    /// The first header copy is about to be stored.
    HeaderStoreFirst => "header-store-first",
    /// The backfilled count is about to be stored.
    BackfilledStore => "backfilled-store",
    /// The attempted count is about to be stored.
    AttemptedStore => "attempted-store",
    /// The log is about to be synced for a checkpoint.
    CheckpointLogSync => "checkpoint-log-sync",
    /// A run of pages is about to be written to the database.
    CheckpointWrite => "checkpoint-write",
    /// The database file is about to be cut to its size.
    CheckpointTruncate => "checkpoint-truncate",
    /// The database is about to be synced for a checkpoint.
    CheckpointDatabaseSync => "checkpoint-database-sync",
    /// A recovered index block is about to be copied to shared memory.
    RecoveryCopy => "recovery-copy",
    /// The log is about to be removed by the last closer.
    LogRemove => "log-remove",
    /// The log is about to be cut to nothing by a checkpoint.
    LogTruncate => "log-truncate",
    /// A log that was cut to nothing is about to be synced.
    LogTruncateSync => "log-truncate-sync",
    /// The removal of the log is about to be made durable.
    DirectorySync => "directory-sync",
    /// The wal-index file is about to be cut by the first opener.
    ShmTruncate => "shm-truncate",
    /// The wal-index file is about to be removed by the last closer.
    ShmRemove => "shm-remove",
    /// Waiters are about to be woken.
    Wake => "wake",
    /// A reader begins again, because somebody stores the header.
    TryAgain => "try-again",
    /// A writer that found Write taken is about to sleep.
    WaitForWrite => "wait-for-write",
    /// Who has committed is about to sleep until another has synced the log.
    WaitForSync => "wait-for-sync",
}

#[cfg(feature = "step-points")]
mod step {
    use super::Point;
    use std::sync::OnceLock;

    type Hook = Box<dyn Fn(Point) + Send + Sync>;
    static HOOK: OnceLock<Hook> = OnceLock::new();

    /// Installs what is called at every point, once for the process.
    ///
    /// # Errors
    /// The hook is given back if there is one already.
    pub fn set_hook(hook: Hook) -> Result<(), Hook> {
        HOOK.set(hook)
    }

    /// Passes a point.
    pub fn step(point: Point) {
        if let Some(hook) = HOOK.get() {
            hook(point);
        }
    }
}

#[cfg(feature = "step-points")]
pub use step::set_hook;
#[cfg(feature = "step-points")]
pub use step::step;

/// Passes a point; nothing without the feature `step-points`.
#[cfg(not(feature = "step-points"))]
#[inline(always)]
pub fn step(_: Point) {}
