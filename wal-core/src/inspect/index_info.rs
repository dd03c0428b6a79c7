//! Block 0 of the wal-index: header, counts and read marks.
//!
//! # Protocol
//! No lock is held. The header is loaded as each reader loads it (`header_cell`), then the
//! counts and the marks, then the header is compared. If it has changed, all is
//! loaded again, a bounded number of times.
//!
//! # Ordering
//! The loads of the counts are acquire loads, so they come before the comparison: a count of
//! a newer log is not returned beside an older header as long as [`IndexInfo::is_settled`].
//! Calls that read a file are made in the same order; each sees what was stored to the
//! mapped file before it.

use crate::error::Result;
use crate::index::{
    BLOCK_LEN, BadHeader, CheckpointInfo, HeaderCell, HeaderWords, IndexBlock, IndexHeader,
};
use crate::shared_memory::copy_of;
use crate::storage::File;
use crate::types::ReadSlot;

/// How often a header is loaded that is being published. A commit publishes it in less than a
/// microsecond, unless its writer has lost the processor.
const ATTEMPTS: u32 = 64;
/// The length of one copy of the header in bytes.
const COPY_LEN: usize = 48;

/// What the two copies of the header are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HeaderState {
    /// Both are the same, and sound: the newest committed state.
    Valid(IndexHeader),
    /// Zeros: the next user rebuilds the index from the log.
    NeverWritten,
    /// They differ: a commit is being published, or its writer died at it.
    CopiesDiffer,
    /// They are the same, but their checksum does not fit.
    Damaged,
    /// They are of a version that this library does not know.
    UnknownVersion(u32),
}

/// What block 0 of the wal-index contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IndexInfo {
    /// The header.
    pub header: HeaderState,
    /// The count of backfilled frames as it is stored, which may be of an older generation:
    /// see [`IndexInfo::backfilled`].
    pub backfill_count: u32,
    /// Up to which frame a checkpoint may have written the database file.
    pub attempted: u32,
    /// The mark of each slot as it is stored, see [`IndexInfo::mark`].
    pub marks: [u32; ReadSlot::ALL.len()],
    /// Whether the header was the same before and after everything else was loaded.
    pub is_settled: bool,
}

impl IndexInfo {
    /// The same, once the header has changed.
    fn unsettled(mut self) -> Self {
        self.is_settled = false;
        if self.header == HeaderState::Damaged {
            // Words of several commits, the same ones from both copies.
            self.header = HeaderState::CopiesDiffer;
        }
        self
    }

    /// The newest committed state, if the header is sound.
    pub fn valid_header(&self) -> Option<&IndexHeader> {
        match &self.header {
            HeaderState::Valid(header) => Some(header),
            _ => None,
        }
    }

    /// The last committed frame of the log; 0 if there is none or the header is not sound.
    pub fn max_frame(&self) -> u32 {
        self.valid_header().map_or(0, IndexHeader::max_frame)
    }

    /// How many frames of this generation are in the database file.
    pub fn backfilled(&self) -> u32 {
        let header = self.valid_header();
        header.map_or(0, |header| {
            CheckpointInfo::count_within(self.backfill_count, header)
        })
    }

    /// Up to which frame readers of `slot` read the log; `None` for a slot without a mark.
    /// Readers of slot 0 read the database file alone: their frame is [`Self::backfilled`].
    pub fn mark(&self, slot: ReadSlot) -> Option<u32> {
        match self.marks[slot.index()] {
            crate::index::MARK_NOT_USED => None,
            _ if slot == ReadSlot::DATABASE => Some(self.backfilled()),
            mark => Some(mark),
        }
    }
}

/// Describes the index that begins with `block_zero`, as `sqlite3_vfs` methods map it, or as a
/// block of an attachment.
///
/// ```
/// use wal_core::index::WritableBlock;
/// use wal_core::inspect::{HeaderState, inspect_index};
///
/// let info = inspect_index(&WritableBlock::zeroed());
/// assert_eq!(info.header, HeaderState::NeverWritten);
/// assert_eq!(info.max_frame(), 0);
/// ```
pub fn inspect_index(block_zero: &IndexBlock) -> IndexInfo {
    let mut info = sample(block_zero);
    for _ in 1..ATTEMPTS {
        if info.is_settled {
            break;
        }
        std::hint::spin_loop();
        info = sample(block_zero);
    }
    info
}

