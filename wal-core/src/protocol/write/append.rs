//! Turns dirty pages into frames, and frames into a commit.
//!
//! # Protocol
//! The caller holds Write. In this order:
//! 1. the log is restarted if that can be done at once;
//! 2. a log that begins anew gets its header, durable before the first frame
//!    that needs it: a power failure must not leave new frames behind an old
//!    header's generation, nor the other way round;
//! 3. pages that the transaction has spilled before and changed again are
//!    overwritten in their frames, all but one, and the checksums from there
//!    on made right;
//! 4. the file system has room for all other frames ([`crate::protocol::free_space`]), index
//!    blocks for them are made, and the entries stored: nobody looks above the published frame, and whatever fails here has cost
//!    nothing that anybody else sees;
//! 5. all of these are written in vectored writes, the commit frame last; a log
//!    that begins anew is cut to its limit, which the sync that follows makes
//!    durable too;
//! 6. the log is synced, if each commit is to survive a power failure and does
//!    not share a sync with others after step 7;
//! 7. the header is published: the commit is visible.
//!
//! Steps 6 and 7 may be left to the [relay](crate::protocol::durability::pipelined_commit).
//!
//! A transaction that spilled has done steps 1 and 2 before.
//!
//! # Ordering
//! Entries are stored before the header; the fence in the header cell keeps
//! them so for whoever sees the header.
//!
//! # Crash
//! Before step 7 nobody sees anything: the next writer trims the entries and
//! overwrites the frames. If the process dies between 5 and 7 and the index
//! is rebuilt from the log, the transaction is there, complete. Before 5 there
//! is no commit frame, so it does not matter which checksums are right.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{
    ByteOrder, DatabaseHeader, FRAME_HEADER_LEN, FrameHeader, LogHeader, frame_end, frame_offset,
};
use crate::index::{self, IndexHeader, WritableBlock};
use crate::protocol::config::{DatabaseKind, Synchronous, WalConfig};
use crate::protocol::durability::group_commit::CommitSync;
use crate::protocol::handle::Wal;
use crate::protocol::write::own_frames::{LogEnd, OwnFrames};
use crate::protocol::write::page_one;
use crate::protocol::write::spill::Placed;
use crate::protocol::write::write_tx::WriteTx;
use crate::testing::{Point, rule, step};
use crate::types::{FrameNo, MAX_FRAME, PageNo, Salts};

/// The log in parts: the disk begins with one when it is full.
const PART: u64 = 512 << 10;

/// Frames that are ready to be written: their headers, with the checksums that
/// chain them to the log.
#[derive(Debug)]
pub(in crate::protocol) struct PreparedFrames<'p> {
    pub(in crate::protocol) frames: Vec<([u8; FRAME_HEADER_LEN], &'p [u8])>,
    pub(in crate::protocol) first: FrameNo,
    pub(in crate::protocol) last: FrameNo,
    /// The end of the log behind each of them.
    pub(in crate::protocol) ends: Vec<LogEnd>,
}

/// Commits what `tx` changed, and gives the state that is published then, or
/// left unpublished; `None` if nothing was changed.
pub(in crate::protocol) fn commit<C: WalCoordination>(
    tx: &mut WriteTx<C>,
    sync: CommitSync,
) -> Result<Option<IndexHeader>> {
    tx.check_changes_pages("a commit")?;
    tx.changes.release_all();
    if tx.is_unchanged() {
        return Ok(None);
    }
    stamp_page_one(tx)?;
    let wal = tx.wal().clone();
    let (own, changes) = tx.begin_own_frames()?;
    let pages = changes.dirty().iter();
    let pages = pages.map(|(&page, content)| (page, &**content));
    let placed = wal.place(own, None, pages)?;
    wal.commit_placed(own, placed, changes.page_count(), sync)
        .map(Some)
}

