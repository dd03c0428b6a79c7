//! All blocks of the wal-index, compared with the log.
//!
//! # Protocol
//! The header is loaded before the blocks. The entries of the frames that it publishes do not
//! change while the generation lasts, so a copy of them is whole if the header has the same
//! salts afterwards ([`super::Watch`]).

use std::collections::HashSet;
use std::fmt;

use super::{IndexInfo, LogCheck, read_index};
use crate::error::{Error, Result};
use crate::format::ByteOrder;
use crate::index::{
    BLOCK_LEN, Blocks, ChainEnds, IndexBlock, IndexHeader, WritableBlock, block_of_frame, chain,
    find, last_frame_of_block,
};
use crate::shared_memory::copy_of;
use crate::storage::File;
use crate::types::{FrameNo, PageNo, PageSize, Salts};

/// How many faults are returned; the others are counted.
const MAX_FAULTS: usize = 8;

/// A copy of the wal-index.
pub struct IndexCopy {
    info: IndexInfo,
    blocks: Vec<Box<IndexBlock>>,
    ends: ChainEnds,
    path: std::path::PathBuf,
}

impl fmt::Debug for IndexCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexCopy")
            .field("info", &self.info)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

impl IndexCopy {
    /// Copies the index in the file `shm` by calls that read it: its header, and the blocks of
    /// the frames up to `frames`. `None` if the file is shorter than a header.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// ```
    /// use wal_core::inspect::IndexCopy;
    /// use wal_core::storage::MemoryFile;
    ///
    /// let shm = MemoryFile::new("app.db-shm", Vec::new());
    /// assert!(IndexCopy::read(&shm, 0)?.is_none());
    /// # Ok::<(), wal_core::Error>(())
    /// ```
    pub fn read(shm: &dyn File, frames: u32) -> Result<Option<Self>> {
        let Some(info) = read_index(shm)? else {
            return Ok(None);
        };
        let mut blocks = Vec::new();
        let count = FrameNo::new(frames).map_or(0, |last| block_of_frame(last.get()).0 + 1);
        let mut bytes = vec![0; BLOCK_LEN];
        for number in 0..u64::from(count) {
            if shm.read_at(&mut bytes, number * BLOCK_LEN as u64)? < BLOCK_LEN {
                break;
            }
            blocks.extend(copy_of::<IndexBlock>(&bytes));
        }
        Ok(Some(IndexCopy {
            info,
            blocks,
            ends: ChainEnds::default(),
            path: shm.path().to_owned(),
        }))
    }

    /// Its header, counts and marks.
    pub fn info(&self) -> &IndexInfo {
        &self.info
    }

    /// The page of `frame`; `None` if its block was not copied. The frame may be above the last
    /// committed one.
    pub fn page_of(&self, frame: FrameNo) -> Option<u32> {
        let (block, place) = block_of_frame(frame.get());
        let entries = self.blocks.get(block as usize)?.pages(block);
        Some(entries.get(place)?.load())
    }

    /// The newest frame up to `max_frame` that holds `page`, as a reader finds it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a block is missing or its hash slots are all in use.
    pub fn find(&self, page: PageNo, max_frame: u32) -> Result<Option<FrameNo>> {
        Ok(find(self, page.get(), 1, max_frame)?.and_then(FrameNo::new))
    }

    /// Compares what `header` publishes with what a check of the log has found. The header was
    /// loaded before the log was read: one that is newer publishes frames that the check has
    /// not seen.
    ///
    /// A reader finds the newest frame of each page if each entry is that of the log, and the
    /// hash chain of its page leads to it. Both are compared for each frame that the header
    /// publishes and the log has.
    pub fn compare(&self, header: &IndexHeader, log: &LogCheck) -> IndexFaults {
        let mut found = IndexFaults::default();
        compare_header(header, log, &mut found);
        if found
            .first
            .iter()
            .any(|fault| matches!(fault, IndexFault::Generation { .. }))
        {
            // Of another log.
            return found;
        }
        let frames = header.max_frame().min(log.scan.max_frame());
        let mut first = 1;
        for index in 0.. {
            if first > frames {
                break;
            }
            let last = frames.min(last_frame_of_block(index));
            let pages = &log.scan.pages[first as usize - 1..last as usize];
            self.compare_block(index, first, pages, &mut found);
            first = last + 1;
        }
        found
    }

