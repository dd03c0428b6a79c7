//! The rules of the protocol that a test can break, and the macro that marks
//! each where it is enforced.

named! {
    /// A rule of the protocol that a test can break by name, marked with `rule!`
    /// where it is enforced.
    Rule:
    /// Header: a fence stands between the stores of its two copies.
    HeaderStoreFence => "header-store-fence",
    /// Header: a fence stands between the loads of its two copies.
    HeaderLoadFence => "header-load-fence",
    /// Header: both copies are stored.
    SecondHeaderCopy => "second-header-copy",
    /// Header: each commit changes the counter.
    ChangeCounterAdvances => "change-counter-advances",
    /// Look-up: a frame above the snapshot is skipped.
    FoundWithinSnapshot => "found-within-snapshot",
    /// Index: entries of a dead writer are cleared.
    LeftoversAreTrimmed => "leftovers-are-trimmed",
    /// Page map: it serves only the log that it was made from.
    MapOfThisLog => "map-of-this-log",
    /// Page map: it returns no frame above the snapshot.
    MapWithinSnapshot => "map-within-snapshot",
    /// A backfilled count above the last frame is of an older generation.
    CountOfThisGeneration => "count-of-this-generation",
    /// Begin read: the header is compared again once the lock is held.
    HeaderRecheck => "header-recheck",
    /// Begin read: the header is compared again once `READ(0)` is held.
    SlotZeroRecheck => "slot-zero-recheck",
    /// Begin read: the chosen mark is at most the snapshot.
    MarkWithinSnapshot => "mark-within-snapshot",
    /// Begin read: a fence stands between the store of the mark and the load of the header.
    MarkFence => "mark-fence",
    /// Read: a snapshot that is too old returns no more pages.
    SnapshotAgeLimit => "snapshot-age-limit",
    /// Read: the reading side of a writer waits until its state is published.
    OwnStateIsPublished => "own-state-is-published",
    /// Saved snapshot: it is opened while no checkpoint runs.
    OpenSnapshotHoldsCkpt => "open-snapshot-holds-ckpt",
    /// Saved snapshot: it is at most the published frame.
    SavedSnapshotIsPublished => "saved-snapshot-is-published",
    /// Saved snapshot: no checkpoint attempted a frame beyond it.
    AttemptedWithinSnapshot => "attempted-within-snapshot",
    /// Saved snapshot: the log has its last frame, by the checksum.
    SnapshotSeal => "snapshot-seal",
    /// Changed pages: they are those since an earlier state of the same generation.
    ChangedSinceOlder => "changed-since-older",
    /// Changed pages: the log has the earlier state, by the checksum.
    OlderStateIsInLog => "older-state-is-in-log",
    /// Changed pages: a page that was cut off is none.
    ChangedWithinDatabase => "changed-within-database",
    /// Begin write: a writer does not pass those in the writer queue.
    WriterQueueOrder => "writer-queue-order",
    /// Begin write: the writer waits while the log is too long.
    LogFrameLimit => "log-frame-limit",
    /// Begin write: the snapshot is the newest one once `WRITE` is held.
    WriterOnNewestSnapshot => "writer-on-newest-snapshot",
    /// A file does not grow beyond the free space of its file system.
    FreeSpaceCheck => "free-space-check",
    /// Commit: salts that this writer did not publish are not used.
    FreshSalts => "fresh-salts",
    /// Commit: a new log header is synced before its first frame.
    LogHeaderSync => "log-header-sync",
    /// Commit: the log is synced at `Synchronous::Full`.
    CommitSync => "commit-sync",
    /// Commit: those who wait for a change are notified.
    CommitNotifiesWaiters => "commit-notifies-waiters",
    /// Commit: a restarted log is cut to its limit.
    LogSizeLimit => "log-size-limit",
    /// Commit: a commit frame whose write failed is overwritten with zeros.
    FailedFrameIsZeroed => "failed-frame-is-zeroed",
    /// Commit: the zeros are synced.
    ZeroedFrameSync => "zeroed-frame-sync",
    /// Commit: a failed writeback counts as a failed sync.
    FailedWritebackPoisons => "failed-writeback-poisons",
    /// Commit: checksums behind an overwritten frame are computed again.
    ChecksumRewrite => "checksum-rewrite",
    /// Commit: a page that a failed call overwrote in part is refused.
    UnsettledPageCheck => "unsettled-page-check",
    /// Spill: an unsynced log is rewritten before frames are added.
    SpillRewritesLog => "spill-rewrites-log",
    /// Rollback: index entries of spilled frames are cleared.
    RollbackTrimsIndex => "rollback-trims-index",
    /// Rollback to a savepoint: the size of the database is restored.
    RollbackRestoresPageCount => "rollback-restores-page-count",
    /// Sync: an attachment whose sync failed refuses to write.
    FailedSyncPoisons => "failed-sync-poisons",
    /// Sync: a failure beside an unreadable header counts for every generation.
    UnknownFailureCountsForAll => "unknown-failure-counts-for-all",
    /// Rewrite: a log that failed to sync is rewritten before a durable commit.
    UnsyncedLogIsRewritten => "unsynced-log-is-rewritten",
    /// Rewrite: commits of other threads are published first.
    PublishBeforeRewrite => "publish-before-rewrite",
    /// Rewrite: a failure since the transaction began is noticed at its commit.
    CommitRewritesLog => "commit-rewrites-log",
    /// Rewrite: the file forgets old failures first.
    RewriteForgetsFailures => "rewrite-forgets-failures",
    /// Rewrite: the log has all that is published.
    RewriteCoversPublished => "rewrite-covers-published",
    /// Rewrite: the log is read again behind its sync.
    RewriteCheck => "rewrite-check",
    /// Group commit: a waiter does not retry a failed sync.
    FailedGroupSyncIsFinal => "failed-group-sync-is-final",
    /// Group commit: a poisoned attachment does not lead.
    LeaderIsNotPoisoned => "leader-is-not-poisoned",
    /// Group commit: a sync covers a commit only while its generation is published.
    SyncedGenerationCheck => "synced-generation-check",
    /// Pipelined commit: a thread that panics behind its commit poisons the attachment.
    PanicPoisons => "panic-poisons",
    /// Pipelined commit: a thread that panics behind its commit releases `WRITE`.
    PanicSettles => "panic-settles",
    /// Pipelined commit: a lead that fails before its sync poisons the attachment.
    FailedLeadPoisons => "failed-lead-poisons",
    /// Pipelined commit: `WRITE` is retained while a leader may store a header.
    LeaderKeepsWrite => "leader-keeps-write",
    /// Pipelined commit: `WRITE` is not inherited from a commit that is never published.
    InheritUnlessFailed => "inherit-unless-failed",
    /// Pipelined commit: `WRITE` is inherited within the time slice.
    InheritWithinTimeSlice => "inherit-within-time-slice",
    /// Pipelined commit: index entries of a thread that panicked are cleared.
    InheritTrimsIndex => "inherit-trims-index",
    /// Pipelined commit: the successor is notified of the retained `WRITE`.
    SuccessorNotified => "successor-notified",
    /// Pipelined commit: a thread that left the writer queue is no successor.
    LeaverIsNoSuccessor => "leaver-is-no-successor",
    /// Pipelined commit: a writer ends when the commit that it began on is durable.
    WriterWaitsForBase => "writer-waits-for-base",
    /// Checkpoint: `READ(0)` is held while the database is written.
    BackfillHoldsReadZero => "backfill-holds-read-zero",
    /// Checkpoint: the salts are compared under `READ(0)`.
    BackfillSaltCheck => "backfill-salt-check",
    /// Checkpoint: it stops at the smallest held mark.
    BackfillStopsAtMarks => "backfill-stops-at-marks",
    /// Checkpoint: one that gave up on a reader waits for no other.
    OneWaitPerCheckpoint => "one-wait-per-checkpoint",
    /// Checkpoint: a size that the file and the log cannot make is refused.
    DatabaseSizeCheck => "database-size-check",
    /// Checkpoint: *attempted* is stored before the first page.
    AttemptedBeforePages => "attempted-before-pages",
    /// Checkpoint: the log is synced before the database is written.
    LogSyncBeforeBackfill => "log-sync-before-backfill",
    /// Checkpoint: no page beyond the end of the database is written.
    BackfillWithinDatabase => "backfill-within-database",
    /// Proof: the database file is synced.
    ProofSync => "proof-sync",
    /// Proof: the header is compared again behind the sync.
    ProofHeaderRecheck => "proof-header-recheck",
    /// Proof: it is refused once the database file has changed.
    ProofMatchesDatabase => "proof-matches-database",
    /// Restart: `CKPT` is held.
    RestartHoldsCkpt => "restart-holds-ckpt",
    /// Restart: `READ(1)` to `READ(4)` are held.
    RestartHoldsReadMarks => "restart-holds-read-marks",
    /// Restart: the backfilled count is compared again under the locks.
    RestartCountRecheck => "restart-count-recheck",
    /// Restart: *attempted* goes back to 0.
    RestartResetsAttempted => "restart-resets-attempted",
    /// Restart: the read marks are reset.
    RestartResetsMarks => "restart-resets-marks",
    /// Truncate: a log without a commit loses its old frames.
    TruncateCutsEmptyLog => "truncate-cuts-empty-log",
    /// Truncate: the log is synced once it is cut.
    TruncateSync => "truncate-sync",
    /// Close: a removed log is in the database file.
    RemovedLogIsBackfilled => "removed-log-is-backfilled",
    /// Close: a backfill of a peer is synced before the log is removed.
    CloseProvesBackfill => "close-proves-backfill",
    /// Close: the removal of the log is synced.
    RemovalSync => "removal-sync",
    /// Recovery: frames behind the last commit are dropped.
    RecoveryEndsAtCommit => "recovery-ends-at-commit",
    /// Recovery: the backfilled count goes back to 0.
    RecoveryResetsBackfilled => "recovery-resets-backfilled",
    /// Recovery: *attempted* covers the whole log.
    RecoveryRaisesAttempted => "recovery-raises-attempted",
    /// Recovery: the mark of a slot in use stays.
    BusyMarksStay => "busy-marks-stay",
    /// Salts: those of an empty log of SQLite name no generation.
    EmptyLogIsUnnamed => "empty-log-is-unnamed",
    /// Tail: the header is compared again behind the backfilled count.
    RaiseHeaderRecheck => "raise-header-recheck",
    /// Tail: a restart that it did not prevent is noticed.
    TailRestartCheck => "tail-restart-check",
    /// Tail: the log has the frame that the tail resumes behind, by the checksum.
    TailSeal => "tail-seal",
    /// Apply: a generation begins once the one before is committed.
    AppliedGenerationIsCommitted => "applied-generation-is-committed",
    /// Apply: a frame has the length of a page.
    AppliedFrameLength => "applied-frame-length",
    /// Apply: a frame that the log has already is the same.
    AppliedFrameMatches => "applied-frame-matches",
    /// Apply: the header of a generation is synced before its first frame.
    AppliedHeaderSync => "applied-header-sync",
    /// Apply: a commit is synced at `Synchronous::Full`.
    ApplySync => "apply-sync",
    /// Apply: an unsynced log is rewritten before frames are added.
    ApplyRewritesLog => "apply-rewrites-log",
    /// Apply: index entries of uncommitted frames are cleared.
    ApplyIsRolledBack => "apply-is-rolled-back",
    /// Apply: a copy publishes the salts of a log once it has its frames.
    CopyHidesSalts => "copy-hides-salts",
    /// Apply: a copy writes the log header behind the frames.
    CopyHeaderLast => "copy-header-last",
    /// Apply: a copy erases the old log header before the frames.
    CopyErasesOldHeader => "copy-erases-old-header",
    /// Apply: a copy syncs the frames before their log header.
    CopySyncBeforeHeader => "copy-sync-before-header",
}