/// A SQLite database's page 1 tells its size. It is logged with every change
/// of the size, and stamped whenever it is logged. A commit needs at least one
/// frame, for which page 1 serves too.
fn stamp_page_one<C: WalCoordination>(tx: &mut WriteTx<C>) -> Result<()> {
    let resized = tx.page_count() != tx.read.page_count();
    let is_sqlite = tx.wal().config().kind == DatabaseKind::Sqlite;
    let is_changed = tx.has_changed(PageNo::ONE)?;
    let stamped = is_sqlite && (resized || is_changed);
    if tx.changes.dirty().is_empty() || stamped {
        tx.take_copy(PageNo::ONE)?;
    }
    let is_logged = tx.changes.dirty().contains_key(&PageNo::ONE);
    let before = match is_sqlite && is_logged && tx.read.page_count() > 0 {
        true => DatabaseHeader::decode(&tx.read.page(PageNo::ONE)?),
        false => None,
    };
    if is_changed {
        check_page_one(tx)?;
    }
    let page_count = tx.page_count();
    if is_sqlite && let Some(page_one) = tx.changes.page_mut(PageNo::ONE) {
        // Counted on from the page 1 that it replaces, whatever the caller wrote there.
        let counter = before.map_or(0, |header| header.change_counter);
        DatabaseHeader::stamp(page_one, counter, page_count);
    }
    Ok(())
}

/// Refuses a page 1 by which the file would no longer be what it is.
fn check_page_one<C: WalCoordination>(tx: &WriteTx<C>) -> Result<()> {
    let WalConfig {
        kind, page_size, ..
    } = *tx.wal().config();
    let before = match tx.read.page_count() > 0 {
        true => Some(tx.read.page(PageNo::ONE)?),
        false => None,
    };
    let before = before.as_deref().unwrap_or_default();
    let Some(fault) = page_one::refusal(kind, page_size, before, &tx.page(PageNo::ONE)?) else {
        return Ok(());
    };
    let reason = format!(
        "page 1 would no longer say what the file is: {fault}; {}",
        kind.advice_on_page_one()
    );
    Err(Error::refused(tx.wal().path(), "a commit", reason))
}

impl<C: WalCoordination> Wal<C> {
    /// Commits what the transaction has in the log together with the placed pages, and
    /// returns the header that publishes it, or will once it is durable.
    ///
    /// # Errors
    /// Those of [`WriteTx::commit_frames`].
    pub(in crate::protocol) fn commit_placed(
        self: &Arc<Self>,
        own: &mut OwnFrames,
        (mut overwritten, mut appended): Placed<'_>,
        page_count: u32,
        sync: CommitSync,
    ) -> Result<IndexHeader> {
        if sync != CommitSync::Pipelined {
            self.publish_all()?;
        }
        self.mend_log_for_commit(own.start.salts(), !own.is_empty())?;
        self.check_settled(own, &overwritten, page_count)?;
        let begins_anew = own.start.max_frame() == 0;
        // The commit frame is the last one of the log, so it is a new one.
        if appended.is_empty()
            && let Some((frame, content)) = overwritten.pop()
        {
            let page = index::page_of_frame(&**self, frame.get())?;
            appended.push((PageNo::new(page)?, content));
        }
        self.overwrite_frames(own, &overwritten)?;
        rule!(ChecksumRewrite, {
            self.mend_checksums(own)?;
        });
        let Some(prepared) = self.prepare_frames(own, &appended, Some(page_count))? else {
            let reason = "a commit needs a page; pass page 1 if no other has changed";
            return Err(Error::refused(self.path(), "a commit", reason));
        };
        self.index_frames(own, &appended)?;
        // Found before the commit frame is written: nothing may fail between
        // the commit and its becoming visible.
        let block_zero = self.writable_block_zero()?;
        write_commit(self, &prepared)?;
        if begins_anew {
            self.limit_log_size(prepared.last);
        }
        if sync == CommitSync::BeforeVisible {
            sync_commit(self)?;
        }
        let LogEnd {
            max_frame,
            checksum,
        } = prepared.end_after(own.end, appended.len());
        let page_size = self.config().page_size;
        let committed = own
            .start
            .committed(page_size, max_frame, page_count, checksum);
        #[cfg(feature = "observe")]
        let frames = max_frame - own.start.max_frame();
        // From here on the frames are everybody's, and not to be trimmed.
        *own = OwnFrames::none_after(committed);
        if sync != CommitSync::Pipelined {
            self.commit_prepared_frames(block_zero, &committed);
            observe!(
                self,
                Committed {
                    frames,
                    log_frames: max_frame
                }
            );
        }
        Ok(committed)
    }

