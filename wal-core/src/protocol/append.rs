//! Turns dirty pages into frames, and frames into a commit.
//!
//! # Protocol
//! The caller holds Write. In this order:
//! 1. the log is restarted if that can be done at once;
//! 2. a log that begins anew gets its header, durable before the first frame
//!    that needs it: a power failure must not leave new frames behind an old
//!    header's generation, nor the other way round;
//! 3. index blocks for all frames are made, and the entries stored: nobody
//!    looks above the published frame, and whatever fails here has cost
//!    nothing;
//! 4. all frames are written in one vectored write, the commit frame last;
//! 5. the log is synced, if each commit is to survive a power failure;
//! 6. the header is published: the commit is visible.
//!
//! # Ordering
//! Entries are stored before the header; the fence in the header cell keeps
//! them so for whoever sees the header.
//!
//! # Crash
//! Before step 6 nobody sees anything: the next writer trims the entries and
//! overwrites the frames. If the process dies between 4 and 6 and the index
//! is rebuilt from the log, the transaction is there, complete.

use std::io::IoSlice;
use std::sync::atomic::Ordering;

use super::write::{DirtyPages, WriteTx};
use super::{DatabaseKind, Synchronous, Wal};
use crate::coordination::{Event, WalCoordination};
use crate::error::{Error, Result};
use crate::format::{
    ByteOrder, Checksum, DatabaseHeader, FRAME_HEADER_LEN, FrameHeader, LogHeader, frame_offset,
};
use crate::index::{self, HeaderCell, IndexHeader, block_of_frame};
use crate::testing::{Mutation, Point, mutated, step};
use crate::types::{FrameNo, PageNo, PageSize, Salts};

/// The frames of a transaction, ready to be written: their headers, with the
/// checksums that chain them to the log.
#[derive(Debug)]
pub struct PreparedFrames<'p> {
    frames: Vec<([u8; FRAME_HEADER_LEN], &'p [u8])>,
    first: FrameNo,
    /// The state that publishing these frames makes visible.
    committed: IndexHeader,
}

/// Commits what `tx` changed, and tells how many frames the log has then.
pub(super) fn commit<C: WalCoordination>(tx: &mut WriteTx<C>) -> Result<u32> {
    let page_count = tx.page_count;
    if tx.dirty.is_empty() && page_count == tx.read.page_count() {
        return Ok(tx.read.snapshot.max_frame());
    }
    stamp_page_one(tx)?;
    let restarted = tx.try_restart_log_before_write()?.is_some();
    let wal = tx.wal().clone();
    let before = tx.read.snapshot.header;
    let result = wal.commit_pages(&before, restarted, &tx.dirty, page_count);
    if result.is_err() {
        // What cannot be trimmed now is trimmed by the next writer.
        let _ = index::trim(&*wal, before.max_frame());
    }
    result
}

/// A SQLite database's page 1 tells its size. It is logged with every change
/// of the size, and stamped whenever it is logged. A commit needs at least one
/// frame, for which page 1 serves too.
fn stamp_page_one<C: WalCoordination>(tx: &mut WriteTx<C>) -> Result<()> {
    let resized = tx.page_count != tx.read.page_count();
    let is_sqlite = tx.wal().config().kind == DatabaseKind::Sqlite;
    if tx.dirty.is_empty() || (is_sqlite && resized) {
        tx.page_mut(PageNo::ONE)?;
    }
    let page_count = tx.page_count;
    if is_sqlite && let Some(page_one) = tx.dirty.get_mut(&PageNo::ONE) {
        DatabaseHeader::stamp(page_one, page_count);
    }
    Ok(())
}

impl<C: WalCoordination> Wal<C> {
    fn commit_pages(
        &self,
        before: &IndexHeader,
        restarted: bool,
        pages: &DirtyPages,
        page_count: u32,
    ) -> Result<u32> {
        let begins_anew = before.max_frame() == 0;
        let before = self.prepare_wal_header(before, restarted)?;
        let prepared = prepare_frames(self.config.page_size, &before, pages, page_count)
            .ok_or_else(|| Error::corrupt(self.path(), "the log has no frame numbers left"))?;
        if !mutated(Mutation::IndexAfterHeader) {
            self.index_frames(prepared.first, pages)?;
        }
        // Found before the commit frame is written: nothing may fail between
        // the commit and its becoming visible.
        let header = self.header_cell()?;
        self.append_frames_vectored(&prepared)?;
        self.commit_prepared_frames(&prepared)?;
        if begins_anew {
            self.limit_log_size(&prepared);
        }
        self.finalize_committed_pages(header, &prepared);
        if mutated(Mutation::IndexAfterHeader) {
            self.index_frames(prepared.first, pages)?;
        }
        Ok(prepared.committed.max_frame())
    }

    /// Writes the log header if the log is empty, and gives the state that
    /// the first frame goes on from (`walFrames`).
    fn prepare_wal_header(&self, header: &IndexHeader, restarted: bool) -> Result<IndexHeader> {
        if header.max_frame() > 0 {
            return Ok(*header);
        }
        // Salts that this transaction did not publish itself may have been
        // used by frames that lie in the file, so they are not used again.
        let salts = if restarted {
            header.salts()
        } else {
            Salts::random()
        };
        let log_header = LogHeader {
            byte_order: ByteOrder::NATIVE,
            page_size: self.config.page_size,
            sequence: self.sequence.load(Ordering::Relaxed),
            salts,
        };
        let (bytes, checksum) = log_header.encode();
        step(Point::LogHeaderWrite);
        self.storage
            .log()
            .write_all_at(&mut [IoSlice::new(&bytes)], 0)?;
        if self.config.synchronous != Synchronous::Off && !mutated(Mutation::SkipLogHeaderSync) {
            step(Point::LogHeaderSync);
            self.sync_log()?;
        }
        Ok(header.with_generation(salts, ByteOrder::NATIVE, checksum))
    }

