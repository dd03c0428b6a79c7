//! How much of a write transaction is in the log, as a value to which an engine cuts the
//! transaction (`sqlite3WalSavepoint`).
//!
//! # Protocol
//! A mark is the number of the transaction's frames, the name of the transaction, and how
//! often it was cut before. The mark is valid while no frame below it was cut off: a later
//! frame in its place holds another page. Frames are counted from the beginning of the
//! transaction, so a mark outlives a restart of the log, which precedes the first frame.
//! The checksum at the mark is no part of it, because overwriting a page below changes
//! that; a cut reads it from the log.

/// A place in the frames of a write transaction, to which it can be cut. A mark is refused
/// in another transaction, behind a commit, and once a frame before it was cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramesMark {
    pub(in crate::protocol) transaction: u64,
    pub(in crate::protocol) frames: u32,
    /// How often the transaction was cut before.
    cuts: u32,
}

impl FramesMark {
    /// Four words, for an engine that keeps the mark as such (`aWalData`).
    pub fn to_words(self) -> [u32; 4] {
        let [high, low] = [self.transaction >> 32, self.transaction & 0xffff_ffff];
        let half = |half: u64| u32::try_from(half).unwrap_or(0);
        [self.frames, self.cuts, half(high), half(low)]
    }

    /// The mark that gave these words. Zeros are the mark of no transaction.
    pub fn from_words([frames, cuts, high, low]: [u32; 4]) -> Self {
        FramesMark {
            transaction: u64::from(high) << 32 | u64::from(low),
            frames,
            cuts,
        }
    }
}

/// The cuts of a transaction, as far as they decide about marks.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Cuts {
    count: u32,
    /// The number of a cut, and how many frames it left. Both ascend: a cut to fewer frames
    /// replaces those before it that left more.
    lowest: Vec<(u32, u32)>,
}

impl Cuts {
    /// The mark of a transaction that has `frames` frames.
    pub(in crate::protocol) fn mark(&self, transaction: u64, frames: u32) -> FramesMark {
        FramesMark {
            transaction,
            frames,
            cuts: self.count,
        }
    }

    /// Notes a cut to `frames` frames.
    pub(in crate::protocol) fn cut(&mut self, frames: u32) {
        self.count = self.count.saturating_add(1);
        self.lowest.retain(|&(_, left)| left < frames);
        self.lowest.push((self.count, frames));
    }

    /// True if no frame before `mark` was cut off since.
    pub(in crate::protocol) fn keep(&self, mark: FramesMark) -> bool {
        let behind = self.lowest.partition_point(|&(cut, _)| cut <= mark.cuts);
        let lowest = self.lowest.get(behind);
        lowest.is_none_or(|&(_, left)| left >= mark.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the frames themselves, each of which has a name of its own.
    #[test]
    fn mark_is_kept_while_its_frames_are_there() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut cuts, mut frames, mut next) = (Cuts::default(), Vec::new(), 0u32);
            let mut marks: Vec<(FramesMark, Vec<u32>)> = Vec::new();
            for _ in 0..60 {
                match rng.u8(..4) {
                    0 => {
                        frames.push(next);
                        next += 1;
                    }
                    1 if !frames.is_empty() => {
                        frames.truncate(rng.usize(..frames.len()));
                        cuts.cut(u32::try_from(frames.len()).unwrap());
                    }
                    _ => {
                        let len = u32::try_from(frames.len()).unwrap();
                        let mark = cuts.mark(7, len);
                        marks.push((FramesMark::from_words(mark.to_words()), frames.clone()));
                    }
                }
                for (mark, then) in &marks {
                    let are_there = frames.starts_with(then);
                    assert_eq!(
                        cuts.keep(*mark),
                        are_there,
                        "seed {seed}, {mark:?}, {cuts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn mark_comes_back_from_its_words() {
        for transaction in [1, u64::from(u32::MAX) + 1, u64::MAX] {
            let mark = Cuts::default().mark(transaction, u32::MAX);
            assert_eq!(FramesMark::from_words(mark.to_words()), mark);
        }
    }
}
