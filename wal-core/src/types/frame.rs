//! Frame numbers.

use std::fmt;
use std::num::NonZeroU32;

/// The highest frame number that a writer uses: the next number is the mark of a slot
/// without a reader ([`crate::index::MARK_NOT_USED`]).
pub(crate) const MAX_FRAME: u32 = u32::MAX - 1;

/// The number of a frame in the log; the first frame is 1.
///
/// Counts of frames ("max frame", "backfilled") are plain `u32`, in which 0
/// says that there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(NonZeroU32);

impl FrameNo {
    /// Takes `number` as a frame number; `None` if it is 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(FrameNo(number)),
            None => None,
        }
    }

    /// The number, at least 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for FrameNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}", self.0)
    }
}

impl fmt::Display for FrameNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