    /// Compares block `index` with the `pages` of the log from frame `first` on.
    fn compare_block(&self, index: u32, first: u32, pages: &[u32], found: &mut IndexFaults) {
        let Some(block) = self.blocks.get(index as usize) else {
            found.add(IndexFault::NoBlock { block: index });
            return;
        };
        for ((frame, &in_log), entry) in (first..).zip(pages).zip(block.pages(index)) {
            let in_index = entry.load();
            if in_index != in_log {
                found.add(IndexFault::Page {
                    frame,
                    in_index,
                    in_log,
                });
            }
        }
        let distinct: HashSet<u32> = pages.iter().copied().collect();
        let mut reached = HashSet::new();
        for &page in &distinct {
            match chain(block, index, page) {
                Some(frames) => reached.extend(frames),
                None => {
                    found.add(IndexFault::NoFreeSlot { block: index });
                    return;
                }
            }
        }
        for (frame, &page) in (first..).zip(pages) {
            if !reached.contains(&frame) {
                found.add(IndexFault::NotFound { frame, page });
            }
        }
    }
}

impl Blocks for IndexCopy {
    fn existing(&self, index: u32) -> Result<&IndexBlock> {
        let block = self.blocks.get(index as usize);
        block
            .map(|block| &**block)
            .ok_or_else(|| self.corrupt("a wal-index block is missing"))
    }

    fn writable(&self, _index: u32) -> Result<&WritableBlock> {
        Err(Error::ReadOnly {
            path: self.path.clone(),
        })
    }

    fn chain_ends(&self) -> &ChainEnds {
        &self.ends
    }

    fn corrupt(&self, reason: &str) -> Error {
        Error::corrupt(&self.path, reason)
    }
}

/// How an index differs from its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IndexFault {
    /// It is of another generation of the log. The next user that finds no other user rebuilds
    /// it.
    Generation {
        /// The generation of the index.
        index: Salts,
        /// The generation of the log.
        log: Salts,
    },
    /// It publishes frames that the log does not have: a commit is lost.
    CommitLost {
        /// The last frame that it publishes.
        index: u32,
        /// The last committed frame of the log.
        log: u32,
    },
    /// The last frame that it publishes ends no transaction, or another one.
    OtherCommit {
        /// The frame.
        frame: u32,
    },
    /// It has another page size.
    PageSize {
        /// The page size in the index, if that is one.
        index: Option<PageSize>,
        /// The page size of the log.
        log: PageSize,
    },
    /// It says that the checksums of the log are of another byte order.
    ByteOrder {
        /// The byte order of the log.
        log: ByteOrder,
    },
    /// It has another size of the database.
    PageCount {
        /// The pages by the index.
        index: u32,
        /// The pages by the commit in the log.
        log: u32,
    },
    /// It has no block for frames that it publishes.
    NoBlock {
        /// The number of the block.
        block: u32,
    },
    /// A frame has another page in the log.
    Page {
        /// The frame.
        frame: u32,
        /// The page by the index.
        in_index: u32,
        /// The page in the log.
        in_log: u32,
    },
    /// The hash chain of its page does not lead to a frame: a reader does not find it.
    NotFound {
        /// The frame.
        frame: u32,
        /// Its page.
        page: u32,
    },
    /// All hash slots of a block are in use.
    NoFreeSlot {
        /// The number of the block.
        block: u32,
    },
}

