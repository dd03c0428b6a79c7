//! What a write transaction has in the log, above the published frames.

use std::collections::BTreeSet;

use crate::format::Checksum;
use crate::index::IndexHeader;
use crate::types::FrameNo;

/// A place in the log behind some frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) struct LogEnd {
    pub(in crate::protocol) max_frame: u32,
    /// What the next frame goes on from.
    pub(in crate::protocol) checksum: Checksum,
}

/// The frames of a transaction that has not committed.
#[derive(Debug)]
pub(in crate::protocol) struct OwnFrames {
    /// The state that the first of them goes on from, in its generation.
    pub(in crate::protocol) start: IndexHeader,
    pub(in crate::protocol) end: LogEnd,
    /// From this frame on checksums are wrong, because its page was
    /// overwritten (`iReCksum`).
    pub(in crate::protocol) overwritten: Option<u32>,
    /// Frames that a failed call was to overwrite: each holds the old page, the new one,
    /// or a part of each. No commit includes them.
    pub(super) unsettled: BTreeSet<u32>,
    /// The index may have entries behind `end`, left by a failed call.
    pub(super) has_leftovers: bool,
    /// The frames are an engine's ([`crate::protocol::engine`]).
    pub(in crate::protocol) of_engine: bool,
}

impl OwnFrames {
    pub(in crate::protocol) fn none_after(start: IndexHeader) -> Self {
        let end = LogEnd {
            max_frame: start.max_frame(),
            checksum: start.frame_checksum(),
        };
        OwnFrames {
            start,
            end,
            overwritten: None,
            unsettled: BTreeSet::new(),
            has_leftovers: false,
            of_engine: false,
        }
    }

    /// Adds the frames up to `end`, which are written and indexed, to the transaction.
    pub(in crate::protocol) fn advance_to(&mut self, end: LogEnd) {
        self.end = end;
        self.has_leftovers = false;
    }

    /// Cuts off the frames behind `end`.
    pub(super) fn cut_to(&mut self, end: LogEnd) {
        self.end = end;
        self.overwritten = self.overwritten.filter(|&frame| frame <= end.max_frame);
        self.unsettled.retain(|&frame| frame <= end.max_frame);
        self.has_leftovers = true;
    }

    /// Records that these frames hold whole pages.
    pub(in crate::protocol) fn settle(&mut self, overwritten: &[(FrameNo, &[u8])]) {
        for (frame, _) in overwritten {
            self.unsettled.remove(&frame.get());
        }
    }

    pub(in crate::protocol) fn is_empty(&self) -> bool {
        self.end.max_frame == self.start.max_frame()
    }

    /// Where the frames of this transaction begin.
    pub(in crate::protocol) fn first(&self) -> u32 {
        self.start.max_frame().saturating_add(1)
    }
}
