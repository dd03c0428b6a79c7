//! The five slots of readers.

/// One of the five slots through which readers say what they read.
///
/// Slot 0 means that the log is bypassed: everything is in the database file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ReadSlot(u8);

impl ReadSlot {
    /// The slot of readers that bypass the log.
    pub const DATABASE: ReadSlot = ReadSlot(0);
    /// The slots that carry a read mark.
    pub const MARKED: [ReadSlot; 4] = [ReadSlot(1), ReadSlot(2), ReadSlot(3), ReadSlot(4)];
    /// All slots.
    pub const ALL: [ReadSlot; 5] = [
        ReadSlot(0),
        ReadSlot(1),
        ReadSlot(2),
        ReadSlot(3),
        ReadSlot(4),
    ];

    /// The number of the slot, 0 to 4.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
