//! Write transactions of an engine that keeps its pages itself: it passes them
//! as frames, and cuts frames off when it rolls back (`sqlite3WalFrames`,
//! `sqlite3WalUndo`, `sqlite3WalSavepoint`).
//!
//! # Protocol
//! That of [`crate::protocol::write::append`] and [`crate::protocol::write::spill`], with pages of the engine. The engine
//! keeps what a page was at its savepoints, so a page that the transaction has in the
//! log is overwritten there also while they are open.
//!
//! A transaction either passes frames or changes pages: a savepoint of the one kind
//! needs frames that the other kind overwrites.
//!
//! A transaction that has committed can go on as a read transaction at the
//! state that it made. At a slot with a mark that is what any reader of that
//! state might do. At slot 0 the frames of the commit are looked for in the
//! log all the same: as long as slot 0 is held shared nobody writes the
//! database file, so these frames are never all backfilled, and the log does
//! not begin anew.
//!
//! # Crash
//! As for any write transaction.

use std::collections::BTreeSet;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::FRAME_HEADER_LEN;
use crate::index::IndexHeader;
use crate::protocol::durability::group_commit::CommitSync;
use crate::protocol::handle::Wal;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::write::dirty_pages::Changes;
use crate::protocol::write::frames_mark::{Cuts, FramesMark};
use crate::protocol::write::own_frames::{LogEnd, OwnFrames};
use crate::protocol::write::spill::Placed;
use crate::protocol::write::write_tx::WriteTx;
use crate::testing::Point;
use crate::types::{FrameNo, PageNo};

const COMMIT: &str = "committing frames";

impl<C: WalCoordination> WriteTx<C> {
    /// Writes `pages` to the log without committing them; no reader sees
    /// them. They are not kept: reading them again is [`WriteTx::find_frame`]
    /// and [`WriteTx::read_frame`]. The pages may come in any order, and beyond the size of
    /// the database; of a page that is passed twice the last content counts.
    ///
    /// # Errors
    /// [`Error::Refused`] for a page of another length, one beyond [`PageNo::MAX`], the
    /// page of the lock bytes, and beside changes by [`WriteTx::page_mut`] or an open
    /// savepoint; the call has no effect then. [`Error::Io`], for want of space for
    /// instance: no frame was added. Pages that the transaction had in the log may be
    /// overwritten in part; pass each of them again before the commit, or cut its frame.
    pub fn append_frames_vectored(&mut self, pages: &[(PageNo, &[u8])]) -> Result<()> {
        self.wal().check_writable()?;
        self.check_frames("writing frames", pages)?;
        if pages.is_empty() {
            return Ok(());
        }
        let wal = self.wal().clone();
        let (own, _) = self.begin_own_frames()?;
        let placed = wal.place(own, None, pages.iter().copied())?;
        let written = write_placed(&wal, own, &placed);
        if written.is_err() {
            wal.forget_leftovers(own);
        }
        written
    }

    /// Writes `pages`, at least one, and commits them with what was written
    /// before; the database has `page_count` pages then. Returns how many frames
    /// the log has. The transaction continues at the new state, as one that has
    /// changed nothing. The content of a page that is added and was not passed is undefined.
    ///
    /// # Errors
    /// Those of [`WriteTx::append_frames_vectored`]; [`Error::Refused`] also without a page, for a
    /// page beyond `page_count`, for a size of 0 or beyond [`PageNo::MAX`], or of more
    /// pages than the database file and the log have, and if a failed call has
    /// overwritten a page in part that is not passed again. [`Error::CommitOutcomeUnknown`]
    /// as for [`WriteTx::commit`]. The transaction keeps its frames, and can be rolled back
    /// or committed by another call.
    pub fn commit_frames(&mut self, pages: &[(PageNo, &[u8])], page_count: u32) -> Result<u32> {
        self.wal().check_writable()?;
        self.check_frames(COMMIT, pages)?;
        self.check_size(pages, page_count)?;
        let wal = self.wal().clone();
        let (own, _) = self.begin_own_frames()?;
        let first = own.first();
        let placed = wal.place(own, None, pages.iter().copied())?;
        check_supplied(&wal, own, placed.1.len(), page_count)?;
        let committed = wal.commit_placed(own, placed, page_count, CommitSync::BeforeVisible);
        let published = match committed {
            Ok(published) => published,
            Err(e) => {
                wal.forget_leftovers(own);
                return Err(e);
            }
        };
        self.continue_at(published, first);
        Ok(published.max_frame())
    }

    /// Continues at the state that this transaction has published, with frames from `first`
    /// on, as a transaction that begins there.
    fn continue_at(&mut self, published: IndexHeader, first: u32) {
        let snapshot = &mut self.read.snapshot;
        if snapshot.reads_database_only() {
            snapshot.min_frame = first;
        }
        snapshot.page_count = published.page_count();
        self.read.move_to(published);
        self.changes = Changes::none(published.page_count());
        self.cuts = Cuts::default();
        self.own = None;
    }