/// Marks a rule where it is enforced, and names it:
///
/// - `rule!(Name, condition)` is a condition that the protocol demands before the caller may
///   do what it does if the condition is true;
/// - `rule!(Name, { statements });` are steps that the protocol demands.
///
/// Without the feature `mutations` it expands to its argument. With the feature
/// a test breaks the rule by its name ([`is_broken`]): the condition then is
/// true without being evaluated, and the statements are not executed.
#[cfg(not(feature = "mutations"))]
macro_rules! rule {
    ($name:ident, { $($statements:tt)* }) => {
        { $($statements)* }
    };
    // In a block, so that clippy does not ask to negate what a caller negates.
    ($name:ident, $condition:expr) => {{ $condition }};
}

#[cfg(feature = "mutations")]
macro_rules! rule {
    ($name:ident, { $($statements:tt)* }) => {
        if !$crate::testing::is_broken($crate::testing::Rule::$name.name()) {
            $($statements)*
        }
    };
    ($name:ident, $condition:expr) => {
        ($crate::testing::is_broken($crate::testing::Rule::$name.name()) || $condition)
    };
}

pub(crate) use rule;

/// True if the environment variable `WAL_BROKEN_RULE` is `name`.
#[cfg(feature = "mutations")]
pub fn is_broken(name: &str) -> bool {
    static BROKEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let broken = BROKEN.get_or_init(|| std::env::var("WAL_BROKEN_RULE").ok());
    broken.as_deref() == Some(name)
}