    /// Makes room in the index for the frames from `first` on, and stores
    /// their entries.
    fn index_frames(&self, first: FrameNo, pages: &DirtyPages) -> Result<()> {
        // `prepare_frames` has checked that the last frame has a number.
        let frames = (first.get()..).zip(pages.keys());
        let mut made = None;
        for (frame, page) in frames {
            let (block, _) = block_of_frame(frame);
            if made != Some(block) {
                step(Point::IndexGrow);
                self.coordination.grow(block)?;
                made = Some(block);
            }
            index::append(self, frame, page.get())?;
        }
        Ok(())
    }

    /// Writes the frames to the log.
    ///
    /// # Errors
    /// [`Error::CommitOutcomeUnknown`] if the commit frame may have been
    /// written and could not be taken back.
    fn append_frames_vectored(&self, prepared: &PreparedFrames<'_>) -> Result<()> {
        let mut buffers: Vec<IoSlice<'_>> = prepared
            .frames
            .iter()
            .flat_map(|(header, page)| [IoSlice::new(header), IoSlice::new(page)])
            .collect();
        step(Point::FramesWrite);
        let offset = frame_offset(prepared.first, self.config.page_size);
        self.storage
            .log()
            .write_all_at(&mut buffers, offset)
            .map_err(|e| self.take_back(prepared, e))
    }

    /// After a failed write, makes sure that a recovery does not find the
    /// transaction: its first frame header is overwritten with zeros, durably.
    fn take_back(&self, prepared: &PreparedFrames<'_>, failure: Error) -> Error {
        let log = self.storage.log();
        let first = frame_offset(prepared.first, self.config.page_size);
        let end = self.end_of(prepared.last());
        let never_complete = log.len().is_ok_and(|len| len < end);
        let zeros = [0; FRAME_HEADER_LEN];
        let taken_back = never_complete
            || mutated(Mutation::KeepFailedFrames)
            || (log.write_all_at(&mut [IoSlice::new(&zeros)], first).is_ok()
                && self.sync_log().is_ok());
        if taken_back {
            failure
        } else {
            self.outcome_unknown(failure)
        }
    }

    fn outcome_unknown(&self, source: Error) -> Error {
        let path = self.storage.log().path().to_owned();
        Error::CommitOutcomeUnknown {
            path,
            source: Box::new(source),
        }
    }

    /// Makes the frames as durable as was asked for.
    ///
    /// # Errors
    /// [`Error::CommitOutcomeUnknown`] if the sync failed.
    fn commit_prepared_frames(&self, _written: &PreparedFrames<'_>) -> Result<()> {
        if self.config.synchronous < Synchronous::Full || mutated(Mutation::SkipCommitSync) {
            return Ok(());
        }
        step(Point::CommitSync);
        self.sync_log().map_err(|e| self.outcome_unknown(e))
    }

    /// Gives back what a longer generation of the log has left behind these
    /// frames, if that is more than the limit (`walLimitSize`). Failing to do
    /// so costs space and nothing else.
    fn limit_log_size(&self, written: &PreparedFrames<'_>) {
        let Some(limit) = self.config.log_size_limit else {
            return;
        };
        let log = self.storage.log();
        let keep = limit.max(self.end_of(written.last()));
        if log.len().is_ok_and(|len| len > keep) {
            let _ = log.set_len(keep);
        }
    }

    /// Where the byte after `frame` is.
    fn end_of(&self, frame: FrameNo) -> u64 {
        let page_size = self.config.page_size;
        frame_offset(frame, page_size) + FRAME_HEADER_LEN as u64 + u64::from(page_size.bytes())
    }

    /// Makes the frames visible to everyone.
    fn finalize_committed_pages(&self, header: HeaderCell<'_>, prepared: &PreparedFrames<'_>) {
        header.store(&prepared.committed);
        step(Point::Wake);
        if !mutated(Mutation::WakeNobody) {
            self.coordination.notify(Event::Commit);
        }
    }
}

impl PreparedFrames<'_> {
    fn last(&self) -> FrameNo {
        // The published state ends with the last frame, which is at least
        // the first.
        FrameNo::new(self.committed.max_frame()).unwrap_or(self.first)
    }
}

/// Serialises `pages` as the frames that follow the state `before`, the last
/// one with the commit mark. `None` if the frame numbers run out.
fn prepare_frames<'p>(
    page_size: PageSize,
    before: &IndexHeader,
    pages: &'p DirtyPages,
    page_count: u32,
) -> Option<PreparedFrames<'p>> {
    let first = FrameNo::new(before.max_frame().checked_add(1)?)?;
    let count = u32::try_from(pages.len()).ok()?;
    let last = before.max_frame().checked_add(count)?;
    let mut checksum: Checksum = before.frame_checksum();
    let mut frames = Vec::with_capacity(pages.len());
    for (number, (&page, content)) in (first.get()..).zip(pages) {
        let commit_size = if number == last { page_count } else { 0 };
        let header = FrameHeader {
            page,
            commit_size,
            salts: before.salts(),
        };
        let (bytes, after) = header.encode(before.byte_order(), checksum, content);
        checksum = after;
        frames.push((bytes, &**content));
    }
    let committed = before.committed(page_size, last, page_count, checksum);
    Some(PreparedFrames {
        frames,
        first,
        committed,
    })
}
