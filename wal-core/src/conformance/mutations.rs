//! Which case catches which seeded mutation.

use crate::testing::Mutation;

/// Which test turns red when a rule is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaughtBy {
    /// A case of the suite, on any backend.
    Case(&'static str),
    /// A loom test of wal-core, because no processor of the usual kind shows
    /// the difference.
    Loom(&'static str),
    /// A test in which worker processes are killed at a step between two calls
    /// of the seam.
    Killed(&'static str),
}

/// Every mutation, with the test that catches it.
pub const MUTATIONS: &[(Mutation, CaughtBy)] = {
    use CaughtBy::{Case, Killed, Loom};
    use Mutation as M;
    &[
        (
            M::SkipHeaderRecheck,
            Case("a_reader_overtaken_by_a_held_back_checkpoint_begins_again"),
        ),
        (
            M::SkipSlotZeroRecheck,
            Case("a_reader_of_slot_zero_overtaken_by_a_restart_begins_again"),
        ),
        (
            M::MarkAboveSnapshot,
            Case("a_mark_is_never_above_its_snapshot"),
        ),
        (
            M::SkipSaltCheck,
            Case("a_checkpoint_loses_nothing_whenever_the_log_is_restarted"),
        ),
        (
            M::IgnoreReadMarks,
            Case("a_checkpoint_stops_at_the_smallest_held_mark"),
        ),
        (
            M::SkipReadZero,
            Case("a_checkpoint_does_not_write_under_readers_of_the_database"),
        ),
        (
            M::SkipLogSyncBeforeBackfill,
            Case("the_log_is_synced_before_the_database_is_written"),
        ),
        (
            M::BackfilledBeforePages,
            Case("a_count_is_published_after_the_pages_and_their_sync"),
        ),
        (
            M::IndexAfterHeader,
            Case("a_commit_is_found_from_the_moment_it_is_told"),
        ),
        (
            M::SkipCommitSync,
            Case("a_full_commit_is_synced_in_every_generation"),
        ),
        (M::OneHeaderCopy, Case("a_commit_leaves_two_equal_headers")),
        (M::KeepChangeCounter, Case("each_commit_changes_the_header")),
        (
            M::SkipStaleCheck,
            Case("a_stale_reader_cannot_become_a_writer"),
        ),
        (M::SkipTrim, Case("leftovers_of_a_dead_writer_are_trimmed")),
        (
            M::IgnoreMaxFrame,
            Case("a_reader_keeps_its_snapshot_while_others_commit"),
        ),
        (
            M::FirstHitWins,
            Case("the_newest_version_up_to_the_snapshot_is_found_across_blocks"),
        ),
        (
            M::KeepMapOfOldGeneration,
            Case("a_long_log_that_begins_anew_is_read_by_a_new_map"),
        ),
        (
            M::FeedBeyondSnapshot,
            Case("frames_that_come_to_a_block_later_are_found_beside_a_map"),
        ),
        (
            M::MapIgnoresSnapshot,
            Case("an_old_snapshot_sees_its_frames_beside_a_map_of_newer_ones"),
        ),
        (
            M::RestartOverReaders,
            Case("the_log_is_not_restarted_over_a_reader"),
        ),
        (
            M::HeaderBeforeCount,
            Killed("a_commit_is_there_or_not_when_its_process_is_killed"),
        ),
        (
            M::KeepStaleCount,
            Case("a_count_that_a_dead_restart_left_hides_no_frame"),
        ),
        (
            M::TailBeyondPublished,
            Case("a_tail_shows_nothing_that_is_not_committed"),
        ),
        (
            M::HeaderBeforeAppliedFrames,
            Case("a_copy_that_dies_while_it_catches_up_is_never_mixed"),
        ),
        (
            M::AcceptOtherFrame,
            Case("a_frame_that_is_not_the_next_of_its_log_is_refused"),
        ),
        (
            M::IgnoreAttempted,
            Case("a_snapshot_that_a_checkpoint_has_passed_is_gone"),
        ),
        (
            M::SkipBackfilledFrames,
            Case("an_opened_snapshot_finds_what_a_checkpoint_left_out"),
        ),
        (
            M::OpenSnapshotBesideCheckpoint,
            Case("a_snapshot_is_not_opened_while_a_checkpoint_runs"),
        ),
        (
            M::IgnoreLogLimit,
            Case("a_writer_waits_while_a_reader_keeps_a_long_log"),
        ),
        (
            M::IgnoreAge,
            Case("a_snapshot_that_is_too_old_gives_no_more_pages"),
        ),
        (
            M::CloneWithoutLock,
            Case("a_second_transaction_on_a_snapshot_keeps_it_by_itself"),
        ),
        (
            M::PassTheLine,
            Case("a_writer_whose_turn_is_over_does_not_pass_the_line"),
        ),
        (
            M::WakeNobody,
            Case("who_waits_for_a_change_is_woken_by_a_commit"),
        ),
        (
            M::KeepSalts,
            Case("a_restart_takes_new_salts_and_begins_at_frame_one"),
        ),
        (
            M::RestartWithoutCheckpointLock,
            Case("the_log_is_not_restarted_while_a_checkpoint_runs"),
        ),
        (
            M::SkipLogHeaderSync,
            Case("a_new_log_header_is_synced_before_its_first_frame"),
        ),
        (
            M::KeepBackfilled,
            Case("a_recovery_resets_the_backfilled_count"),
        ),
        (
            M::RecoverUncommitted,
            Case("frames_without_their_commit_are_not_recovered"),
        ),
        (
            M::SkipFrameChecksum,
            Case("a_log_with_any_byte_changed_gives_the_committed_prefix"),
        ),
        (
            M::UnlockBeforeClear,
            Case("a_checkpoint_stops_at_the_smallest_held_mark"),
        ),
        (
            M::SkipProof,
            Case("a_backfill_of_a_peer_that_does_not_sync_is_synced_before_a_restart"),
        ),
        (
            M::AcceptAnyProof,
            Case("a_proof_of_a_changed_database_is_refused"),
        ),
        (
            M::MoveBusyMarks,
            Case("a_damaged_header_is_mended_while_readers_stay"),
        ),
        (
            M::KeepFailedFrames,
            Case("a_log_write_that_fails_at_any_byte_commits_all_or_nothing"),
        ),
        (
            M::PublishSpill,
            Case("a_spilled_page_is_seen_by_its_transaction_and_by_nobody_else"),
        ),
        (
            M::SpillNewestOnly,
            Case("a_rollback_to_a_savepoint_restores_pages_and_size"),
        ),
        (
            M::OverwriteSavepointFrame,
            Case("a_frame_before_a_savepoint_is_not_overwritten"),
        ),
        (
            M::OverwritePublishedFrame,
            Case("a_published_frame_is_not_overwritten_by_a_spill"),
        ),
        (
            M::SkipChecksumRewrite,
            Case("a_spilled_page_is_overwritten_in_its_frame"),
        ),
        (
            M::KeepRolledBackEntries,
            Case("a_rollback_after_a_spill_leaves_nothing_in_the_index"),
        ),
        (
            M::KeepPageCountAtRollback,
            Case("a_rollback_to_a_savepoint_restores_pages_and_size"),
        ),
        (
            M::RetryFailedSync,
            Case("a_failed_log_sync_poisons_and_the_outcome_is_told_unknown"),
        ),
        (
            M::DropStoreFence,
            Loom("a_reader_never_takes_a_mixture_for_a_header"),
        ),
        (
            M::DropLoadFence,
            Loom("a_reader_never_takes_a_mixture_for_a_header"),
        ),
    ]
};
