//! Adds frames of another database's log to this one's, byte for byte, so that
//! the two logs are the same: the other end of a [`crate::protocol::Tail`].
//!
//! # Protocol
//! The caller holds Write, as for a commit. A frame is taken only if it is the
//! next one and its checksum goes on from the one before, so nothing is left
//! out and nothing comes from elsewhere; one that the log has already is
//! compared with it, and passed over. What was given shows itself at
//! [`ApplyTx::commit`], up to the last frame with a commit mark, as one change.
//! How far a replica has come is in its log: salts and last frame.
//!
//! A generation begins on an empty log, or on one that is backfilled, which is
//! begun anew in the same way as for a commit. One that follows the generation
//! before it without a gap gets its header first, as always. For one that is
//! given to a copy of a later state, the frames up to that state are written
//! and synced before the header is: fewer of them would overlay newer pages
//! with older ones. Until then there is no header, so that none of them counts.
//!
//! # Crash
//! As in a commit: entries above the published frame are trimmed, and frames
//! are overwritten by the same ones. A recovery may find more of them than
//! were published, up to some commit mark, which is where the replica then
//! stands.

use std::io::IoSlice;
use std::path::Path;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{
    DecodedHeader, FRAME_HEADER_LEN, FrameHeader, LOG_HEADER_LEN, LogHeader, frame_offset,
};
use crate::index;
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::locking::busy::{BusyHandler, Waiter};
use crate::protocol::locking::queued_write::Begin;
use crate::protocol::replication::tail::{TailFrames, TailPosition};
use crate::protocol::write::append::PreparedFrames;
use crate::protocol::write::own_frames::{LogEnd, OwnFrames};
use crate::protocol::write::page_one;
use crate::protocol::write::write_tx::WriteTx;
use crate::testing::{Point, rule, step};
use crate::types::{FrameNo, Lock, MAX_FRAME, PageNo};

/// A transaction that adds frames of another log. Dropping it without
/// [`ApplyTx::commit`] forgets them.
pub struct ApplyTx<C: WalCoordination> {
    tx: WriteTx<C>,
    own: OwnFrames,
    header: Header,
    /// The frames behind `own.end`, which are not written yet.
    pending: Vec<Pending>,
    /// The state behind the last commit mark that was given.
    complete: Option<(LogEnd, u32)>,
}

/// What is to be done about the header of the log.
#[derive(Debug)]
enum Header {
    IsThere,
    /// There is none, and no generation was begun.
    IsMissing,
    GoesFirst([u8; LOG_HEADER_LEN]),
    GoesLast([u8; LOG_HEADER_LEN]),
}

#[derive(Debug)]
struct Pending {
    page: PageNo,
    header: [u8; FRAME_HEADER_LEN],
    content: Box<[u8]>,
    end: LogEnd,
}

impl<C: WalCoordination> Wal<C> {
    /// Begins to apply frames, after waiting for writers as `busy` says.
    ///
    /// # Errors
    /// Those of [`Wal::begin_write`].
    pub fn begin_apply(
        self: &std::sync::Arc<Self>,
        busy: impl Into<BusyHandler>,
    ) -> Result<ApplyTx<C>> {
        self.check_writable()?;
        let mut waiter = Waiter::new(busy.into());
        let tx = self.begin_write_waiting(&mut waiter, Begin::OnPublished)?;
        let published = tx.read.snapshot.header;
        let header = match published.max_frame() {
            0 => Header::IsMissing,
            _ => Header::IsThere,
        };
        Ok(ApplyTx {
            tx,
            own: OwnFrames::none_after(published),
            header,
            pending: Vec::new(),
            complete: None,
        })
    }
}

impl<C: WalCoordination> ApplyTx<C> {
    pub(in crate::protocol) fn path(&self) -> &Path {
        self.tx.wal().path()
    }

    /// How many frames are not written yet.
    pub(in crate::protocol) fn pending_frames(&self) -> usize {
        self.pending.len()
    }

    /// How far the log has come, without what is not committed. Frames up to
    /// here need not be given again.
    pub fn position(&self) -> TailPosition {
        TailPosition::of(&self.own.start)
    }