/// Describes the index in the file `shm` by calls that read it, so that a process which cuts
/// the file is no signal here. `None` if the file is shorter than a header: the next user
/// rebuilds the index.
///
/// A program that shares a process with stock SQLite must not open `-shm` by itself: to close
/// it drops the locks of that SQLite. It has a mapping, for [`inspect_index`].
///
/// # Errors
/// [`crate::Error::Io`] if the file cannot be read.
///
/// ```no_run
/// use wal_core::inspect::read_index;
/// use wal_core::storage::{OpenMode, OsFile};
///
/// let shm = OsFile::open_for_locks("app.db-shm".as_ref(), OpenMode::Observed)?;
/// if let Some(info) = read_index(&shm)? {
///     println!("{} frames, {} in the database", info.max_frame(), info.backfilled());
/// }
/// # Ok::<(), wal_core::Error>(())
/// ```
pub fn read_index(shm: &dyn File) -> Result<Option<IndexInfo>> {
    let mut bytes = vec![0; BLOCK_LEN];
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let [first, second] = [0..COPY_LEN, COPY_LEN..BLOCK_LEN];
        for part in [first, second] {
            let offset = part.start as u64;
            let wanted = part.len().min(HEADER_LEN - part.start);
            if shm.read_at(&mut bytes[part], offset)? < wanted {
                return Ok(None);
            }
        }
        let Some(block) = copy_of::<IndexBlock>(&bytes) else {
            return Ok(None);
        };
        let mut info = sample(&block);
        let mut again = [0; 2 * COPY_LEN];
        shm.read_at(&mut again, 0)?;
        if bytes.starts_with(&again) {
            if info.is_settled {
                return Ok(Some(info));
            }
        } else {
            info = info.unsettled();
        }
        last = Some(info);
    }
    Ok(last)
}

/// The bytes of block 0 before its entries.
const HEADER_LEN: usize = 136;

fn sample(block_zero: &IndexBlock) -> IndexInfo {
    let cell = HeaderCell::of(block_zero);
    let copies = cell.load_copies();
    let counts = CheckpointInfo::of(block_zero);
    let (backfill_count, attempted) = (counts.backfilled(), counts.attempted());
    let marks = ReadSlot::ALL.map(|slot| block_zero.mark(slot));
    let header = state_of(&copies);
    let info = IndexInfo {
        header,
        backfill_count,
        attempted,
        marks,
        is_settled: header != HeaderState::CopiesDiffer,
    };
    match cell.load_copies() == copies {
        true => info,
        false => info.unsettled(),
    }
}

