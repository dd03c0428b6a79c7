//! Write transactions of an engine that keeps its pages itself: it gives them
//! as frames, and takes frames back by its own account (`sqlite3WalFrames`,
//! `sqlite3WalUndo`, `sqlite3WalSavepoint`).
//!
//! # Protocol
//! That of [`super::append`] and [`super::spill`]; only where the pages come
//! from is another matter. What a page was at a savepoint is the engine's
//! affair, so a page that the transaction has in the log is overwritten there
//! also while savepoints are open.
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
use std::ops::RangeInclusive;

use super::group_commit::CommitSync;
use super::spill::{LogEnd, OwnFrames};
use super::write::WriteTx;
use super::{ReadTx, Wal};
use crate::coordination::{ReadSlot, WalCoordination};
use crate::error::{Error, Result};
use crate::format::{Checksum, FRAME_HEADER_LEN, frame_offset};
use crate::index;
use crate::testing::Point;
use crate::types::{FrameNo, PageNo};

/// How much of a write transaction is in the log: a place to which it can be
/// taken back. It is of no use to another transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramesMark {
    /// The frames of the transaction. Their number says where the place is
    /// also if the log has begun anew since, which it does before the first of
    /// them only.
    frames: u32,
    checksum: Checksum,
}

impl FramesMark {
    /// Three words, for who keeps the mark as such (`aWalData`).
    pub fn to_words(self) -> [u32; 3] {
        [self.frames, self.checksum.s1, self.checksum.s2]
    }

    /// The mark that gave these words.
    pub fn from_words([frames, s1, s2]: [u32; 3]) -> Self {
        FramesMark {
            frames,
            checksum: Checksum { s1, s2 },
        }
    }
}

impl<C: WalCoordination> WriteTx<C> {
    /// Writes `pages` to the log without committing them; nobody else sees
    /// them. They are not kept: reading them again is [`WriteTx::find_frame`]
    /// and [`WriteTx::read_frame`]. Not to be mixed with changes by
    /// [`WriteTx::page_mut`].
    ///
    /// # Errors
    /// [`Error::Io`], for want of space for instance: what the transaction had
    /// in the log is then as it was, or overwritten in part, and it should be
    /// rolled back.
    pub fn write_frames(&mut self, pages: &[(PageNo, &[u8])]) -> Result<()> {
        self.wal().check_writable()?;
        self.check_frames(pages)?;
        self.begin_own_frames()?;
        let wal = self.wal().clone();
        let Some(own) = &mut self.own else {
            return Ok(());
        };
        let (overwritten, appended) = wal.place(own, None, pages.iter().copied())?;
        let Some(prepared) = wal.prepare_frames(own, &appended, None)? else {
            return wal.overwrite_frames(own, &overwritten);
        };
        let written = wal
            .index_frames(prepared.first, &appended)
            .and_then(|()| wal.write_frames(&prepared, Point::SpillWrite));
        if let Err(e) = written {
            wal.forget_entries_behind(own);
            return Err(e);
        }
        own.end = prepared.end_after(own.end, appended.len());
        wal.overwrite_frames(own, &overwritten)
    }

    /// Writes `pages`, at least one, and commits them with what was written
    /// before; the database has `page_count` pages then. Tells how many frames
    /// the log has. The transaction goes on at the new state, as one that has
    /// changed nothing.
    ///
    /// # Errors
    /// As [`WriteTx::commit`], but the transaction is there still, to be
    /// rolled back.
    pub fn commit_frames(&mut self, pages: &[(PageNo, &[u8])], page_count: u32) -> Result<u32> {
        self.wal().check_writable()?;
        self.check_frames(pages)?;
        self.begin_own_frames()?;
        let wal = self.wal().clone();
        let Some(own) = &mut self.own else {
            return Ok(self.read.snapshot.max_frame());
        };
        let first = own.first();
        let pages = pages.iter().copied();
        if let Err(e) = wal.commit_pages(own, pages, page_count, CommitSync::BeforeVisible) {
            wal.forget_entries_behind(own);
            return Err(e);
        }
        let snapshot = &mut self.read.snapshot;
        if snapshot.reads_database_only() {
            snapshot.min_frame = first;
        }
        snapshot.page_count = page_count;
        self.read.move_to(own.start);
        self.changes.resize(page_count);
        self.own = None;
        Ok(self.read.snapshot.max_frame())
    }

    fn check_frames(&self, pages: &[(PageNo, &[u8])]) -> Result<()> {
        let wal = self.wal();
        let size = wal.config.page_size.len();
        if self.changes.len() > 0 || pages.iter().any(|(_, content)| content.len() != size) {
            let reason = format!("pages of {size} bytes are wanted, and no others beside them");
            return Err(Error::refused(wal.path(), "writing frames", reason));
        }
        Ok(())
    }