    /// Begins the generation that `header` names: the first 32 bytes of the
    /// other log ([`crate::protocol::TailFrames::log_header`]). Nothing is done if the
    /// log is of that generation already.
    ///
    /// `after` is where the generation before ended, and this database has to
    /// stand there. `None` is for a database that was copied from the other
    /// one: then all frames up to the state that was copied, at least, have to
    /// be given before the first [`ApplyTx::commit`].
    ///
    /// # Errors
    /// [`Error::Diverged`] if the database does not stand at `after`, or if that is in an
    /// empty log as SQLite leaves it, where no salts tell;
    /// [`Error::Refused`] if the bytes are no header, or not all of this log
    /// is in the database file yet: checkpoint it; [`Error::Busy`] if somebody
    /// reads or checkpoints it; [`Error::PageSizeMismatch`], [`Error::Io`].
    pub fn begin_generation(
        &mut self,
        header: &[u8; LOG_HEADER_LEN],
        after: Option<TailPosition>,
    ) -> Result<()> {
        let wal = self.tx.wal().clone();
        wal.check_process()?;
        let DecodedHeader::Valid(log, checksum) = LogHeader::decode(header) else {
            return Err(self.refused("the bytes are no header of a log"));
        };
        if log.page_size != wal.config().page_size {
            return Err(Error::PageSizeMismatch {
                path: wal.path().to_owned(),
                expected: wal.config().page_size.bytes(),
                found: log.page_size.bytes(),
            });
        }
        let position = self.position();
        // One that was begun and has no frame yet follows the same one.
        let begun = position.salts == log.salts;
        let is_committed = self.own.is_empty() && self.pending.is_empty();
        if begun && (position.frame > 0 || !is_committed) {
            return Ok(());
        }
        if !rule!(AppliedGenerationIsCommitted, is_committed) {
            return Err(self.refused("frames of the generation before are not committed"));
        }
        // Where an empty log ends that SQLite left, no salts tell.
        let is_there =
            |after: TailPosition| after == position && after.salts.name_same(position.salts);
        if after.is_some_and(|after| !is_there(after) && !begun) {
            return Err(self.diverged(0, "it does not end where the generation before did"));
        }
        let mut published = self.own.start;
        if position.frame > 0 {
            if !self.tx.read.snapshot.bypasses_log() {
                return Err(
                    self.refused("not all of the log is in the database file; checkpoint it first")
                );
            }
            // Salts that a copy has published would make it pass for one that
            // follows without a gap.
            let follows = rule!(CopyHidesSalts, after.is_some());
            let salts = if follows {
                log.salts
            } else {
                position.salts.next()
            };
            let restarted = self.tx.try_restart_log(salts)?;
            published = restarted.ok_or_else(|| wal.busy(Lock::ReadMarks))?;
        }
        let start = published.with_generation(log.salts, log.byte_order, checksum);
        self.own = OwnFrames::none_after(start);
        self.header = if rule!(CopyHeaderLast, after.is_some()) {
            Header::GoesFirst(*header)
        } else {
            Header::GoesLast(*header)
        };
        Ok(())
    }

    /// Takes the next frame: the 24 bytes of its header and its page
    /// ([`crate::protocol::RawFrame`]). One that the log has already is passed over.
    ///
    /// # Errors
    /// [`Error::FrameGap`] if frames before it are missing,
    /// [`Error::Diverged`] if this log has another frame of that number, or is
    /// of another generation, [`Error::Refused`] if the bytes are damaged or no
    /// generation was begun, and [`Error::Io`]. What was given before stays.
    pub fn apply(
        &mut self,
        number: FrameNo,
        header: &[u8; FRAME_HEADER_LEN],
        content: &[u8],
    ) -> Result<()> {
        let wal = self.tx.wal().clone();
        wal.check_process()?;
        if matches!(self.header, Header::IsMissing) {
            return Err(self.refused("the log is empty; begin a generation first"));
        }
        let start = &self.own.start;
        let salts = FrameHeader::of_published(header).map(|header| header.salts);
        if salts.is_some_and(|salts| salts != start.salts()) {
            return Err(self.diverged(number.get(), "it is of a generation that was not begun"));
        }
        let end = self.end();
        if number.get() <= end.max_frame {
            return self.check_same(number, header);
        }
        if number.get() > end.max_frame.saturating_add(1) {
            return Err(Error::FrameGap {
                path: wal.path().to_owned(),
                next: end.max_frame.saturating_add(1),
                given: number.get(),
            });
        }
        let whole = rule!(
            AppliedFrameLength,
            content.len() == wal.config().page_size.len()
        );
        let order = start.byte_order();
        let decoded = FrameHeader::decode(header, content, start.salts(), order, end.checksum);
        let Some((decoded, checksum)) = decoded.filter(|_| whole) else {
            return Err(self.refused(
                "the checksum of the frame does not go on from the one before; fetch it again",
            ));
        };
        self.check_numbers(number, &decoded)?;
        self.check_page_one(&decoded, content)?;
        let end = LogEnd {
            max_frame: number.get(),
            checksum,
        };
        self.pending.push(Pending {
            page: decoded.page,
            header: *header,
            content: content.into(),
            end,
        });
        if decoded.is_commit() {
            self.complete = Some((end, decoded.commit_size));
        }
        let needed = self.pending.len() as u64 * u64::from(wal.config().page_size.bytes());
        if wal.config().cache_spill != 0 && needed > wal.config().cache_spill {
            self.write_pending()?;
        }
        Ok(())
    }

