//! Writes the changed pages of a transaction to the log before it commits,
//! when they need more memory than they may (`pagerStress`, `walFrames`).
//!
//! # Protocol
//! Spilled frames have no commit mark, and lie above the published frame, as
//! do their index entries: nobody but this transaction looks there. Before
//! the first of them the log is restarted, if that can be done, and a log that
//! begins anew gets its header, as for a commit.
//!
//! Everything in memory is written, in the order in which it came to be: what
//! pages were at each open savepoint comes before what they are now, so that
//! rolling back to a savepoint is cutting the log where it was set. A page
//! that the transaction has in the log already is overwritten in its frame,
//! unless a savepoint needs that; the checksums from there on are then wrong
//! until the commit makes them right. Frames at or below the published one
//! are never touched.
//!
//! # Crash
//! Frames without a commit mark, with or without right checksums, are not
//! recovered; the next writer trims the entries and overwrites the frames.
#![allow(unsafe_code)] // A lock is said to keep what is read under it.

use std::collections::BTreeSet;

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::{self, block_of_frame};
use crate::protocol::config::Synchronous;
use crate::protocol::handle::Wal;
use crate::protocol::read::kept::Kept;
use crate::protocol::read::page_ref::PageRef;
use crate::protocol::write::dirty_pages::{Changes, History};
use crate::protocol::write::own_frames::{LogEnd, OwnFrames};
use crate::protocol::write::write_tx::WriteTx;
use crate::testing::{Point, rule, step};
use crate::types::{FrameNo, PageNo};