    /// The frame that holds `page` as this transaction sees it; `None` if the
    /// page is in the database file.
    ///
    /// # Errors
    /// As [`ReadTx::find_frame`].
    pub fn find_frame(&self, page: PageNo) -> Result<Option<FrameNo>> {
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
    pub fn snapshot(&self) -> &super::Snapshot {
        self.read.snapshot()
    }

    /// The frames in the log, up to the last one that this transaction sees.
    pub fn frame_count(&self) -> u32 {
        let own = self.own.as_ref();
        own.map_or(self.read.snapshot.max_frame(), |own| own.end.max_frame)
    }

    /// How much of the transaction is in the log.
    pub fn frames_mark(&self) -> FramesMark {
        let own = self.own.as_ref();
        FramesMark {
            frames: own.map_or(0, |own| own.end.max_frame - own.start.max_frame()),
            checksum: own.map_or(Checksum::ZERO, |own| own.end.checksum),
        }
    }

    /// Takes back what was written to the log since `mark`.
    ///
    /// # Errors
    /// [`Error::NoSuchSavepoint`] if the transaction never was there,
    /// [`Error::Corrupt`] if the wal-index contradicts itself.
    pub fn cut_frames(&mut self, mark: FramesMark) -> Result<()> {
        let Some(own) = &self.own else {
            return match mark.frames {
                0 => Ok(()),
                _ => Err(Error::NoSuchSavepoint),
            };
        };
        let before = LogEnd {
            max_frame: own.start.max_frame().saturating_add(mark.frames),
            checksum: mark.checksum,
        };
        let end = match mark.frames {
            0 => OwnFrames::none_after(own.start).end,
            _ if before.max_frame > own.end.max_frame => return Err(Error::NoSuchSavepoint),
            _ if before.max_frame == own.end.max_frame => return Ok(()),
            _ => before,
        };
        self.cut_own_frames(end)
    }

    /// Takes back all that was written to the log, and tells the pages of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the wal-index contradicts itself.
    pub fn undo_frames(&mut self) -> Result<BTreeSet<PageNo>> {
        let pages = self.pages_in_log(None)?;
        self.cut_frames(FramesMark {
            frames: 0,
            checksum: Checksum::ZERO,
        })?;
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
        self.check_frame(frame)?;
        self.wal().read_page_of(frame, buffer)
    }

    /// As [`ReadTx::read_frame`], with the header of the frame before the page.
    ///
    /// # Errors
    /// As [`ReadTx::read_frame`].
    pub fn read_raw_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.check_frame(frame)?;
        self.wal().read_raw_frame(frame, buffer)
    }

    /// At slot 0 the log may begin anew at any moment, but for what the transaction
    /// itself has committed there.
    fn check_frame(&self, frame: FrameNo) -> Result<()> {
        let first = match self.snapshot.slot {
            Some(ReadSlot::DATABASE) => self.snapshot.min_frame,
            _ => 1,
        };
        self.wal()
            .check_kept(first..=self.snapshot.max_frame(), frame)
    }
}

impl<C: WalCoordination> WriteTx<C> {
    /// As [`ReadTx::read_frame`], also for what this transaction has written.
    ///
    /// # Errors
    /// As [`ReadTx::read_frame`].
    pub fn read_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.check_frame(frame)?;
        self.wal().read_page_of(frame, buffer)
    }

    /// As [`ReadTx::read_raw_frame`], also for what this transaction has written.
    ///
    /// # Errors
    /// As [`ReadTx::read_frame`].
    pub fn read_raw_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        self.check_frame(frame)?;
        self.wal().read_raw_frame(frame, buffer)
    }

    /// With Write held nobody else begins the log anew.
    fn check_frame(&self, frame: FrameNo) -> Result<()> {
        self.wal().check_kept(1..=self.frame_count(), frame)
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Takes out of the index what was not written after all. Else an entry that comes
    /// behind it in a chain would be lost with it, when the next writer takes it out.
    /// What cannot be taken out now is so by that one.
    fn forget_entries_behind(&self, own: &OwnFrames) {
        let _ = index::trim(self, own.end.max_frame);
    }

    /// The caller's transaction keeps `frame` in the log.
    fn read_page_of(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        let len = buffer.len().min(self.config.page_size.len());
        let offset = frame_offset(frame, self.config.page_size) + FRAME_HEADER_LEN as u64;
        self.read_log(offset, &mut buffer[..len])
    }

    /// As [`Wal::read_page_of`].
    fn read_raw_frame(&self, frame: FrameNo, buffer: &mut [u8]) -> Result<()> {
        let page_size = self.config.page_size;
        let len = buffer.len().min(FRAME_HEADER_LEN + page_size.len());
        self.read_log(frame_offset(frame, page_size), &mut buffer[..len])
    }

    /// Refuses a frame that is none of those that a transaction keeps in the log.
    fn check_kept(&self, kept: RangeInclusive<u32>, frame: FrameNo) -> Result<()> {
        if kept.contains(&frame.get()) {
            return Ok(());
        }
        let reason = format!("{frame:?} is none that this transaction keeps in the log");
        Err(Error::refused(self.path(), "reading a frame", reason))
    }

    pub(super) fn read_log(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check_process()?;
        let log = self.storage.log();
        if let Some(mapped) = log.mapped() {
            buffer.copy_from_slice(mapped.slice(offset, buffer.len())?);
            return Ok(());
        }
        if log.read_at(buffer, offset)? < buffer.len() {
            let reason = "it ends before a frame that the wal-index names";
            return Err(Error::corrupt(log.path(), reason));
        }
        Ok(())
    }
}
