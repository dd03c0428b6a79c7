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

use super::Wal;
use super::spill::OwnFrames;
use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{Checksum, FRAME_HEADER_LEN, FrameHeader, frame_offset};
use crate::index;
use crate::testing::{Mutation, Point, mutated, step};
use crate::types::{FrameNo, PageNo};

impl<C: WalCoordination> Wal<C> {
    /// Overwrites the pages in frames of this transaction.
    pub(super) fn overwrite_frames(
        &self,
        own: &mut OwnFrames,
        pages: &[(FrameNo, &[u8])],
    ) -> Result<()> {
        for &(frame, content) in pages {
            // Before the write, which can fail half-way.
            let first = own.overwritten.map_or(frame.get(), |f| f.min(frame.get()));
            own.overwritten = Some(first);
            let offset = frame_offset(frame, self.config.page_size) + FRAME_HEADER_LEN as u64;
            step(Point::FrameOverwrite);
            self.storage
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
        if mutated(Mutation::SkipChecksumRewrite) {
            return Ok(());
        }
        let log = self.storage.log();
        let page_size = self.config.page_size;
        let mut frame = vec![0; FRAME_HEADER_LEN + page_size.len()];
        let mut checksum = self.checksum_before(own, first)?;
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

    /// The checksum that `frame` of this transaction goes on from.
    fn checksum_before(&self, own: &OwnFrames, frame: FrameNo) -> Result<Checksum> {
        let before = match FrameNo::new(frame.get() - 1) {
            Some(before) if before.get() > own.start.max_frame() => before,
            _ => return Ok(own.start.frame_checksum()),
        };
        let log = self.storage.log();
        let mut sums = [0; 8];
        let offset = frame_offset(before, self.config.page_size) + FRAME_HEADER_LEN as u64;
        if log.read_at(&mut sums, offset - 8)? < sums.len() {
            return Err(Error::corrupt(
                log.path(),
                format!("it ends before {before:?}"),
            ));
        }
        Ok(Checksum::from_be_bytes(sums))
    }
}