    /// Takes all of `frames`, in the generation that they are of, which is
    /// begun `after` the one before if need be
    /// ([`ApplyTx::begin_generation`]).
    ///
    /// # Errors
    /// Those of [`ApplyTx::begin_generation`] and [`ApplyTx::apply`], and what
    /// reading `frames` gives.
    pub fn apply_frames<D: WalCoordination>(
        &mut self,
        frames: TailFrames<'_, D>,
        after: Option<TailPosition>,
    ) -> Result<()> {
        if let Some(header) = frames.log_header()? {
            self.begin_generation(&header, after)?;
        }
        for frame in frames {
            let frame = frame?;
            self.apply(frame.number, &frame.header, &frame.content)?;
        }
        Ok(())
    }

    /// Makes what was given visible, up to its last commit mark, as durable as
    /// the database's [`Synchronous`] promises, and tells how far the log has
    /// come. Frames behind that mark have to be given again. For an
    /// [`crate::protocol::Opener`] it is a commit like any other.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`]. Open the database again, if need
    /// be, and go on at the position that it has then.
    pub fn commit(mut self) -> Result<TailPosition> {
        let wal = self.tx.wal().clone();
        wal.check_writable()?;
        let Some((end, page_count)) = self.complete else {
            return Ok(self.position());
        };
        self.pending
            .retain(|frame| frame.end.max_frame <= end.max_frame);
        self.write_pending()?;
        // Before the header that may make a recovery find it.
        wal.mend_log_for_commit(self.own.start.salts(), !self.own.is_empty())?;
        if end.max_frame < self.own.end.max_frame {
            index::trim(&*wal, end.max_frame)?;
        }
        if let Some(last) = FrameNo::new(end.max_frame)
            && self.own.start.max_frame() == 0
        {
            wal.limit_log_size(last);
        }
        // Found before the frames count: nothing may fail behind that.
        let block_zero = wal.writable_block_zero()?;
        if let Header::GoesLast(header) = self.header {
            if wal.tuning().synchronous() != Synchronous::Off {
                rule!(CopySyncBeforeHeader, {
                    step(Point::LogHeaderSync);
                    wal.sync_log()?;
                });
            }
            write_log_header(&wal, &header)?;
        }
        if wal.tuning().synchronous() == Synchronous::Full {
            rule!(ApplySync, {
                step(Point::CommitSync);
                wal.sync_log()?;
            });
        }
        let page_size = wal.config().page_size;
        let committed =
            self.own
                .start
                .committed(page_size, end.max_frame, page_count, end.checksum);
        // From here on the frames are everybody's, and not to be trimmed.
        self.tx.own = None;
        wal.commit_prepared_frames(block_zero, &committed);
        observe!(
            wal,
            Committed {
                frames: end.max_frame - self.own.start.max_frame(),
                log_frames: end.max_frame,
            }
        );
        drop(self);
        wal.tell_opener();
        Ok(TailPosition::of(&committed))
    }

    /// Refuses a frame that no SQLite writes and that no checkpoint could copy.
    fn check_numbers(&self, number: FrameNo, frame: &FrameHeader) -> Result<()> {
        let lock_bytes = self.tx.wal().config().page_size.lock_byte_page();
        let page_count = frame.commit_size;
        if frame.page > PageNo::MAX || frame.page == lock_bytes || page_count > PageNo::MAX.get() {
            return Err(self.refused(
                "the frame is of a page, or a size, that no database has; copy the database anew",
            ));
        }
        if number.get() > MAX_FRAME {
            return Err(self.refused("no frame has that number; begin the next generation"));
        }
        Ok(())
    }

