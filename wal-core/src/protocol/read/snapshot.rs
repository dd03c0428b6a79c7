//! Snapshots as values: the one of a transaction, and one that can be opened again.

use std::cmp::Ordering as Order;
use std::fmt;

use crate::error::{Error, Result};
use crate::index::IndexHeader;
use crate::types::{PageNo, PageSize, ReadSlot, Salts};

/// One state of the database, as a reader sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    pub(in crate::protocol) header: IndexHeader,
    pub(in crate::protocol) slot: Option<ReadSlot>,
    /// Frames before this one are in the database file.
    pub(in crate::protocol) min_frame: u32,
    pub(in crate::protocol) page_count: u32,
}

impl Snapshot {
    /// The generation of the log.
    pub fn salts(&self) -> Salts {
        self.header.salts()
    }

    /// The last frame of the log that belongs to the snapshot.
    #[inline]
    pub fn max_frame(&self) -> u32 {
        self.header.max_frame()
    }

    /// The size of the database in pages.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// True if the log is bypassed, because all of it is in the database file.
    #[inline]
    pub fn bypasses_log(&self) -> bool {
        match self.slot {
            Some(slot) => slot == ReadSlot::DATABASE,
            None => self.reads_database_only(),
        }
    }

    /// True if no page is looked for in the log. That is so at slot 0, unless
    /// the transaction itself has committed since it took that.
    #[inline]
    pub(in crate::protocol) fn reads_database_only(&self) -> bool {
        self.min_frame > self.header.max_frame()
    }

    /// True if this state is known to include `commit`: it is of the same log and not older,
    /// or of the log after as many restarts as can be counted, each of which moves all commits
    /// to the database file first.
    ///
    /// False does not say that `commit` is missing: a log that was removed by its last
    /// user, and made again, has a name of its own.
    pub fn includes(&self, commit: &SavedSnapshot) -> bool {
        let (frame, of) = (commit.max_frame(), commit.salts());
        if self.header == *commit.header() || frame == 0 && of.names_none() {
            return true;
        }
        // A replica that has applied several commits at once, and a recovery, have another
        // change word: the frames tell.
        let same_frame = || self.header.frame_checksum() == commit.header().frame_checksum();
        match self.salts().name_same(of) {
            true => frame < self.max_frame() || frame == self.max_frame() && same_frame(),
            false => self.salts().restarts_since(of).is_some(),
        }
    }

    /// True if both are snapshots of one published state. A state that is
    /// published again, by a restart or a recovery, is another one.
    pub fn is_same_state(&self, other: &Snapshot) -> bool {
        self.header == other.header
    }

    /// The slot whose lock protects the snapshot; `None` for a writer, whose
    /// lock on Write does that.
    pub fn slot(&self) -> Option<ReadSlot> {
        self.slot
    }
}

impl Snapshot {
    #[inline]
    pub(in crate::protocol) fn check_page(&self, page: PageNo, size: PageSize) -> Result<()> {
        if page.get() > self.page_count || page == size.lock_byte_page() {
            return Err(Error::NoSuchPage {
                page: page.get(),
                page_count: self.page_count,
            });
        }
        Ok(())
    }
}

/// A state of the database that can be opened again ([`crate::protocol::Wal::open_snapshot`]),
/// for as long as the log has it. It is the same 48 bytes as a
/// `sqlite3_snapshot`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SavedSnapshot {
    header: IndexHeader,
}

impl fmt::Debug for SavedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedSnapshot")
            .field("salts", &self.salts())
            .field("max_frame", &self.max_frame())
            .finish_non_exhaustive()
    }
}

impl SavedSnapshot {
    /// The length of [`SavedSnapshot::to_bytes`].
    pub const LEN: usize = 48;

    pub(in crate::protocol) fn of(header: IndexHeader) -> Self {
        SavedSnapshot { header }
    }

    pub(in crate::protocol) fn header(&self) -> &IndexHeader {
        &self.header
    }

    /// The generation of the log.
    pub fn salts(&self) -> Salts {
        self.header.salts()
    }

    /// The last frame of the log that belongs to the snapshot.
    pub fn max_frame(&self) -> u32 {
        self.header.max_frame()
    }

    /// The snapshot as bytes, for another process of this machine.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        bytemuck::cast(self.header.words())
    }

    /// Takes bytes as a snapshot; `None` if they are none.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let header = IndexHeader::from_words(bytemuck::cast(bytes)).ok()?;
        Some(SavedSnapshot { header })
    }

    /// Which of the two is older (`sqlite3_snapshot_cmp`); `None` if they are
    /// of different generations of the log, or of empty logs as SQLite leaves them,
    /// which have no order.
    pub fn compare(&self, other: &Self) -> Option<Order> {
        let same = self.salts().name_same(other.salts());
        same.then(|| self.max_frame().cmp(&other.max_frame()))
    }
}

impl Snapshot {
    /// The snapshot as a value that can be opened again.
    pub fn save(&self) -> SavedSnapshot {
        SavedSnapshot {
            header: self.header,
        }
    }
}