impl fmt::Display for IndexFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IndexFault::Generation { index, log } => {
                write!(f, "it is of generation {index:?}, the log of {log:?}")
            }
            IndexFault::CommitLost { index, log } => {
                write!(
                    f,
                    "it publishes {index} frames, and the log has {log}: a commit is lost"
                )
            }
            IndexFault::OtherCommit { frame } => {
                write!(f, "the commit in frame {frame} is not the one in the log")
            }
            IndexFault::PageSize { index, log } => {
                let index = index.map_or("none".to_owned(), |size| size.to_string());
                write!(f, "its page size is {index}, that of the log {log}")
            }
            IndexFault::ByteOrder { log } => {
                write!(
                    f,
                    "it denies that the checksums of the log are {log:?}-endian"
                )
            }
            IndexFault::PageCount { index, log } => {
                write!(f, "it counts {index} pages, the commit in the log {log}")
            }
            IndexFault::NoBlock { block } => write!(f, "its block {block} is missing"),
            IndexFault::Page {
                frame,
                in_index,
                in_log,
            } => write!(
                f,
                "frame {frame} has page {in_log}, and page {in_index} by the index"
            ),
            IndexFault::NotFound { frame, page } => {
                write!(f, "a reader of page {page} does not find frame {frame}")
            }
            IndexFault::NoFreeSlot { block } => {
                write!(f, "the hash slots of block {block} are all in use")
            }
        }
    }
}

/// The faults of an index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct IndexFaults {
    /// The first ones.
    pub first: Vec<IndexFault>,
    /// How many there are.
    pub count: u64,
}

impl IndexFaults {
    fn add(&mut self, fault: IndexFault) {
        self.count += 1;
        if self.first.len() < MAX_FAULTS {
            self.first.push(fault);
        }
    }
}