    /// Refuses a page 1 by which the file would no longer be what it is.
    fn check_page_one(&self, frame: &FrameHeader, content: &[u8]) -> Result<()> {
        let config = self.tx.wal().config();
        let fault = match frame.page == PageNo::ONE {
            true => page_one::fault(config.kind, config.page_size, content),
            false => None,
        };
        match fault {
            Some(fault) => {
                let reason = format!("page 1 of another database: {fault}; copy the database anew");
                Err(self.refused(&reason))
            }
            None => Ok(()),
        }
    }

    /// The end of the log, with what was given.
    fn end(&self) -> LogEnd {
        self.pending.last().map_or(self.own.end, |frame| frame.end)
    }

    /// Compares a frame that the log has with the one that was given for it.
    /// The checksums in the headers stand for the contents, and for all that
    /// comes before.
    fn check_same(&self, number: FrameNo, given: &[u8; FRAME_HEADER_LEN]) -> Result<()> {
        let written = self.own.end.max_frame;
        let mut found = [0; FRAME_HEADER_LEN];
        match self
            .pending
            .iter()
            .find(|frame| frame.end.max_frame == number.get())
        {
            Some(pending) => found = pending.header,
            None if number.get() <= written => {
                // Nobody begins the log anew while Write is held.
                let wal = self.tx.wal();
                let offset = frame_offset(number, wal.config().page_size);
                wal.storage().log().read_at(&mut found, offset)?;
            }
            None => {}
        }
        if !rule!(AppliedFrameMatches, found == *given) {
            return Err(self.diverged(number.get(), "the log has another frame of that number"));
        }
        Ok(())
    }

    /// Writes the frames that wait to the log, above the published one.
    fn write_pending(&mut self) -> Result<()> {
        let (Some(first), Some(last)) = (self.pending.first(), self.pending.last()) else {
            return Ok(());
        };
        let (Some(first), Some(last)) = (
            FrameNo::new(first.end.max_frame),
            FrameNo::new(last.end.max_frame),
        ) else {
            return Ok(());
        };
        let wal = self.tx.wal().clone();
        self.own_log(&wal)?;
        let pages = self
            .pending
            .iter()
            .map(|frame| (frame.page, &*frame.content));
        let pages: Vec<(PageNo, &[u8])> = pages.collect();
        let frames = self
            .pending
            .iter()
            .map(|frame| (frame.header, &*frame.content));
        let prepared = PreparedFrames {
            frames: frames.collect(),
            first,
            last,
            ends: self.pending.iter().map(|frame| frame.end).collect(),
        };
        let written = wal
            .index_frames(&mut self.own, &pages)
            .and_then(|()| wal.write_frames(&prepared, Point::FramesWrite));
        if let Err(e) = written {
            wal.forget_leftovers(&mut self.own);
            return Err(e);
        }
        self.own.advance_to(self.end());
        self.pending.clear();
        Ok(())
    }

    /// Sees to the header before the first frame is written, and that a
    /// rollback takes the index back.
    fn own_log(&mut self, wal: &std::sync::Arc<Wal<C>>) -> Result<()> {
        if self.tx.own.is_some() {
            return Ok(());
        }
        rule!(ApplyRewritesLog, {
            wal.mend_log_for_frames(self.own.start.salts())?;
        });
        match &self.header {
            Header::GoesFirst(header) => write_log_header(wal, header)?,
            Header::GoesLast(_) => rule!(CopyErasesOldHeader, {
                write_log_header(wal, &[0; LOG_HEADER_LEN])?;
            }),
            Header::IsThere | Header::IsMissing => {}
        }
        let begins_anew = matches!(self.header, Header::GoesFirst(_) | Header::GoesLast(_));
        if begins_anew && wal.tuning().synchronous() != Synchronous::Off {
            rule!(AppliedHeaderSync, {
                step(Point::LogHeaderSync);
                wal.sync_log()?;
            });
        }
        rule!(ApplyIsRolledBack, {
            self.tx.own = Some(OwnFrames::none_after(self.own.start));
        });
        Ok(())
    }

    fn refused(&self, reason: &str) -> Error {
        Error::refused(self.tx.wal().path(), "apply", reason)
    }

    fn diverged(&self, frame: u32, reason: &'static str) -> Error {
        Error::Diverged {
            path: self.tx.wal().path().to_owned(),
            frame,
            reason,
        }
    }
}

fn write_log_header<C: WalCoordination>(wal: &Wal<C>, header: &[u8; LOG_HEADER_LEN]) -> Result<()> {
    step(Point::LogHeaderWrite);
    wal.storage()
        .log()
        .write_all_at(&mut [IoSlice::new(header)], 0)
}