/// Pages that are overwritten in their frames, and pages that get new ones.
pub(in crate::protocol) type Placed<'p> = (Vec<(FrameNo, &'p [u8])>, Vec<(PageNo, &'p [u8])>);

impl<C: WalCoordination> WriteTx<C> {
    /// Spills if there is no room for one more page.
    pub(super) fn make_room(&mut self) -> Result<()> {
        let config = &self.wal().config();
        let needed = (self.changes.len() as u64 + 1) * u64::from(config.page_size.bytes());
        let spills = config.cache_spill != 0 && needed > config.cache_spill;
        if spills && self.changes.len() > 0 {
            self.spill()?;
        }
        Ok(())
    }

    /// Writes all changed pages to the log, and frees their memory. It is done
    /// when they need more than [`crate::protocol::WalConfig::cache_spill`], and can be
    /// asked for.
    ///
    /// # Errors
    /// [`crate::Error::Io`], for want of space for instance: the transaction goes on
    /// as if nothing was tried, and can be rolled back.
    pub fn spill(&mut self) -> Result<()> {
        self.wal().check_writable()?;
        if self.changes.len() == 0 {
            return Ok(());
        }
        let wal = self.wal().clone();
        let (own, changes) = self.begin_own_frames()?;
        let kept = changes.kept_in_log().map(|end| end.max_frame);
        #[cfg(feature = "observe")]
        let before = own.end.max_frame;
        let result = spill_history(&wal, own, kept, &changes.history());
        match result {
            Ok(ref ends) => {
                observe!(
                    wal,
                    Spilled {
                        frames: own.end.max_frame - before
                    }
                );
                own.of_engine = false;
                changes.spilled(ends);
            }
            Err(_) => wal.forget_leftovers(own),
        }
        result.map(drop)
    }

    /// What the transaction has in the log, and on the heap. Before its first frame this
    /// restarts the log if that can be done, and writes the log header if the log is empty.
    pub(in crate::protocol) fn begin_own_frames(
        &mut self,
    ) -> Result<(&mut OwnFrames, &mut Changes)> {
        let own = match self.own.take() {
            Some(own) => own,
            None => self.no_own_frames()?,
        };
        Ok((self.own.insert(own), &mut self.changes))
    }

    fn no_own_frames(&mut self) -> Result<OwnFrames> {
        let restarted = self.try_restart_log_before_write()?.is_some();
        let published = self.read.snapshot.header;
        rule!(SpillRewritesLog, {
            self.wal().mend_log_for_frames(published.salts())?;
        });
        let start = self.wal().prepare_wal_header(&published, restarted)?;
        Ok(OwnFrames::none_after(start))
    }

    /// What this transaction reads of the log, as long as it is borrowed: what it has
    /// written there, too.
    pub(in crate::protocol) fn kept(&self) -> Kept<'_, C> {
        // SAFETY: `write` holds `WRITE`, or has it on loan from the vacuum that this is a
        // part of, so nobody restarts the log. The frames of the transaction are written
        // over by methods that borrow it exclusively.
        unsafe { self.wal().kept(1, self.frame_count()) }
    }

    /// The page as the transaction has it in the log.
    pub(super) fn spilled_page(&self, page: PageNo) -> Result<Option<PageRef<'_>>> {
        let Some(own) = &self.own else {
            return Ok(None);
        };
        let wal = self.wal();
        match wal.find_own_frame(own, page)? {
            Some(frame) => self.kept().page_of_frame(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Which pages the frames of the transaction behind `end` hold.
    pub(in crate::protocol) fn pages_in_log(
        &self,
        end: Option<LogEnd>,
    ) -> Result<BTreeSet<PageNo>> {
        let Some(own) = &self.own else {
            return Ok(BTreeSet::new());
        };
        let first = end.map_or(own.first(), |end| end.max_frame.saturating_add(1));
        (first..=own.end.max_frame)
            .map(|frame| PageNo::new(index::page_of_frame(&**self.wal(), frame)?))
            .collect()
    }

    /// Takes the log back to `end`: what lies behind is overwritten later
    /// (`sqlite3WalSavepointUndo`).
    pub(in crate::protocol) fn cut_own_frames(&mut self, end: LogEnd) {
        let wal = self.wal().clone();
        if let Some(own) = &mut self.own {
            own.cut_to(end);
            wal.forget_leftovers(own);
        }
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Makes sure of room in the log for the frames behind those of the transaction, makes
    /// room in the index, and stores their entries. They count after
    /// [`OwnFrames::advance_to`]; a caller that fails before that leaves them to
    /// [`Wal::forget_leftovers`].
    pub(in crate::protocol) fn index_frames(
        &self,
        own: &mut OwnFrames,
        pages: &[(PageNo, &[u8])],
    ) -> Result<()> {
        self.check_log_room(own.end.max_frame, pages.len())?;
        // An entry behind a leftover in a chain is lost when the next writer clears the
        // leftover.
        trim_leftovers(self, own)?;
        own.has_leftovers = true;
        // `prepare_frames` has checked that the last frame has a number.
        let mut made = None;
        for ((page, _), frame) in pages.iter().zip(own.end.max_frame.saturating_add(1)..) {
            let (block, _) = block_of_frame(frame);
            if made != Some(block) {
                step(Point::IndexGrow);
                self.coordination().grow(block)?;
                made = Some(block);
            }
            index::append(self, frame, page.get())?;
        }
        Ok(())
    }

    /// Clears the index entries behind the frames of the transaction. If that fails, the
    /// next call that adds frames clears them, or the next writer.
    pub(in crate::protocol) fn forget_leftovers(&self, own: &mut OwnFrames) {
        let _ = trim_leftovers(self, own);
    }

    /// Clears the index entries behind `max_frame`. The caller holds Write.
    pub(super) fn trim_own_frames(&self, max_frame: u32) -> Result<()> {
        rule!(RollbackTrimsIndex, {
            index::trim(self, max_frame)?;
        });
        Ok(())
    }

    pub(in crate::protocol) fn find_own_frame(
        &self,
        own: &OwnFrames,
        page: PageNo,
    ) -> Result<Option<FrameNo>> {
        let found = index::find(self, page.get(), own.first(), own.end.max_frame)?;
        Ok(found.and_then(FrameNo::new))
    }

    /// Tells which of `pages` are overwritten in the frames of the transaction
    /// behind `kept`, which a savepoint needs.
    pub(in crate::protocol) fn place<'p>(
        &self,
        own: &OwnFrames,
        kept: Option<u32>,
        pages: impl IntoIterator<Item = (PageNo, &'p [u8])>,
    ) -> Result<Placed<'p>> {
        let kept = kept.unwrap_or(own.start.max_frame());
        let first = kept.saturating_add(1);
        let (mut overwritten, mut appended) = (Vec::new(), Vec::new());
        for (page, content) in pages {
            let found = index::find(self, page.get(), first, own.end.max_frame)?;
            match found.and_then(FrameNo::new) {
                Some(frame) => overwritten.push((frame, content)),
                None => appended.push((page, content)),
            }
        }
        Ok((overwritten, appended))
    }
}

fn trim_leftovers<C: WalCoordination>(wal: &Wal<C>, own: &mut OwnFrames) -> Result<()> {
    if own.has_leftovers {
        wal.trim_own_frames(own.end.max_frame)?;
        own.has_leftovers = false;
    }
    Ok(())
}

/// Writes `history` to the log, and tells where each part of it ends but
/// the last.
fn spill_history<C: WalCoordination>(
    wal: &Wal<C>,
    own: &mut OwnFrames,
    kept: Option<u32>,
    history: &History<'_>,
) -> Result<Vec<LogEnd>> {
    let base = history.base.iter().copied();
    let (overwritten, mut appended) = wal.place(own, kept, base)?;
    let mut lens = Vec::with_capacity(history.later.len());
    for part in &history.later {
        lens.push(appended.len());
        appended.extend(part);
    }
    // The new frames first: if that fails, they are cut off again.
    let prepared = wal.prepare_frames(own, &appended, None)?;
    if let Some(prepared) = &prepared {
        wal.index_frames(own, &appended)?;
        wal.write_frames(prepared, Point::SpillWrite)?;
        if wal.tuning().synchronous() != Synchronous::Off {
            wal.start_writeback(prepared.first, prepared.last)?;
        }
    }
    wal.overwrite_frames(own, &overwritten)?;
    own.settle(&overwritten);
    let before = own.end;
    let end_after = |len: usize| match &prepared {
        Some(prepared) => prepared.end_after(before, len),
        None => before,
    };
    let ends = lens.into_iter().map(end_after).collect();
    own.advance_to(end_after(appended.len()));
    Ok(ends)
}