    /// Writes the log header if the log is empty, and gives the state that
    /// the first frame goes on from (`walFrames`).
    pub(super) fn prepare_wal_header(
        &self,
        header: &IndexHeader,
        restarted: bool,
    ) -> Result<IndexHeader> {
        if header.max_frame() > 0 {
            return Ok(*header);
        }
        // Salts that this transaction did not publish itself may have been
        // used by frames that lie in the file, so they are not used again.
        let salts = if rule!(FreshSalts, restarted) {
            header.salts()
        } else {
            Salts::random()
        };
        let log_header = LogHeader {
            byte_order: ByteOrder::NATIVE,
            page_size: self.config().page_size,
            sequence: self.checkpoint_state().sequence(),
            salts,
        };
        let (bytes, checksum) = log_header.encode();
        step(Point::LogHeaderWrite);
        self.storage()
            .log()
            .write_all_at(&mut [IoSlice::new(&bytes)], 0)?;
        if self.tuning().synchronous() != Synchronous::Off {
            rule!(LogHeaderSync, {
                step(Point::LogHeaderSync);
                self.sync_log()?;
            });
        }
        Ok(header.with_generation(salts, ByteOrder::NATIVE, checksum))
    }

    /// Serialises `pages` as the next frames of the transaction; with
    /// `commit`, the last one carries that size of the database, which is the
    /// commit mark. `None` if there are no pages.
    pub(in crate::protocol) fn prepare_frames<'p>(
        &self,
        own: &OwnFrames,
        pages: &[(PageNo, &'p [u8])],
        commit: Option<u32>,
    ) -> Result<Option<PreparedFrames<'p>>> {
        let none_left = || {
            let reason = "the log has no frame numbers left; end old read transactions and \
                checkpoint it";
            Error::refused(self.path(), "adding frames", reason)
        };
        let LogEnd {
            max_frame: before,
            mut checksum,
        } = own.end;
        let count = u32::try_from(pages.len()).map_err(|_| none_left())?;
        let last = before.checked_add(count).ok_or_else(none_left)?;
        if last > MAX_FRAME {
            return Err(none_left());
        }
        let (Some(first), Some(last), 1..) = (
            FrameNo::new(before.saturating_add(1)),
            FrameNo::new(last),
            count,
        ) else {
            return Ok(None);
        };
        let mut frames = Vec::with_capacity(pages.len());
        let mut ends = Vec::with_capacity(pages.len());
        for (&(page, content), max_frame) in pages.iter().zip(first.get()..) {
            let mark = commit.filter(|_| max_frame == last.get());
            let header = FrameHeader {
                page,
                commit_size: mark.unwrap_or(0),
                salts: own.start.salts(),
            };
            let (bytes, after) = header.encode(own.start.byte_order(), checksum, content);
            checksum = after;
            frames.push((bytes, content));
            ends.push(LogEnd {
                max_frame,
                checksum,
            });
        }
        Ok(Some(PreparedFrames {
            frames,
            first,
            last,
            ends,
        }))
    }

    /// Writes the frames to the log, in order.
    pub(in crate::protocol) fn write_frames(
        &self,
        prepared: &PreparedFrames<'_>,
        at: Point,
    ) -> Result<()> {
        let mut buffers: Vec<IoSlice<'_>> = prepared
            .frames
            .iter()
            .flat_map(|(header, page)| [IoSlice::new(header), IoSlice::new(page)])
            .collect();
        step(at);
        let offset = frame_offset(prepared.first, self.config().page_size);
        self.storage().log().write_all_at(&mut buffers, offset)?;
        if let Some(mapped) = self.mapped_log() {
            // Nobody cuts the log while we hold Write.
            mapped.grown_to(frame_end(prepared.last, self.config().page_size));
        }
        Ok(())
    }

    /// Lets the disk begin with the parts of the log that the frames from `first`
    /// to `last` have filled, so that a sync that comes later waits less. A failure
    /// is one of a sync: frames of others may be lost, too.
    pub(in crate::protocol) fn start_writeback(&self, first: FrameNo, last: FrameNo) -> Result<()> {
        let start = frame_offset(first, self.config().page_size);
        let Some(range) = filled_parts(start, frame_end(last, self.config().page_size)) else {
            return Ok(());
        };
        let started = self.storage().log().start_writeback(range);
        if started.is_err() {
            rule!(FailedWritebackPoisons, {
                self.poison();
                self.tell_failed_log_sync();
            });
        }
        started
    }

    pub(in crate::protocol) fn outcome_unknown(&self, source: Error) -> Error {
        let path = self.storage().log().path().to_owned();
        Error::CommitOutcomeUnknown {
            path,
            source: Box::new(source),
        }
    }