    fn check_frames(&self, operation: &'static str, pages: &[(PageNo, &[u8])]) -> Result<()> {
        self.check_passes_frames(operation)?;
        let page_size = self.wal().config().page_size;
        for (page, content) in pages {
            let reason = if content.len() != page_size.len() {
                format!("{page:?} has {} bytes; pass {page_size}", content.len())
            } else if *page == page_size.lock_byte_page() {
                format!("{page:?} holds the lock bytes and no data; leave it out")
            } else if *page > PageNo::MAX {
                format!(
                    "{page:?} is beyond {}, the last one; leave it out",
                    PageNo::MAX
                )
            } else {
                continue;
            };
            return Err(Error::refused(self.wal().path(), operation, reason));
        }
        Ok(())
    }

    /// Refuses an engine's frames beside pages that this transaction has changed itself,
    /// and within a savepoint, whose frames would be cut or overwritten.
    fn check_passes_frames(&self, operation: &'static str) -> Result<()> {
        self.wal().check_process()?;
        self.wal().own_write().touch(self.thread);
        let has_spilled = |own: &OwnFrames| !own.of_engine && !own.is_empty();
        let changes_pages = !self.changes.is_untouched()
            || self.changes.page_count() != self.read.page_count()
            || self.own.as_ref().is_some_and(has_spilled);
        if changes_pages {
            let reason = "the transaction has changed pages, or an open savepoint; commit it \
                or roll it back, and pass frames in a transaction of their own";
            return Err(Error::refused(self.wal().path(), operation, reason));
        }
        Ok(())
    }

    /// Refuses a size that no database has, and a page beyond it.
    fn check_size(&self, pages: &[(PageNo, &[u8])], page_count: u32) -> Result<()> {
        let beyond = pages.iter().find(|(page, _)| page.get() > page_count);
        let reason = if !(1..=PageNo::MAX.get()).contains(&page_count) {
            format!(
                "{page_count} pages are no size of a database; pass 1 to {}",
                PageNo::MAX
            )
        } else if let Some((page, _)) = beyond {
            format!("{page:?} is beyond the {page_count} pages of the database; leave it out")
        } else if pages.is_empty() {
            "a commit needs a page; pass page 1 if no other has changed".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::refused(self.wal().path(), COMMIT, reason))
    }

    /// The frame that holds `page` as this transaction sees it; `None` if the
    /// page is in the database file. Of changes by [`WriteTx::page_mut`] it finds what was
    /// spilled.
    ///
    /// # Errors
    /// As [`ReadTx::find_frame`].
    pub fn find_frame(&self, page: PageNo) -> Result<Option<FrameNo>> {
        self.wal().check_process()?;
        if let Some(own) = &self.own
            && let Some(frame) = self.wal().find_own_frame(own, page)?
        {
            return Ok(Some(frame));
        }
        self.read.find_frame(page)
    }

    /// The reading side of the transaction, which does not see its changes.
    pub fn as_read(&self) -> &ReadTx<C> {
        &self.read
    }

    /// The state that the transaction began with, or has committed. What it began
    /// with may be the commit of another thread that is not durable yet, and newer
    /// than what is published; it is durable when the transaction has ended
    /// ([`Wal::begin_write`]).
    pub fn snapshot(&self) -> &crate::protocol::Snapshot {
        self.read.snapshot()
    }

    /// The frames in the log, up to the last one that this transaction sees.
    pub fn frame_count(&self) -> u32 {
        let own = self.own.as_ref();
        own.map_or(self.read.snapshot.max_frame(), |own| own.end.max_frame)
    }

    /// How much of the transaction is in the log, for [`WriteTx::cut_frames`].
    pub fn frames_mark(&self) -> FramesMark {
        self.cuts
            .mark(self.changes.transaction(), self.own_frames())
    }

    fn own_frames(&self) -> u32 {
        let own = self.own.as_ref();
        own.map_or(0, |own| own.end.max_frame - own.start.max_frame())
    }

