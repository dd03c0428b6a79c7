//! Overwrites pages that the transaction has in the log already, and makes the
//! checksums right again.
//!
//! # Protocol
//! The frames lie above the published one, where nobody else looks. From the
//! first one that was overwritten on, all checksums are wrong, because each
//! goes on from the one before; the commit makes them right before it writes
//! its mark.
//!
//! # Crash
//! Without a commit mark none of these frames counts.

use std::io::IoSlice;

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{Checksum, FRAME_HEADER_LEN, FrameHeader, frame_offset};
use crate::index;
use crate::protocol::handle::Wal;
use crate::protocol::write::own_frames::OwnFrames;
use crate::testing::{Point, rule, step};
use crate::types::{FrameNo, PageNo};

impl<C: WalCoordination> Wal<C> {
    /// Overwrites the pages in frames of this transaction. The frames are unsettled until
    /// the rest of the caller's operation succeeds and it settles them.
    pub(in crate::protocol) fn overwrite_frames(
        &self,
        own: &mut OwnFrames,
        pages: &[(FrameNo, &[u8])],
    ) -> Result<()> {
        // Before the writes, which can fail half-way.
        own.unsettled
            .extend(pages.iter().map(|(frame, _)| frame.get()));
        for &(frame, content) in pages {
            let first = own.overwritten.map_or(frame.get(), |f| f.min(frame.get()));
            own.overwritten = Some(first);
            let offset = frame_offset(frame, self.config().page_size) + FRAME_HEADER_LEN as u64;
            step(Point::FrameOverwrite);
            self.storage()
                .log()
                .write_all_at(&mut [IoSlice::new(content)], offset)?;
        }
        Ok(())
    }

    /// Computes the checksums again from the first frame that was overwritten
    /// on (`walRewriteChecksums`).
    pub(super) fn mend_checksums(&self, own: &mut OwnFrames) -> Result<()> {
        let Some(first) = own.overwritten.and_then(FrameNo::new) else {
            return Ok(());
        };
        let log = self.storage().log();
        let page_size = self.config().page_size;
        let mut frame = vec![0; FRAME_HEADER_LEN + page_size.len()];
        let mut checksum = self.checksum_behind(own, first.get().saturating_sub(1))?;
        for number in (first.get()..=own.end.max_frame).filter_map(FrameNo::new) {
            let offset = frame_offset(number, page_size);
            if log.read_at(&mut frame, offset)? < frame.len() {
                return Err(Error::corrupt(
                    log.path(),
                    format!("it ends before {number:?}"),
                ));
            }
            let header = FrameHeader {
                page: PageNo::new(index::page_of_frame(self, number.get())?)?,
                commit_size: 0,
                salts: own.start.salts(),
            };
            let content = &frame[FRAME_HEADER_LEN..];
            let (bytes, after) = header.encode(own.start.byte_order(), checksum, content);
            step(Point::ChecksumRewrite);
            log.write_all_at(&mut [IoSlice::new(&bytes)], offset)?;
            checksum = after;
        }
        own.end.checksum = checksum;
        own.overwritten = None;
        Ok(())
    }

    /// The checksum at the end of `frame`, which is one of this transaction or the last
    /// one before it, as the log has it. A copy of it is wrong once a page before is
    /// overwritten and the checksums are corrected.
    pub(in crate::protocol) fn checksum_behind(
        &self,
        own: &OwnFrames,
        frame: u32,
    ) -> Result<Checksum> {
        let Some(frame) = FrameNo::new(frame).filter(|f| f.get() > own.start.max_frame()) else {
            return Ok(own.start.frame_checksum());
        };
        let log = self.storage().log();
        let mut sums = [0; 8];
        let end = frame_offset(frame, self.config().page_size) + FRAME_HEADER_LEN as u64;
        if log.read_at(&mut sums, end - 8)? < sums.len() {
            return Err(Error::corrupt(
                log.path(),
                format!("it ends before {frame:?}"),
            ));
        }
        Ok(Checksum::from_be_bytes(sums))
    }

    /// Refuses a commit with a page that a failed call has overwritten in part, unless its
    /// frame is among those that are `rewritten` now. A page beyond `page_count` is not
    /// part of the commit.
    pub(super) fn check_settled(
        &self,
        own: &OwnFrames,
        rewritten: &[(FrameNo, &[u8])],
        page_count: u32,
    ) -> Result<()> {
        for &frame in &own.unsettled {
            let is_whole = rewritten.iter().any(|(whole, _)| whole.get() == frame);
            let page = index::page_of_frame(self, frame)?;
            if !rule!(UnsettledPageCheck, is_whole || page > page_count) {
                let reason = format!(
                    "a failed call has overwritten page {page} in part; pass that page again, \
                    or cut its frame"
                );
                return Err(Error::refused(self.path(), "a commit", reason));
            }
        }
        Ok(())
    }
}