fn state_of([first, second]: &[HeaderWords; 2]) -> HeaderState {
    if first != second {
        return HeaderState::CopiesDiffer;
    }
    match IndexHeader::from_words(*first) {
        Ok(header) => HeaderState::Valid(header),
        Err(BadHeader::UnknownVersion(version)) => HeaderState::UnknownVersion(version),
        Err(BadHeader::Damaged) if first.iter().all(|word| *word == 0) => HeaderState::NeverWritten,
        Err(BadHeader::Damaged) => HeaderState::Damaged,
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, unsafe_code)] // Marks are stored without their locks.
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::format::Checksum;
    use crate::index::{MARK_NOT_USED, WritableBlock};
    use crate::storage::MemoryFile;
    use crate::types::{PageSize, Salts};

    fn committed(change: u32) -> IndexHeader {
        (0..change).fold(IndexHeader::empty(), |header, _| {
            header.committed(PageSize::MIN, 9, 5, Checksum { s1: 1, s2: 2 })
        })
    }

    fn block(header: &IndexHeader) -> Box<WritableBlock> {
        let block = WritableBlock::zeroed();
        block.store_header(header);
        block.set_backfilled(4);
        block.set_attempted(6);
        for (slot, mark) in ReadSlot::ALL.into_iter().zip([0, 9, 7, MARK_NOT_USED, 3]) {
            // SAFETY: the test is alone with the block.
            unsafe { block.set_mark(slot, mark) };
        }
        block
    }

    /// The bytes of a block, as the file of a mapping has them.
    fn bytes_of(block: &WritableBlock) -> Vec<u8> {
        let words = block.header_words().iter();
        let mut bytes: Vec<u8> = words.flat_map(|word| word.load().to_ne_bytes()).collect();
        bytes.resize(BLOCK_LEN, 0);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Option<IndexInfo> {
        read_index(&MemoryFile::new("db-shm", bytes)).unwrap()
    }

    #[test]
    fn memory_and_file_give_each_figure_of_the_index() {
        let header = committed(3);
        let block = block(&header);
        let info = inspect_index(&block);
        assert_eq!(read(bytes_of(&block)), Some(info));
        assert_eq!(info.header, HeaderState::Valid(header));
        assert_eq!((info.max_frame(), info.backfilled()), (9, 4));
        assert_eq!((info.backfill_count, info.attempted), (4, 6));
        let marks = ReadSlot::ALL.map(|slot| info.mark(slot));
        assert_eq!(marks, [Some(4), Some(9), Some(7), None, Some(3)]);
        assert!(info.is_settled);
        let header = info.valid_header().unwrap();
        assert_eq!((header.change(), header.page_count()), (3, 5));
        assert_eq!(header.page_size(), Some(PageSize::MIN));
    }

    #[test]
    fn count_of_an_older_log_is_shown_but_does_not_count() {
        let header = committed(1).restarted(Salts([3; 8]));
        let info = inspect_index(&block(&header));
        assert_eq!((info.backfill_count, info.backfilled()), (4, 0));
    }

    #[test]
    fn each_kind_of_bad_header_is_told_apart() {
        let good = bytes_of(&block(&committed(1)));
        let state = |changes: &[(usize, u8)]| {
            let mut bytes = good.clone();
            for &(at, value) in changes {
                bytes[at] = value;
            }
            let info = read(bytes).unwrap();
            assert_eq!((info.max_frame(), info.backfilled()), (0, 0));
            (info.header, info.is_settled)
        };
        assert_eq!(state(&[(20, 77)]), (HeaderState::CopiesDiffer, false));
        assert_eq!(state(&[(68, 77)]), (HeaderState::CopiesDiffer, false));
        assert_eq!(state(&[(20, 77), (68, 77)]), (HeaderState::Damaged, true));
        let blank = read(vec![0; BLOCK_LEN]).unwrap();
        assert_eq!(blank.header, HeaderState::NeverWritten);
        let damaged = read(vec![0xff; BLOCK_LEN]).unwrap();
        assert_eq!(damaged.header, HeaderState::Damaged);
        assert_eq!(damaged.marks.map(|mark| mark == MARK_NOT_USED), [true; 5]);
    }

    #[test]
    fn file_shorter_than_a_header_has_no_index() {
        let whole = bytes_of(&block(&committed(1)));
        for len in [0, 3, 47, 48, 95, 135] {
            assert_eq!(read(whole[..len].to_vec()), None, "{len} bytes");
        }
        assert!(read(whole[..136].to_vec()).is_some());
    }

    /// A file whose header differs at each call, as beside a writer that never pauses.
    #[derive(Debug)]
    struct Restless([MemoryFile; 2], AtomicUsize);

    impl File for Restless {
        fn path(&self) -> &std::path::Path {
            self.0[0].path()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            let call = self.1.fetch_add(1, Ordering::Relaxed);
            self.0[call % 2].read_at(buffer, offset)
        }

        fn write_all_at(&self, _: &mut [std::io::IoSlice<'_>], _: u64) -> Result<()> {
            unreachable!("a look writes nothing")
        }

        fn sync(&self, _: crate::storage::FileSyncType) -> Result<()> {
            unreachable!("a look syncs nothing")
        }

        fn len(&self) -> Result<u64> {
            self.0[0].len()
        }

        fn set_len(&self, _: u64) -> Result<()> {
            unreachable!("a look cuts nothing")
        }
    }

    #[test]
    fn file_that_changes_at_each_call_ends_the_look_unsettled() {
        let states =
            [1, 2].map(|change| MemoryFile::new("db-shm", bytes_of(&block(&committed(change)))));
        let file = Restless(states, AtomicUsize::new(0));
        let info = read_index(&file).unwrap().unwrap();
        assert_eq!(
            (info.header, info.is_settled),
            (HeaderState::CopiesDiffer, false)
        );
        let calls = file.1.load(Ordering::Relaxed);
        assert_eq!(calls, 3 * ATTEMPTS as usize);
    }

    #[test]
    fn look_beside_a_writer_never_mixes_two_states() {
        let numbered = |header: IndexHeader, number| {
            header.committed(PageSize::MIN, number, number, Checksum::ZERO)
        };
        let block = block(&numbered(IndexHeader::empty(), 1));
        let done = AtomicBool::new(false);
        let is_published = |state: HeaderState| match state {
            HeaderState::Valid(header) => header.max_frame() == header.change(),
            state => state == HeaderState::CopiesDiffer,
        };
        let wrong = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut header = numbered(IndexHeader::empty(), 1);
                for number in 2.. {
                    header = numbered(header, number);
                    block.store_header(&header);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mut looks = (0..20_000).map(|_| inspect_index(&block).header);
            let wrong = looks.find(|&state| !is_published(state));
            done.store(true, Ordering::Relaxed);
            wrong
        });
        assert_eq!(wrong, None);
    }
}
