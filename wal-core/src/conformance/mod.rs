//! The suite that every [`WalCoordination`] passes: the numbered rules of the
//! coordination contract, and the protocol on top of them.
//!
//! A backend says how a database is attached ([`Backend`]), and
//! [`conformance_suite!`](crate::conformance_suite) makes a test of each case:
//!
//! ```ignore
//! struct InProcess;
//! impl wal_core::conformance::Backend for InProcess { /* … */ }
//! wal_core::conformance_suite!(InProcess);
//! ```
//!
//! `docs/backends.md` shows how a third backend is written and run, and
//! `tests/third_backend.rs` is one.
//!
//! The users of a case sit behind a *director*: it writes every call to the
//! coordination and to the files down, checks who holds which lock, and runs a
//! test's closure at a chosen call. So races are forced, not awaited: each
//! case runs the same way every time.
//!
//! | file | what it owns |
//! |---|---|
//! | `director` | the trace, and the moment at which a test steps in |
//! | `contract` | the rules that are checked at every call |
//! | `interposed` | a user's coordination and files, with the director in front |
//! | `scene` | a database in a directory, its users, pages with versions |
//! | `mutations` | which case catches which seeded mutation |
//! | `cases` | the cases, by what they are about |
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr
)] // Test code behind a feature: a failed case panics with its reason.

use std::path::Path;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::storage::Storage;

mod cases;
mod contract;
mod director;
mod interposed;
mod mutations;
mod scene;

pub use mutations::{CaughtBy, MUTATIONS};

/// What the suite needs of a backend.
pub trait Backend: 'static {
    /// The coordination under test.
    type Coordination: WalCoordination;

    /// True if a database can be attached more than once at a time, by one
    /// process. Each user of a case then has an attachment of its own; else
    /// all share one, and a second attachment must be refused.
    const MANY_ATTACHMENTS: bool;

    /// Attaches to the page store at `path`, whose file is there.
    ///
    /// # Errors
    /// What the backend gives.
    fn attach(path: &Path) -> Result<Attachment<Self::Coordination>>;
}

/// What an attachment to a database consists of.
pub struct Attachment<C> {
    /// Where the users meet.
    coordination: C,
    /// The database file and its log.
    storage: Box<dyn Storage>,
    /// Whether pages are read from the mappings that the files have.
    mapped: bool,
}

impl<C> Attachment<C> {
    /// An attachment whose pages are copied, as by [`crate::protocol::Wal::new`].
    pub fn new(coordination: C, storage: Box<dyn Storage>) -> Self {
        Attachment {
            coordination,
            storage,
            mapped: false,
        }
    }

    /// An attachment whose pages are read from the mappings that the files have, as by
    /// [`crate::protocol::Wal::new_mapped`].
    ///
    /// # Safety
    /// What [`crate::protocol::Wal::new_mapped`] asks for. So run the suite without
    /// mappings before: a backend that fails a case of it does not keep its contract.
    #[allow(unsafe_code)] // What is promised is handed on.
    pub unsafe fn mapped(coordination: C, storage: Box<dyn Storage>) -> Self {
        Attachment {
            mapped: true,
            ..Self::new(coordination, storage)
        }
    }
}

/// A case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What the case says, as a test is called.
    pub name: &'static str,
    /// Runs the case; it panics if the backend fails it.
    pub run: fn(),
}

/// All cases, for a backend.
pub fn cases<B: Backend>() -> Vec<Case> {
    crate::conformance_suite!(@list table B)
}

/// Runs the case called `name`.
///
/// # Panics
/// If the backend fails the case, or there is no such case.
pub fn run<B: Backend>(name: &str) {
    match cases::<B>().into_iter().find(|case| case.name == name) {
        Some(case) => (case.run)(),
        None => panic!("there is no case `{name}`"),
    }
}