fn compare_header(header: &IndexHeader, log: &LogCheck, found: &mut IndexFaults) {
    let scan = &log.scan;
    if header.max_frame() == 0 {
        // A restart publishes new salts before the log gets its new header.
        return;
    }
    if header.salts() != scan.header.salts {
        return found.add(IndexFault::Generation {
            index: header.salts(),
            log: scan.header.salts,
        });
    }
    if header.page_size() != Some(scan.header.page_size) {
        found.add(IndexFault::PageSize {
            index: header.page_size(),
            log: scan.header.page_size,
        });
    }
    if header.byte_order() != scan.header.byte_order {
        found.add(IndexFault::ByteOrder {
            log: scan.header.byte_order,
        });
    }
    if header.max_frame() > scan.max_frame() {
        return found.add(IndexFault::CommitLost {
            index: header.max_frame(),
            log: scan.max_frame(),
        });
    }
    match log.commit_at(header.max_frame()) {
        Some(commit) if commit.checksum == header.frame_checksum() => {
            if commit.page_count != header.page_count() {
                found.add(IndexFault::PageCount {
                    index: header.page_count(),
                    log: commit.page_count,
                });
            }
        }
        _ => found.add(IndexFault::OtherCommit {
            frame: header.max_frame(),
        }),
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspect::check_log;
    use crate::inspect::sample_log::{SampleLog, shm_of};
    use crate::storage::MemoryFile;
    use proptest::prelude::*;

    fn check(log: &SampleLog) -> LogCheck {
        let file = MemoryFile::new("db-wal", log.bytes());
        check_log(&file, |_, _| ()).unwrap().unwrap()
    }

    fn faults(index: &IndexCopy, log: &LogCheck) -> IndexFaults {
        index.compare(index.info().valid_header().unwrap(), log)
    }

    fn copy(shm: &[u8], frames: u32) -> IndexCopy {
        let file = MemoryFile::new("db-shm", shm.to_vec());
        IndexCopy::read(&file, frames).unwrap().unwrap()
    }

    /// 2 blocks: the second one has 38 frames.
    fn long() -> (LogCheck, Vec<u8>) {
        let mut log = SampleLog::new(1);
        for commit in 0..410 {
            let pages: Vec<u32> = (1..=10).map(|page| page * (commit % 7 + 1)).collect();
            log = log.commit_of(&pages, 90);
        }
        let check = check(&log);
        let shm = shm_of(&check.scan);
        (check, shm)
    }

    #[test]
    fn index_of_the_log_has_no_fault_and_finds_the_newest_frame() {
        let (check, shm) = long();
        let index = copy(&shm, check.scan.max_frame());
        assert_eq!(faults(&index, &check), IndexFaults::default());
        for max in [1, 9, 4062, 4063, 4100] {
            for page in 1..=80 {
                let newest = check.scan.pages[..max].iter().rposition(|&of| of == page);
                let found = index.find(PageNo::new(page).unwrap(), u32::try_from(max).unwrap());
                let found = found.unwrap().map(|frame| frame.get() as usize - 1);
                assert_eq!(found, newest, "page {page} up to {max}");
            }
        }
        let last = FrameNo::new(4100).unwrap();
        assert_eq!(index.page_of(last), check.scan.pages.last().copied());
    }

    #[test]
    fn damage_of_each_kind_is_named() {
        let (check, shm) = long();
        let damaged = |at: usize, bytes: &[u8]| {
            let mut shm = shm.clone();
            shm[at..at + bytes.len()].copy_from_slice(bytes);
            let found = faults(&copy(&shm, 4100), &check);
            assert_eq!(found.count > 8, found.first.len() == 8, "{found:?}");
            found.first
        };
        let in_log = check.scan.pages[4069];
        // Frame 4070 is the eighth of block 1.
        let found = damaged(BLOCK_LEN + 4 * 7, &77_u32.to_ne_bytes());
        assert!(
            found.contains(&IndexFault::Page {
                frame: 4070,
                in_index: 77,
                in_log
            }),
            "{found:?}"
        );
        assert!(
            found.contains(&IndexFault::NotFound {
                frame: 4070,
                page: in_log
            }),
            "{found:?}"
        );
        let found = damaged(BLOCK_LEN + 16384, &[0; 16384]);
        assert!(
            matches!(found[0], IndexFault::NotFound { frame: 4063, .. }),
            "{found:?}"
        );
        let full = vec![1; 16384];
        assert_eq!(
            damaged(BLOCK_LEN + 16384, &full),
            [IndexFault::NoFreeSlot { block: 1 }]
        );
        let short = faults(&copy(&shm[..BLOCK_LEN], 4100), &check);
        assert_eq!(short.first, [IndexFault::NoBlock { block: 1 }]);
    }

    #[test]
    fn index_that_publishes_more_than_the_log_has_loses_a_commit() {
        let log = SampleLog::new(1).commit(&[1, 2]).commit(&[3]);
        let whole = check(&log);
        let shm = shm_of(&whole.scan);
        let compare = |log: &SampleLog| faults(&copy(&shm, 3), &check(log)).first;
        assert_eq!(compare(&log), []);
        assert_eq!(
            compare(&log.clone().commit(&[4])),
            [],
            "a commit that is not published yet"
        );
        let cut = SampleLog::new(1).commit(&[1, 2]);
        assert_eq!(compare(&cut), [IndexFault::CommitLost { index: 3, log: 2 }]);
        let other = SampleLog::new(1).commit(&[1, 2]).commit(&[4]);
        assert!(compare(&other).contains(&IndexFault::OtherCommit { frame: 3 }));
        let size = SampleLog::new(1).commit(&[1, 2]).commit_of(&[3], 8);
        assert!(compare(&size).contains(&IndexFault::OtherCommit { frame: 3 }));
        let older = SampleLog::new(2).commit(&[1, 2]).commit(&[3]);
        assert!(matches!(
            compare(&older)[..],
            [IndexFault::Generation { .. }]
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_bytes_are_compared_without_a_panic(
            changes in proptest::collection::vec((136..65536_usize, any::<u8>()), 0..600),
            garbage: bool,
            page in 1..100_u32,
            max: u32,
        ) {
            let log = check(&SampleLog::new(1).commit(&[1, 2]).commit(&[3]));
            let mut shm = shm_of(&log.scan);
            shm.resize(65536, 0);
            if garbage {
                let mut rng = fastrand::Rng::with_seed(u64::from(max));
                shm[136..].fill_with(|| rng.u8(..));
            }
            for (at, byte) in changes {
                shm[at] = byte;
            }
            let index = copy(&shm, u32::MAX);
            let _ = faults(&index, &log);
            let _ = index.find(PageNo::new(page).unwrap(), max);
        }
    }
}
