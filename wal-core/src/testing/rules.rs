//! The rules of the protocol that a test can break, and the macro that marks
//! each where it is enforced.

named! {
    /// A rule of the protocol that a test can break by name, marked with `rule!`
    /// where it is enforced.
    Rule:
    /// Begin read: the header is not compared again once the lock is held.
    HeaderRecheck => "header-recheck",
    /// A tail raises its mark by a backfilled count that may be of a newer header.
    RaiseHeaderRecheck => "raise-header-recheck",
    /// Begin read: slot 0 is taken without comparing the header again.
    SlotZeroRecheck => "slot-zero-recheck",
    /// Begin read: a mark above the snapshot is chosen.
    MarkWithinSnapshot => "mark-within-snapshot",
    /// Checkpoint: the salts are not compared under Read 0.
    BackfillSaltCheck => "backfill-salt-check",
    /// Checkpoint: read marks of others are ignored.
    BackfillStopsAtMarks => "backfill-stops-at-marks",
    /// Checkpoint: Read 0 is not taken while the database is written.
    BackfillHoldsReadZero => "backfill-holds-read-zero",
    /// Checkpoint: the log is not synced before the database is written.
    LogSyncBeforeBackfill => "log-sync-before-backfill",
    /// Checkpoint: the count is published before the pages are written.
    BackfilledBeforePages => "backfilled-before-pages",
    /// Commit: the index is stored after the header.
    IndexAfterHeader => "index-after-header",
    /// Commit: the log is not synced at `Synchronous::Full`.
    CommitSync => "commit-sync",
    /// Whatever lets a file grow: how much room the disk has is not looked at.
    FreeSpaceCheck => "free-space-check",
    /// Commit: a log that is restarted keeps its length, whatever its limit is.
    LogSizeLimit => "log-size-limit",
    /// Commit: a log that is restarted is cut to its limit, committed frames or not.
    CutCommittedFrames => "cut-committed-frames",
    /// Commit: only the first header copy is stored.
    SecondHeaderCopy => "second-header-copy",
    /// Commit: who waits for a change is not woken.
    CommitNotifiesWaiters => "commit-notifies-waiters",
    /// Begin write: those who wait in line are passed.
    WriterQueueOrder => "writer-queue-order",
    /// Begin write: how long the log is does not matter.
    LogFrameLimit => "log-frame-limit",
    /// Read: how old a snapshot is does not matter.
    SnapshotAgeLimit => "snapshot-age-limit",
    /// Read: a second transaction on a snapshot takes no lock.
    CloneWithoutLock => "clone-without-lock",
    /// Commit: the change counter of the header stays.
    ChangeCounterAdvances => "change-counter-advances",
    /// Begin write: the snapshot is not compared with the live header.
    WriterOnNewestSnapshot => "writer-on-newest-snapshot",
    /// Begin write: leftovers of a dead writer are not trimmed.
    LeftoversAreTrimmed => "leftovers-are-trimmed",
    /// Look-up: frames above the snapshot are not skipped.
    FoundWithinSnapshot => "found-within-snapshot",
    /// Look-up: the first hit of a chain is taken, not the newest.
    FirstHitWins => "first-hit-wins",
    /// Page map: it is taken up without a look whether it is of this log.
    MapOfThisLog => "map-of-this-log",
    /// Page map: the last frame that was fed is not compared with the log, only
    /// that of the last whole block.
    SkipLastSeal => "skip-last-seal",
    /// Page map: a frame behind the snapshot passes for one of it.
    MapWithinSnapshot => "map-within-snapshot",
    /// Truncate: the log is not synced once it is cut.
    TruncateSync => "truncate-sync",
    /// Close: the removal of the log is not made durable.
    RemovalSync => "removal-sync",
    /// Restart: readers of the log are not shut out.
    RestartHoldsReadMarks => "restart-holds-read-marks",
    /// Restart: a proof is not looked at.
    ProofMatchesDatabase => "proof-matches-database",
    /// Restart: the header is published before the count goes back to 0.
    HeaderBeforeCount => "header-before-count",
    /// Begin write: a count of an older generation is left as it is.
    CountOfThisGeneration => "count-of-this-generation",
    /// Tail: a frame beyond the published ones is handed out.
    TailBeyondPublished => "tail-beyond-published",
    /// Apply: the header of a log is written before its first frames.
    CopyHeaderLast => "copy-header-last",
    /// Apply: a frame that differs from the one of the log passes for it.
    AppliedFrameMatches => "applied-frame-matches",
    /// Open a snapshot: how far checkpoints went is not looked at.
    AttemptedWithinSnapshot => "attempted-within-snapshot",
    /// Open a snapshot: frames that are backfilled are passed over.
    SkipBackfilledFrames => "skip-backfilled-frames",
    /// Open a snapshot: a checkpoint that is running is not looked for.
    OpenSnapshotHoldsCkpt => "open-snapshot-holds-ckpt",
    /// Open a snapshot: one frame beyond it may be in the database file.
    AcceptOneFrameBeyond => "accept-one-frame-beyond",
    /// Recovery: no checkpoint is taken to have gone anywhere.
    ForgetAttempted => "forget-attempted",
    /// Close: what a peer backfilled is not made durable before the log goes.
    CloseProvesBackfill => "close-proves-backfill",
    /// Apply: the frames of a copy are not synced before the header of their log.
    CopySyncBeforeHeader => "copy-sync-before-header",
    /// Tail: a restart of the log that it did not keep is not noticed.
    TailRestartCheck => "tail-restart-check",
    /// Checkpoint: how far it goes is told after the pages are written.
    AttemptedBeforePages => "attempted-before-pages",
    /// Checkpoint: a database file that is too short stays so.
    KeepShortDatabase => "keep-short-database",
    /// Checkpoint: each reader is waited for, though one stays.
    OneWaitPerCheckpoint => "one-wait-per-checkpoint",
    /// Checkpoint: pages behind the end of the database are written.
    BackfillWithinDatabase => "backfill-within-database",
    /// Checkpoint: a page is written though a newer frame of it stays in the log.
    CopyOlderVersions => "copy-older-versions",
    /// Checkpoint: a size that the log and the file cannot make is believed.
    DatabaseSizeCheck => "database-size-check",
    /// Close: the log is removed though not all of it is in the database file.
    RemovedLogIsBackfilled => "removed-log-is-backfilled",
    /// Close: the log is removed though the header cannot be read.
    RemoveUnreadLog => "remove-unread-log",
    /// Group commit: how far the log is synced is asked before whether a sync failed.
    CoverageBeforeFailure => "coverage-before-failure",
    /// Group commit: a poisoned attachment leads.
    LeaderIsNotPoisoned => "leader-is-not-poisoned",
    /// Group commit: a header that cannot be read passes for one of the same log.
    TrustUnreadableHeader => "trust-unreadable-header",
    /// Mending: the log is written again without a look at what it holds.
    RewriteCoversPublished => "rewrite-covers-published",
    /// Mending: what was written again is not looked at.
    RewriteCheck => "rewrite-check",
    /// Mending: a failure that was told meanwhile is forgotten.
    ForgetLateFailure => "forget-late-failure",
    /// Mending: the next sync may be told of what is written again.
    RewriteForgetsFailures => "rewrite-forgets-failures",
    /// Sync: a failure beside a header that cannot be read is not told.
    UnknownFailureCountsForAll => "unknown-failure-counts-for-all",
    /// Mending: a sync that failed since the transaction began to write is not heard of.
    CommitRewritesLog => "commit-rewrites-log",
    /// Commit: a commit frame that is taken back may be there after a power failure.
    ZeroedFrameSync => "zeroed-frame-sync",
    /// Commit: what the system cannot write ahead of a sync is no failure.
    FailedWritebackPoisons => "failed-writeback-poisons",
    /// Commit: the salts of a writer that died are used again.
    FreshSalts => "fresh-salts",
    /// Spill: frames are added to a log that failed to sync.
    SpillRewritesLog => "spill-rewrites-log",
    /// Proof: it is made though the log was restarted meanwhile.
    ProofHeaderRecheck => "proof-header-recheck",
    /// Relay: a thread that panics behind its commit leaves Write kept.
    PanicSettles => "panic-settles",
    /// Relay: a lead that failed before its sync does not poison.
    FailedLeadPoisons => "failed-lead-poisons",
    /// Relay: a thread that panics behind its commit does not poison.
    PanicPoisons => "panic-poisons",
    /// Relay: Write is given back while a leader may yet store a header.
    LeaderKeepsWrite => "leader-keeps-write",
    /// Relay: Write is taken over from a commit that is never published.
    InheritUnlessFailed => "inherit-unless-failed",
    /// Relay: the thread that may take Write over is not woken.
    SuccessorNotified => "successor-notified",
    /// Relay: who gives up its place in line stays an heir.
    LeaverIsNoSuccessor => "leaver-is-no-successor",
    /// Relay: what a thread that panicked left in the index is not trimmed.
    InheritTrimsIndex => "inherit-trims-index",
    /// Relay: the reading side of a writer goes by what is published.
    OwnStateIsPublished => "own-state-is-published",
    /// Open a snapshot: one beyond the published frame is opened.
    SavedSnapshotIsPublished => "saved-snapshot-is-published",
    /// Changed pages: those since a state that was never published are told.
    OlderStateIsInLog => "older-state-is-in-log",
    /// Changed pages: those since a later state, or one of another log, are told.
    ChangedSinceOlder => "changed-since-older",
    /// Changed pages: those that were cut off are told.
    ChangedWithinDatabase => "changed-within-database",
    /// Restart: how far checkpoints went is forgotten before the header is stored.
    AttemptedBeforeHeader => "attempted-before-header",
    /// Restart: how far checkpoints went in the log before stays.
    RestartResetsAttempted => "restart-resets-attempted",
    /// Restart: the read marks stay.
    RestartResetsMarks => "restart-resets-marks",
    /// Restart: the count is not looked at again under the locks.
    RestartCountRecheck => "restart-count-recheck",
    /// Truncate: a log without a commit keeps its old frames.
    TruncateCutsEmptyLog => "truncate-cuts-empty-log",
    /// Recovery: the header is stored before the rest of the index is right.
    RecoveredHeaderFirst => "recovered-header-first",
    /// Recovery: an index that another has recovered meanwhile is recovered again.
    RecoverAgain => "recover-again",
    /// Apply: it begins on what another thread has not published yet.
    ApplyOnUnpublished => "apply-on-unpublished",
    /// Apply: a generation begins over frames that are not committed.
    AppliedGenerationIsCommitted => "applied-generation-is-committed",
    /// Apply: a copy publishes the salts of a log before it has its frames.
    CopyHidesSalts => "copy-hides-salts",
    /// Apply: a frame of another length is taken if its checksum is right.
    AppliedFrameLength => "applied-frame-length",
    /// Apply: the header of a generation, or its absence, is not synced before a frame.
    AppliedHeaderSync => "applied-header-sync",
    /// Apply: the old header stays while a copy is given its frames.
    CopyErasesOldHeader => "copy-erases-old-header",
    /// Apply: a commit at `Full` is not synced.
    ApplySync => "apply-sync",
    /// Apply: frames are added to a log that failed to sync.
    ApplyRewritesLog => "apply-rewrites-log",
    /// Apply: entries of frames that are not committed stay in the index.
    ApplyIsRolledBack => "apply-is-rolled-back",
    /// Salts: those of an empty log of SQLite name it.
    EmptyLogIsUnnamed => "empty-log-is-unnamed",
    /// Restart: the salts stay.
    KeepSalts => "keep-salts",
    /// Restart: Checkpoint is not taken.
    RestartHoldsCkpt => "restart-holds-ckpt",
    /// Restart: the new log header is not synced.
    LogHeaderSync => "log-header-sync",
    /// Recovery: the backfilled count is kept.
    RecoveryResetsBackfilled => "recovery-resets-backfilled",
    /// Recovery: frames after the last commit count.
    RecoveryEndsAtCommit => "recovery-ends-at-commit",
    /// Recovery: the checksum chain of frames is not followed.
    SkipFrameChecksum => "skip-frame-checksum",
    /// Recovery: marks of slots that are in use are moved.
    BusyMarksStay => "busy-marks-stay",
    /// Restart: the database is not synced for a backfill of somebody else.
    ProofSync => "proof-sync",
    /// Commit: frames of a failed write are left as they are.
    FailedFrameIsZeroed => "failed-frame-is-zeroed",
    /// Spill: the frames are published.
    PublishSpill => "publish-spill",
    /// Spill: what pages were at a savepoint is not written.
    SpillNewestOnly => "spill-newest-only",
    /// Spill: a frame that a savepoint needs is overwritten.
    OverwriteSavepointFrame => "overwrite-savepoint-frame",
    /// Spill: a published frame is overwritten.
    OverwritePublishedFrame => "overwrite-published-frame",
    /// Commit: checksums behind an overwritten frame are left as they are.
    ChecksumRewrite => "checksum-rewrite",
    /// Commit: a page that a failed call has overwritten in part is committed.
    UnsettledPageCheck => "unsettled-page-check",
    /// Cut: the checksum for the next frame is not read from the log.
    KeepChecksumAtCut => "keep-checksum-at-cut",
    /// Rollback: index entries of spilled frames stay.
    RollbackTrimsIndex => "rollback-trims-index",
    /// Rollback to a savepoint: the size of the database stays.
    RollbackRestoresPageCount => "rollback-restores-page-count",
    /// Sync: a handle goes on after a failed sync.
    FailedSyncPoisons => "failed-sync-poisons",
    /// Group commit: how far the log is written is looked at after its sync.
    SampleAfterSync => "sample-after-sync",
    /// Group commit: a sync of the log serves a commit that is not in it any more.
    SyncedGenerationCheck => "synced-generation-check",
    /// Relay: a commit is published before its sync.
    PublishUnsynced => "publish-unsynced",
    /// Relay: what was committed while the log was synced is published, too.
    PublishNewest => "publish-newest",
    /// Saved snapshots: one that was never published is opened all the same.
    SnapshotSeal => "snapshot-seal",
    /// A tail goes on in a log that has another frame where it stood.
    TailSeal => "tail-seal",
    /// Relay: Write is taken over when the turn is over, too.
    InheritWithinTimeSlice => "inherit-within-time-slice",
    /// Relay: the log is written again over what is not published.
    PublishBeforeRewrite => "publish-before-rewrite",
    /// Relay: who has seen what is not durable ends before it is.
    WriterWaitsForBase => "writer-waits-for-base",
    /// Relay: who is passed Write goes on from what is published.
    InheritPublished => "inherit-published",
    /// Group commit: who finds that a sync has failed tries another one.
    FailedGroupSyncIsFinal => "failed-group-sync-is-final",
    /// Sync: a log that failed to sync is not written again.
    UnsyncedLogIsRewritten => "unsynced-log-is-rewritten",
    /// Header: no fence between the copies when they are stored.
    HeaderStoreFence => "header-store-fence",
    /// Readers: a mark that is set, and the look at the header behind it, are in no order.
    MarkFence => "mark-fence",
    /// Header: no fence between the copies when they are loaded.
    HeaderLoadFence => "header-load-fence",
    /// Guards: the lock is released before the data it protects is cleared.
    UnlockBeforeClear => "unlock-before-clear",
}

/// Marks a rule where it is enforced, and names it:
///
/// - `rule!(Name, condition)` is a condition that the protocol demands;
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

/// True if a test broke this rule; never without the feature `mutations`.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub fn mutated(_: Rule) -> bool {
    false
}

/// True if a test broke this rule.
#[cfg(feature = "mutations")]
pub fn mutated(rule: Rule) -> bool {
    is_broken(rule.name())
}

pub use Rule as Mutation;