    /// Cuts off what a longer generation of the log has left behind `last`, the
    /// last frame of the first commit of this one, if that is more than the limit
    /// (`walLimitSize`). The caller holds WRITE.
    ///
    /// A failure costs space and nothing else. So does a power failure that undoes
    /// the cut: the bytes are of an older generation, whose salts no frame of this
    /// one has.
    pub(in crate::protocol) fn limit_log_size(&self, last: FrameNo) {
        let Some(limit) = self.tuning().log_size_limit() else {
            return;
        };
        let keep = limit.max(frame_end(last, self.config().page_size));
        let log = self.storage().log();
        if log.len().is_ok_and(|len| len > keep) {
            rule!(LogSizeLimit, {
                let _ = log.set_len(keep);
            });
        }
    }

    /// Publishes `committed` by a store to `block_zero`, and notifies waiters: its frames,
    /// which are in the log and in the index, are visible to every user.
    pub(in crate::protocol) fn commit_prepared_frames(
        &self,
        block_zero: &WritableBlock,
        committed: &IndexHeader,
    ) {
        let wait_state = self.coordination().wait_state();
        if let Some(wait_state) = wait_state
            && self.keeps_short(committed.max_frame())
        {
            wait_state.checkpointing_commit().record(committed.change());
        }
        block_zero.store_header(committed);
        step(Point::Wake);
        if let Some(wait_state) = wait_state {
            rule!(CommitNotifiesWaiters, {
                self.notify(wait_state.commits());
            });
        }
    }
}

impl PreparedFrames<'_> {
    /// The end of the log behind the first `len` of these frames, which go on
    /// from `before`.
    pub(in crate::protocol) fn end_after(&self, before: LogEnd, len: usize) -> LogEnd {
        let end = len.checked_sub(1).and_then(|last| self.ends.get(last));
        end.copied().unwrap_or(before)
    }
}

/// The parts of the log that are filled by what was written from `start` to
/// `end`.
fn filled_parts(start: u64, end: u64) -> Option<Range<u64>> {
    let (first, behind) = (start / PART, end / PART);
    (first < behind).then(|| first * PART..behind * PART)
}

/// Writes frames that end with the commit frame.
///
/// # Errors
/// [`Error::CommitOutcomeUnknown`] if the commit frame may have been
/// written and could not be taken back.
fn write_commit<C: WalCoordination>(wal: &Wal<C>, prepared: &PreparedFrames<'_>) -> Result<()> {
    wal.write_frames(prepared, Point::FramesWrite)
        .map_err(|e| take_back(wal, prepared, e))
}

/// After a failed write, makes sure that a recovery does not find the
/// transaction: the header of its commit frame is overwritten with zeros,
/// durably. What was spilled is no danger without it.
fn take_back<C: WalCoordination>(
    wal: &Wal<C>,
    prepared: &PreparedFrames<'_>,
    failure: Error,
) -> Error {
    let log = wal.storage().log();
    let commit = frame_offset(prepared.last, wal.config().page_size);
    let end = frame_end(prepared.last, wal.config().page_size);
    let never_complete = log.len().is_ok_and(|len| len < end);
    let zeros = [0; FRAME_HEADER_LEN];
    let taken_back = never_complete
        || rule!(
            FailedFrameIsZeroed,
            log.write_all_at(&mut [IoSlice::new(&zeros)], commit)
                .is_ok()
                && rule!(ZeroedFrameSync, wal.sync_log().is_ok())
        );
    if taken_back {
        failure
    } else {
        wal.outcome_unknown(failure)
    }
}

/// Makes the frames that were written as durable as was asked for.
///
/// # Errors
/// [`Error::CommitOutcomeUnknown`] if the sync failed.
fn sync_commit<C: WalCoordination>(wal: &Wal<C>) -> Result<()> {
    if wal.tuning().synchronous() == Synchronous::Full {
        rule!(CommitSync, {
            step(Point::CommitSync);
            wal.sync_log().map_err(|e| wal.outcome_unknown(e))?;
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_begins_with_each_part_once_it_is_full() {
        assert_eq!(filled_parts(0, PART - 1), None);
        assert_eq!(filled_parts(100, PART), Some(0..PART));
        assert_eq!(filled_parts(PART, PART + 4120), None);
        let last = 3 * PART;
        assert_eq!(filled_parts(PART + 7, last + 9), Some(PART..last));
    }
}