    /// Cuts off the frames that were added since `mark`. A page that was overwritten in
    /// a frame before it keeps its new content: the engine has the old one.
    ///
    /// # Errors
    /// [`Error::NoSuchSavepoint`] if the mark is of another transaction, of the time before
    /// a commit, or if frames before it were cut off since; [`Error::Refused`] beside
    /// changes by [`WriteTx::page_mut`] or an open savepoint; [`Error::Io`]. No frame is
    /// cut off then.
    pub fn cut_frames(&mut self, mark: FramesMark) -> Result<()> {
        self.check_passes_frames("cutting frames")?;
        let is_own = mark.transaction == self.changes.transaction();
        if !is_own || mark.frames > self.own_frames() || !self.cuts.keep(mark) {
            return Err(Error::NoSuchSavepoint);
        }
        match &self.own {
            Some(own) if mark.frames < self.own_frames() => {
                let end = end_behind(self.wal(), own, mark.frames)?;
                self.cut_own_frames(end);
                self.cuts.cut(mark.frames);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Cuts off all frames, and returns their pages.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the wal-index contradicts itself, [`Error::Refused`] beside
    /// changes by [`WriteTx::page_mut`] or an open savepoint. No frame is cut off then.
    pub fn undo_frames(&mut self) -> Result<BTreeSet<PageNo>> {
        self.check_passes_frames("cutting frames")?;
        let pages = self.pages_in_log(None)?;
        self.cut_frames(Cuts::default().mark(self.changes.transaction(), 0))?;
        Ok(pages)
    }

    /// Gives up Write and goes on reading. What was not committed is rolled
    /// back. Its age as a snapshot begins now.
    ///
    /// # Errors
    /// Those of [`Wal::begin_read`], for a transaction that was not made of a
    /// read transaction.
    pub fn into_read(mut self) -> Result<ReadTx<C>> {
        self.wal().publish_all()?;
        // What is left behind does not give the slot back.
        Ok(self.read.hand_over()?.aging())
    }
}

impl<C: WalCoordination> ReadTx<C> {
    /// Reads the page in `frame` into `buffer`: as much of it as that takes.
    ///
    /// # Errors
    /// [`Error::Refused`] for a frame that this transaction does not keep in the log: one
    /// behind its state, or, if all of that is in the database file, any;
    /// [`Error::Corrupt`] if the log is too short, [`Error::Io`].
    pub fn read_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.kept().read_frame(frame, FRAME_HEADER_LEN, buffer)
    }

    /// As [`ReadTx::read_frame`], with the header of the frame before the page.
    ///
    /// # Errors
    /// As [`ReadTx::read_frame`].
    pub fn read_raw_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.kept().read_frame(frame, 0, buffer)
    }
}

impl<C: WalCoordination> WriteTx<C> {
    /// As [`ReadTx::read_frame`], also for what this transaction has written.
    ///
    /// # Errors
    /// As [`ReadTx::read_frame`].
    pub fn read_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.kept().read_frame(frame, FRAME_HEADER_LEN, buffer)
    }

    /// As [`ReadTx::read_raw_frame`], also for what this transaction has written.
    ///
    /// # Errors
    /// As [`ReadTx::read_frame`].
    pub fn read_raw_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.kept().read_frame(frame, 0, buffer)
    }
}

/// Writes `placed` pages to the log. A call that fails has added no frame.
fn write_placed<C: WalCoordination>(
    wal: &Wal<C>,
    own: &mut OwnFrames,
    placed: &Placed<'_>,
) -> Result<()> {
    let (overwritten, appended) = placed;
    let prepared = wal.prepare_frames(own, appended, None)?;
    if let Some(prepared) = &prepared {
        wal.index_frames(own, appended)?;
        wal.write_frames(prepared, Point::SpillWrite)?;
    }
    wal.overwrite_frames(own, overwritten)?;
    own.settle(overwritten);
    if let Some(prepared) = &prepared {
        own.advance_to(prepared.end_after(own.end, appended.len()));
    }
    own.of_engine = true;
    Ok(())
}

/// The end of the log behind the first `frames` frames of the transaction. If a page
/// before it was overwritten, the commit corrects the checksum.
fn end_behind<C: WalCoordination>(wal: &Wal<C>, own: &OwnFrames, frames: u32) -> Result<LogEnd> {
    let max_frame = own.start.max_frame().saturating_add(frames);
    Ok(LogEnd {
        max_frame,
        checksum: wal.checksum_behind(own, max_frame)?,
    })
}

/// Refuses a commit of more pages than the database file, the log and `added` more
/// frames hold, which a checkpoint would call corrupt.
fn check_supplied<C: WalCoordination>(
    wal: &Wal<C>,
    own: &OwnFrames,
    added: usize,
    page_count: u32,
) -> Result<()> {
    if page_count <= own.start.page_count() {
        return Ok(());
    }
    let added = u32::try_from(added.max(1)).unwrap_or(u32::MAX);
    let max_frame = own.end.max_frame.saturating_add(added);
    if wal.lacks_pages(wal.storage().database().len()?, max_frame, page_count) {
        let reason = format!(
            "the file and {max_frame} frames hold fewer than {page_count} pages; pass each \
            page that is added"
        );
        return Err(Error::refused(wal.path(), COMMIT, reason));
    }
    Ok(())
}