/// Makes a `#[test]` of each case of the suite, for one
/// [`Backend`](crate::conformance::Backend).
#[macro_export]
macro_rules! conformance_suite {
    ($backend:ty) => { $crate::conformance_suite! { @list tests $backend } };
    (@list $what:ident $backend:ty) => { $crate::conformance_suite! { @$what $backend:
        // The contract of the coordination, by its numbers.
        blocks_stay_where_they_are_and_are_the_same_memory_for_all,
        a_grown_block_is_zero_and_holds_what_is_stored,
        locks_exclude_in_every_pair_of_modes,
        a_span_is_taken_whole_or_not_at_all,
        a_lock_hands_over_what_its_holder_stored,
        locks_exclude_between_threads,
        a_slot_is_taken_by_its_mark_only_while_the_mark_is_right,
        a_mark_stands_still_while_its_slot_is_held,
        a_slot_that_is_lowered_is_shared_with_its_mark,
        mark_is_raised_under_the_only_holder_of_its_slot,
        mark_is_raised_under_no_reader_of_the_old_one,
        a_sleep_ends_when_its_word_was_changed_and_woken,
        a_sleep_ends_at_its_deadline,
        a_second_attachment_is_shared_or_refused,
        // Snapshots.
        a_reader_keeps_its_snapshot_while_others_commit,
        a_reader_keeps_its_snapshot_while_others_checkpoint,
        the_newest_version_up_to_the_snapshot_is_found_across_blocks,
        a_mark_is_never_above_its_snapshot,
        more_readers_than_slots_share_marks,
        a_reader_bypasses_a_log_that_is_backfilled,
        a_commit_is_found_from_the_moment_it_is_told,
        // Commits that share a sync.
        a_group_commit_is_visible_and_write_free_before_its_sync,
        a_sync_of_another_serves_what_was_published_before_it,
        what_is_published_during_a_sync_is_not_told_synced,
        sync_of_same_first_salt_serves_no_other_generation,
        salts_of_zero_share_no_sync,
        a_group_commit_whose_log_is_gone_is_synced_in_the_database,
        a_log_that_failed_to_sync_is_written_again_before_a_durable_commit,
        a_log_that_failed_to_sync_is_written_again_before_it_is_moved,
        a_transaction_that_spilled_before_a_sync_failed_is_refused,
        who_waits_for_a_sync_that_fails_does_not_try_again,
        a_leader_that_dies_is_replaced,
        sync_that_failed_before_a_later_one_is_not_forgotten,
        poisoned_member_does_not_sync_again,
        group_commit_beside_an_unreadable_header_is_synced_in_both,
        // A log that failed to sync.
        spilling_writer_rewrites_an_unsynced_log_first,
        commit_rewrites_a_log_that_failed_since_it_began,
        log_whose_content_is_lost_is_not_rewritten,
        log_that_is_lost_while_it_is_rewritten_is_corrupt,
        failure_during_a_rewrite_is_not_forgotten,
        failed_sync_beside_an_unreadable_header_counts_for_all,
        rewrite_forgets_old_failures_first,
        writeback_that_fails_is_told_like_a_sync,
        // Threads that share a sync before anybody sees their commits.
        a_thread_writes_while_the_commit_of_another_is_synced,
        commits_of_several_threads_share_a_sync,
        a_thread_is_not_told_synced_by_a_sync_that_began_before,
        a_sync_that_fails_fails_all_threads_that_wait_for_it,
        who_has_seen_a_commit_ends_when_it_is_durable,
        a_commit_of_another_level_waits_for_those_before_it,
        write_is_not_taken_over_when_the_turn_is_over,
        a_log_is_not_written_again_over_unpublished_frames,
        a_thread_that_dies_beside_a_sync_is_in_nobodys_way,
        threads_go_on_when_the_one_that_leads_dies,
        a_rollback_beside_a_sync_takes_nothing_from_the_next_one,
        a_log_does_not_begin_anew_before_its_leader_is_done,
        a_snapshot_that_was_never_published_is_gone,
        threads_without_patience_lose_neither_commits_nor_write,
        lead_that_fails_before_its_sync_poisons,
        thread_that_panics_behind_its_commit_releases_write,
        write_stays_held_until_all_is_published,
        write_is_kept_while_a_leader_may_store_a_header,
        heir_of_a_dead_thread_leaves_write_to_the_leader,
        waiter_behind_a_failed_sync_begins_on_what_is_published,
        entries_of_a_dead_heir_are_trimmed_by_the_next,
        reads_beside_a_sync_wait_for_their_own_state,
        leader_that_dies_at_any_call_keeps_no_lock,
        // Long logs, which are read by a map.
        a_long_log_that_begins_anew_is_read_by_a_new_map,
        a_log_that_lost_its_end_is_not_read_by_the_map_of_before,
        a_log_that_lost_a_part_of_a_block_is_not_read_by_the_map_of_before,
        an_old_snapshot_sees_its_frames_beside_a_map_of_newer_ones,
        frames_that_come_to_a_block_later_are_found_beside_a_map,
        a_writer_that_reads_on_finds_its_commits_in_a_long_log,
        // Races, forced at every call.
        a_reader_overtaken_by_a_commit_begins_again,
        a_reader_overtaken_by_a_commit_and_a_checkpoint_begins_again,
        a_reader_overtaken_by_a_held_back_checkpoint_begins_again,
        a_reader_of_slot_zero_overtaken_by_a_restart_begins_again,
        a_reader_sees_one_state_whenever_a_commit_comes,
        a_writer_sees_its_state_whenever_a_checkpoint_comes,
        a_checkpoint_loses_nothing_whenever_a_commit_comes,
        a_checkpoint_loses_nothing_whenever_the_log_is_restarted,
        a_checkpoint_spares_every_reader_whenever_it_begins,
        a_commit_is_whole_whenever_a_checkpoint_comes,
        a_restart_spares_every_reader_whenever_it_begins,
        // Checkpoints.
        a_checkpoint_stops_at_the_smallest_held_mark,
        a_checkpoint_does_not_write_under_readers_of_the_database,
        a_checkpoint_moves_marks_that_nobody_holds,
        a_checkpoint_that_meets_a_half_written_header_claims_nothing,
        only_one_checkpoint_runs_at_a_time,
        a_checkpoint_writes_each_page_once_in_order,
        a_checkpoint_cuts_a_database_that_shrank,
        checkpoint_makes_a_database_as_long_as_its_commit_says,
        checkpoint_of_more_pages_than_there_are_is_refused,
        checkpoint_that_died_at_its_pages_ends_older_snapshots,
        page_behind_a_dead_checkpoints_cut_reads_as_zeros,
        the_log_is_synced_before_the_database_is_written,
        a_count_is_published_after_the_pages_and_their_sync,
        a_database_without_syncs_is_never_synced,
        // The modes of a checkpoint.
        a_full_checkpoint_waits_for_readers_and_copies_everything,
        a_full_checkpoint_waits_for_readers_of_the_database,
        checkpoint_that_gave_up_on_a_reader_waits_for_no_other,
        a_checkpoint_that_does_not_get_write_is_a_passive_one_and_says_so,
        a_passive_checkpoint_asks_nobody_and_takes_no_write,
        a_passive_checkpoint_stops_at_its_bound,
        a_restart_checkpoint_waits_until_nobody_reads_the_log,
        a_truncate_checkpoint_leaves_an_empty_log_of_a_new_generation,
        a_truncate_that_dies_at_any_call_loses_nothing,
        a_log_is_told_to_be_empty_before_it_is_cut,
        a_truncate_syncs_what_a_peer_backfilled_without,
        truncated_log_is_synced_unless_syncs_are_off,
        truncation_whose_sync_fails_is_reported,
        a_checkpoint_tells_its_progress,
        a_cancelled_checkpoint_publishes_nothing_and_leaves_no_lock,
        // Proofs, and a log with an owner.
        a_log_is_restarted_and_cut_by_a_proof,
        a_proof_of_another_state_of_the_log_is_refused,
        proof_covers_its_own_generation_and_frame_only,
        proof_is_not_made_beside_a_checkpoint,
        proof_of_a_log_that_was_restarted_meanwhile_is_none,
        a_proof_of_another_attachment_is_refused,
        a_proof_of_a_changed_database_is_refused,
        a_proof_without_a_sync_says_so,
        a_log_is_not_restarted_by_hand_over_its_users,
        a_log_with_an_owner_is_not_restarted_by_a_commit,
        // Restarts.
        a_restart_takes_new_salts_and_begins_at_frame_one,
        the_log_is_not_restarted_over_a_reader,
        the_log_is_not_restarted_while_a_checkpoint_runs,
        the_log_is_not_restarted_before_all_is_backfilled,
        a_backfill_of_a_peer_that_does_not_sync_is_synced_before_a_restart,
        a_count_that_a_dead_restart_left_hides_no_frame,
        count_that_a_recovery_took_back_keeps_the_log,
        salts_of_a_dead_writer_are_not_used_again,
        restart_that_dies_at_any_call_opens_no_older_snapshot,
        snapshot_of_a_restarted_log_is_opened,
        empty_log_with_old_frames_is_cut_by_a_truncate,
        // The limit for the size of the log.
        stale_tail_is_cut_to_the_limit_at_a_restart,
        committed_frames_beyond_the_limit_are_kept,
        log_under_a_reader_is_not_cut,
        log_that_a_peer_made_longer_is_cut,
        only_the_first_commit_of_a_generation_cuts_the_log,
        spilled_frames_of_a_commit_are_kept_by_the_limit,
        slack_behind_a_recovered_log_is_cut_at_a_restart,
        failed_cut_costs_no_commit,
        cut_log_is_synced_with_its_commit,
        writer_that_dies_around_a_cut_loses_nothing,
        replica_cuts_its_log_to_the_limit,
        // A disk that is full.
        checkpoint_without_room_is_refused_untouched,
        checkpoint_within_the_file_needs_no_room,
        backup_without_room_is_refused_before_its_first_byte,
        large_commit_without_room_is_refused_untouched,
        large_spill_without_room_leaves_its_transaction_whole,
        large_engine_frames_without_room_are_refused,
        large_batch_without_room_can_be_applied_again,
        rewrite_without_room_leaves_the_old_pages,
        restarted_log_has_room_for_what_it_had,
        small_commit_asks_for_no_free_space,
        disk_full_at_any_byte_costs_no_commit,
        // Durability.
        a_new_log_header_is_synced_before_its_first_frame,
        a_full_commit_is_synced_in_every_generation,
        a_failed_log_sync_poisons_and_the_outcome_is_told_unknown,
        a_failed_database_sync_poisons_and_publishes_nothing,
        pages_are_written_again_after_a_failed_database_sync,
        a_log_write_that_fails_at_any_byte_commits_all_or_nothing,
        failed_commit_frame_is_zeroed_durably,
        // Death and errors at every call.
        a_writer_that_dies_at_any_call_commits_all_or_nothing,
        a_restarting_writer_that_dies_at_any_call_loses_nothing,
        a_checkpoint_that_dies_at_any_call_loses_nothing,
        a_recovery_that_dies_at_any_call_is_done_by_the_next,
        an_error_at_any_call_of_a_commit_leaves_no_lock,
        an_error_at_any_call_of_a_checkpoint_leaves_no_lock,
        an_error_at_any_call_of_a_reader_leaves_no_lock,
        leftovers_of_a_dead_writer_are_trimmed,
        leftovers_across_blocks_are_overwritten,
        // Recovery.
        a_lost_index_is_rebuilt_from_the_log,
        garbage_in_the_index_is_replaced_by_what_the_log_says,
        a_damaged_header_is_mended_while_readers_stay,
        a_recovery_resets_the_backfilled_count,
        a_log_torn_at_any_byte_gives_the_committed_prefix,
        a_log_with_any_byte_changed_gives_the_committed_prefix,
        frames_without_their_commit_are_not_recovered,
        a_log_of_many_blocks_is_recovered,
        a_log_without_a_valid_header_is_empty,
        the_log_grows_and_restarts_after_a_recovery,
        log_of_another_page_size_is_refused,
        log_that_was_recovered_meanwhile_is_not_recovered_again,
        garbage_is_not_believed_whenever_its_recovery_dies,
        // Writing.
        a_writer_shuts_out_writers_and_nobody_else,
        a_writer_that_waits_is_woken,
        a_writer_that_cannot_recover_gives_write_back,
        a_stale_reader_cannot_become_a_writer,
        a_current_reader_becomes_a_writer,
        an_empty_commit_leaves_no_trace,
        a_rollback_leaves_no_trace,
        each_commit_changes_the_header,
        a_commit_leaves_two_equal_headers,
        a_database_grows_from_nothing,
        a_database_grows_and_shrinks,
        pages_beyond_the_end_are_refused,
        the_page_of_the_lock_bytes_is_passed_over_and_refused,
        database_has_no_more_pages_than_sqlite_numbers,
        the_vacuum_lock_shuts_everyone_out_and_lets_nobody_be_overrun,
        // Spilling.
        a_spilled_page_is_seen_by_its_transaction_and_by_nobody_else,
        a_budget_of_nothing_never_spills,
        a_spilled_page_is_overwritten_in_its_frame,
        a_published_frame_is_not_overwritten_by_a_spill,
        a_transaction_that_is_all_spilled_ends_with_a_commit_frame,
        the_log_is_restarted_once_by_the_first_spill,
        a_spilled_commit_is_written_and_synced_in_order,
        a_rollback_after_a_spill_leaves_nothing_in_the_index,
        a_rollback_names_every_page_that_was_changed,
        a_spill_across_blocks_is_rolled_back_and_done_again,
        a_failed_commit_of_a_spilled_transaction_is_taken_back,
        a_transaction_goes_on_after_a_failed_spill,
        a_spilling_writer_that_dies_at_any_call_commits_all_or_nothing,
        a_spilling_writer_that_dies_after_a_restart_loses_nothing,
        an_error_at_any_call_of_a_spilled_commit_leaves_no_lock,
        // Savepoints.
        a_rollback_to_a_savepoint_restores_pages_and_size,
        a_rollback_to_a_savepoint_brings_back_what_was_cut_off,
        savepoints_lie_one_within_the_other,
        a_released_savepoint_keeps_its_changes_for_the_outer_one,
        a_savepoint_that_is_gone_or_foreign_is_refused,
        a_savepoint_outlives_a_restart_of_the_log,
        a_frame_before_a_savepoint_is_not_overwritten,
        checksums_are_made_right_behind_a_rollback_to_a_savepoint,
        // Frames of an engine.
        frames_of_an_engine_are_overwritten_cut_and_committed,
        frames_that_are_undone_are_named_and_leave_nothing,
        a_mark_of_frames_outlives_a_restart_of_the_log,
        a_committed_transaction_goes_on_reading_at_its_commit,
        what_an_engine_reads_on_is_not_overwritten,
        frames_that_could_not_be_written_hide_none_that_are_committed,
        only_frames_that_are_kept_in_the_log_are_read,
        pages_of_another_size_are_refused_as_frames,
        a_proof_without_a_sync_does_not_serve_who_syncs_now,
        // Calls of an engine that no pager uses.
        commit_after_failed_commit_and_cut_is_recovered,
        commit_of_no_pages_is_refused_and_keeps_frames,
        commit_of_wrong_size_is_refused_and_keeps_frames,
        frames_of_pages_that_hold_no_data_are_refused,
        frames_passed_twice_or_unsorted_hold_the_last_one,
        mark_of_another_transaction_is_refused,
        mark_behind_a_cut_is_refused,
        page_overwritten_in_part_is_not_committed,
        page_overwritten_in_part_may_be_cut_off,
        entries_of_failed_call_hide_no_committed_frame,
        changed_pages_beside_frames_are_refused,
        frames_without_their_size_are_not_committed,
        transaction_after_commit_of_frames_has_changed_nothing,
        page_that_was_not_passed_is_read_by_its_committer,
        engine_calls_that_fail_anywhere_match_the_model,
        // Waiting.
        a_writer_asks_again_until_its_handler_says_no,
        a_writer_begins_when_its_handler_let_the_other_end,
        writers_get_write_in_the_order_of_their_coming,
        a_writer_whose_turn_is_over_does_not_pass_the_line,
        a_writer_that_gives_up_in_line_lets_the_next_one_go_on,
        a_busy_lock_names_its_holder,
        a_waiting_writer_is_cancelled_from_another_thread,
        a_change_is_told_to_who_asks,
        who_waits_for_a_change_is_woken_by_a_commit,
        who_waits_for_a_change_is_cancelled,
        // Snapshots as values.
        a_saved_snapshot_is_opened_again_by_another_user,
        a_snapshot_that_a_checkpoint_has_passed_is_gone,
        snapshot_that_one_backfilled_frame_has_passed_is_gone,
        snapshot_before_the_end_of_a_recovered_log_is_gone,
        a_snapshot_that_a_dead_checkpoint_may_have_passed_is_gone,
        an_opened_snapshot_finds_what_a_checkpoint_left_out,
        a_snapshot_is_not_opened_while_a_checkpoint_runs,
        a_snapshot_for_which_readers_leave_no_slot_is_busy,
        a_snapshot_of_an_older_log_is_gone,
        snapshot_of_a_log_restarted_before_its_lock_is_gone,
        the_pages_that_changed_between_two_snapshots_are_told,
        pages_changed_since_what_comes_later_are_not_told,
        pages_that_were_cut_off_are_not_told_as_changed,
        bytes_that_are_no_snapshot_are_refused,
        // Tails.
        a_tail_gives_every_committed_frame_once,
        a_tail_shows_nothing_that_is_not_committed,
        tail_keeps_its_state_whenever_a_checkpoint_comes,
        tail_beside_a_reader_in_its_slot_leaves_the_mark,
        the_log_does_not_begin_anew_behind_a_tail,
        a_tail_restarts_the_log_without_a_gap,
        tail_whose_restart_failed_gives_no_frame_of_the_log,
        tail_whose_restart_failed_misses_no_frame,
        tail_syncs_a_peers_backfill_before_it_restarts_the_log,
        a_tail_goes_on_where_it_stood_while_the_log_is_the_same,
        a_tail_is_not_resumed_where_the_log_has_lost_frames,
        what_was_seen_of_an_empty_log_is_not_taken_for_another_one,
        a_log_begins_anew_though_commits_keep_coming,
        a_log_that_is_all_moved_begins_anew_once_its_last_reader_ends,
        a_log_that_a_peer_moves_begins_anew_all_the_same,
        a_long_log_that_a_peer_moves_is_not_checkpointed_at_each_commit,
        writers_do_not_wait_again_and_again_for_a_reader_that_stays,
        a_second_transaction_on_a_snapshot_keeps_it_by_itself,
        a_snapshot_that_is_too_old_gives_no_more_pages,
        a_writer_waits_while_a_reader_keeps_a_long_log,
        an_owner_of_the_log_lets_writers_wait_for_it,
        applied_frames_make_the_log_the_same,
        applied_frames_show_themselves_at_a_commit_mark,
        a_generation_is_begun_once_whatever_was_given_since,
        a_frame_that_is_not_the_next_of_its_log_is_refused,
        a_generation_is_followed_by_the_next_without_a_gap,
        copy_syncs_its_frames_before_their_log_header,
        a_copy_that_dies_while_it_catches_up_is_never_mixed,
        a_replica_that_dies_at_any_call_goes_on_where_it_stands,
        an_error_at_any_call_of_applying_leaves_no_lock,
        replica_syncs_the_next_log_header_before_its_frames,
        frame_of_another_length_is_refused,
        generation_of_another_page_size_is_refused,
        generation_is_not_begun_over_uncommitted_frames,
        copy_that_gave_up_is_not_taken_for_a_follower,
        apply_does_not_begin_on_an_unpublished_commit,
        replica_rewrites_an_unsynced_log_before_its_frames,
        apply_leaves_nothing_uncommitted_in_the_index,
        place_in_an_empty_log_of_sqlite_is_no_place_to_go_on,
        a_replica_of_what_a_tail_gives_is_the_database,
        frame_with_numbers_beyond_sqlites_is_not_applied,
        // Vacuum.
        a_rewrite_replaces_all_pages_while_readers_go_on,
        a_rewrite_can_make_a_database_longer,
        a_rewrite_without_pages_or_with_part_of_one_is_refused,
        an_exclusive_vacuum_leaves_a_short_file_and_an_empty_log,
        an_exclusive_vacuum_that_dies_at_any_call_is_whole_or_not_there,
        a_vacuum_after_a_failed_sync_is_refused,
        vacuum_transaction_that_is_swapped_out_keeps_its_locks,
        // The end.
        the_last_one_out_removes_the_log_and_no_one_before,
        last_closer_syncs_a_peers_backfill_before_it_removes_the_log,
        last_closer_with_a_reader_leaves_the_log,
        last_closer_that_cannot_read_the_header_leaves_the_log,
        a_log_that_is_not_backfilled_survives_the_last_one,
        removed_log_is_durable_when_close_returns,
        persistent_log_is_emptied_durably_if_it_has_a_limit,
        persistent_log_of_an_open_reader_is_not_cut_by_close,
    } };
    (@tests $backend:ty: $($case:ident,)*) => {
        $(#[test] fn $case() { $crate::conformance::run::<$backend>(stringify!($case)); })*
    };
    (@table $backend:ident: $($case:ident,)*) => {
        vec![$(Case { name: stringify!($case), run: cases::$case::<$backend> },)*]
    };
    (@table $backend:ty: $($case:ident,)*) => {
        vec![$(Case { name: stringify!($case), run: cases::$case::<$backend> },)*]
    };
}
