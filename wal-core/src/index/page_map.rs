//! A private map of pages to frames, by which a look-up costs the same in a
//! log of any length, also for a page that is not in the log.
//!
//! # Protocol
//! A map covers the oldest blocks of the index, and whole ones only; it is
//! *fed* one block after the other. It keeps the newest of their frames for
//! each page, and a [`Seal`] for each block. The frames behind the last block
//! that it covers are looked for in the index.
//!
//! Whoever feeds, checks or asks a map has a snapshot, and holds a lock that
//! keeps the log from beginning anew. Such locks exclude a new generation
//! together, so all who use a map at one time see one log, of which the
//! snapshot of one may be longer than that of another. A block is fed only if
//! all of it is within the snapshot of who feeds it: then nobody stores to it
//! any more. A look-up counts a block as covered only if all of it is within
//! *its* snapshot. So if the map has a frame behind the covered ones, that was
//! fed by somebody with a newer snapshot, and an older frame is looked for in
//! the index, as without a map.
//!
//! Between two transactions the log may have begun anew, or have come back as
//! it was some time ago and gone on differently. The header of a frame holds
//! the salts and a checksum over everything before it, so who takes a map up
//! compares that of the last covered block with the log ([`PageMap::is_of`]).
//! If it is the same, all frames up to there are, whatever the map has besides.
//!
//! # Layout
//! The frames are in a [`PageTree`], which tells how much memory it takes; to
//! that come 32 bytes for each block.
//!
//! # Ordering
//! How much is fed is stored behind the entries and the seal (release; pairs
//! with the acquire load in [`PageMap::covered`]). An entry only grows, so one
//! that lies in a covered block is the newest there, though somebody is
//! feeding the next block.
//!
//! # Crash
//! A map is gone with its process. Whatever can fail comes before the first
//! entry of a block is stored, so no block is left half fed.

use std::sync::Mutex;

use super::block::{block_of_frame, frame_before_block, last_frame_of_block};
use super::map::{Blocks, find};
use super::page_tree::PageTree;
use crate::error::Result;
use crate::format::FRAME_HEADER_LEN;
use crate::once_table::OnceTable;
use crate::sync::{AtomicU32, Ordering};
use crate::testing::{Mutation, mutated};

/// The header of a block's last frame, as it stands in the log.
pub(crate) type Seal = [u8; FRAME_HEADER_LEN];

/// The newest frame of each page in the oldest blocks of the index.
#[derive(Default)]
pub(crate) struct PageMap {
    newest: PageTree,
    /// One for each block that is fed.
    seals: OnceTable<Seal>,
    /// How many blocks are fed. Whoever holds `feeding` stores it.
    fed: AtomicU32,
    feeding: Mutex<()>,
}

impl PageMap {
    /// How many blocks the map covers for a snapshot up to `max_frame`.
    fn covered(&self, max_frame: u32) -> u32 {
        // Acquire: pairs with the release of `feed`.
        let fed = self.fed.load(Ordering::Acquire);
        fed.min(whole_blocks(max_frame))
    }

    /// True if the log is the one that the map was fed from, as far as the
    /// map covers a snapshot up to `max_frame`. `seal_at` reads the log.
    pub(crate) fn is_of(&self, max_frame: u32, seal_at: impl FnOnce(u32) -> Result<Seal>) -> bool {
        let covered = self.covered(max_frame);
        let Some(last) = covered.checked_sub(1) else {
            return true;
        };
        // If the log cannot be read, the index serves.
        let there = seal_at(last_frame_of_block(last)).ok();
        there.as_ref() == self.seals.get(last) || mutated(Mutation::KeepMapOfOldGeneration)
    }

    /// True if a look-up for a snapshot up to `max_frame` would pass over two
    /// whole blocks that are not fed.
    pub(crate) fn is_hungry(&self, max_frame: u32) -> bool {
        whole_blocks(max_frame) >= self.fed.load(Ordering::Relaxed).saturating_add(2)
    }

    /// Feeds the next block, if the map wants it and nobody else feeds it.
    pub(crate) fn feed(
        &self,
        blocks: &impl Blocks,
        max_frame: u32,
        seal_at: impl FnOnce(u32) -> Result<Seal>,
    ) -> Result<()> {
        let Ok(_feeding) = self.feeding.try_lock() else {
            return Ok(());
        };
        if !self.is_hungry(max_frame) {
            return Ok(());
        }
        let index = self.fed.load(Ordering::Relaxed);
        let block = blocks.existing(index)?;
        let seal = seal_at(last_frame_of_block(index))?;
        // From here on nothing fails.
        self.seals.get_or_make(index, || seal);
        let first = frame_before_block(index).saturating_add(1);
        for (frame, page) in (first..).zip(block.pages(index)) {
            self.newest.set(page.load(Ordering::Relaxed), frame);
        }
        // Release: who sees the count sees the entries.
        self.fed.store(index + 1, Ordering::Release);
        Ok(())
    }

    /// The newest frame in `min_frame..=max_frame` that holds `page`.
    pub(crate) fn find(
        &self,
        blocks: &impl Blocks,
        page: u32,
        min_frame: u32,
        max_frame: u32,
    ) -> Result<Option<u32>> {
        let covered = frame_before_block(self.covered(max_frame));
        let behind = min_frame.max(covered.saturating_add(1));
        if let Some(found) = find(blocks, page, behind, max_frame)? {
            return Ok(Some(found));
        }
        let newest = self.newest.get(page);
        if newest > covered && !mutated(Mutation::MapIgnoresSnapshot) {
            // Behind the snapshot, or it would have been found above.
            return find(blocks, page, min_frame, covered);
        }
        Ok((newest >= min_frame.max(1)).then_some(newest))
    }

    /// How many frames are fed.
    #[cfg(all(any(test, feature = "conformance"), not(loom)))]
    pub(crate) fn frames(&self) -> u32 {
        frame_before_block(self.fed.load(Ordering::Acquire))
    }
}

impl std::fmt::Debug for PageMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageMap")
    }
}

/// How many blocks lie in `1..=max_frame` as a whole.
fn whole_blocks(max_frame: u32) -> u32 {
    let (whole, _) = block_of_frame(max_frame.saturating_add(1));
    match mutated(Mutation::FeedBeyondSnapshot) {
        true => whole + 2,
        false => whole,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::map::{Heap, append, heap};
    use super::*;

    /// A log, with something else in each frame that a seal can tell apart.
    struct Log {
        blocks: Heap,
        pages: Vec<u32>,
        seals: Vec<Seal>,
    }

    impl Log {
        fn new() -> Self {
            Log {
                blocks: heap(12),
                pages: Vec::new(),
                seals: Vec::new(),
            }
        }

        fn append(&mut self, page: u32, rng: &mut fastrand::Rng) {
            self.pages.push(page);
            self.seals.push(std::array::from_fn(|_| rng.u8(..)));
            assert!(append(&self.blocks, self.end(), page).is_ok());
        }

        fn end(&self) -> u32 {
            u32::try_from(self.pages.len()).unwrap_or(u32::MAX)
        }

        fn seal(&self, frame: u32) -> Result<Seal> {
            Ok(self.seals[frame as usize - 1])
        }

        fn feed(&self, map: &PageMap, max_frame: u32) {
            let fed = map.feed(&self.blocks, max_frame, |frame| self.seal(frame));
            assert!(fed.is_ok());
        }

        fn is_of(&self, map: &PageMap, max_frame: u32) -> bool {
            map.is_of(max_frame, |frame| self.seal(frame))
        }

        fn assert_found(&self, map: &PageMap, page: u32, min: u32, max: u32) {
            let holds = |&frame: &u32| self.pages[frame as usize - 1] == page;
            let expected = (min.max(1)..=max).rev().find(holds);
            let found = map.find(&self.blocks, page, min, max);
            assert_eq!(found.ok(), Some(expected), "page {page} in {min}..={max}");
        }
    }

    #[test]
    fn a_growing_log_is_the_same_with_and_without_a_map() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut log, map) = (Log::new(), PageMap::default());
        // Neighbours, and pages that lie far apart.
        let spread = [1, 61, 4099, 1_000_003];
        while log.end() < 45_000 {
            for _ in 0..rng.u32(1..3000) {
                log.append(rng.u32(1..3000) * spread[rng.usize(..4)], &mut rng);
            }
            for _ in 0..200 {
                let (page, max) = (rng.u32(1..3100), rng.u32(0..=log.end()));
                let page = page * spread[rng.usize(..4)];
                assert!(log.is_of(&map, max));
                log.feed(&map, max);
                log.assert_found(&map, page, rng.u32(0..=max + 1), max);
                log.assert_found(&map, page, 1, log.end());
            }
        }
        assert!(map.frames() >= 45_000 - 3 * 4096);
    }

    #[test]
    fn a_map_is_fed_with_whole_blocks_of_the_snapshot_and_leaves_the_last() {
        let mut rng = fastrand::Rng::with_seed(2);
        let (mut log, map) = (Log::new(), PageMap::default());
        for page in 1..=4062 + 3 * 4096 {
            log.append(page, &mut rng);
        }
        log.feed(&map, 4062 + 4095);
        assert_eq!(map.frames(), 0);
        log.feed(&map, 4062 + 4096);
        assert_eq!(map.frames(), 4062);
        log.feed(&map, 4062 + 2 * 4096 - 1);
        assert_eq!(map.frames(), 4062);
        for _ in 0..9 {
            log.feed(&map, log.end());
        }
        assert_eq!(map.frames(), 4062 + 2 * 4096);
        assert!(!map.is_hungry(log.end()) && map.is_hungry(log.end() + 4096));
    }

    #[test]
    fn a_log_that_differs_in_what_is_covered_is_another_one() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut log, map) = (Log::new(), PageMap::default());
        for page in 1..=4062 + 2 * 4096 {
            log.append(page, &mut rng);
        }
        log.feed(&map, log.end());
        log.feed(&map, log.end());
        // From here on the log went on differently.
        log.seals[4062..].reverse();
        assert!(!log.is_of(&map, log.end()));
        assert!(!map.is_of(log.end(), |_| Err(log.blocks.corrupt("unreadable"))));
        assert!(log.is_of(&map, 4062 + 4095), "the first block is the same");
        log.assert_found(&map, 4063, 1, 4062);
        log.assert_found(&map, 4062, 1, 4062 + 4095);
    }

    #[test]
    fn what_cannot_be_read_is_not_fed() {
        let mut rng = fastrand::Rng::with_seed(4);
        let (mut log, map) = (Log::new(), PageMap::default());
        for page in 1..=4062 + 4096 {
            log.append(page, &mut rng);
        }
        let unreadable = |_| Err(log.blocks.corrupt("unreadable"));
        assert!(map.feed(&log.blocks, log.end(), unreadable).is_err());
        assert_eq!((map.frames(), map.newest.get(1)), (0, 0));
        log.feed(&map, log.end());
        assert_eq!((map.frames(), map.newest.get(1)), (4062, 1));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::map::{Heap, append, heap};
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Four whole blocks of six frames.
    const PAGES: [u32; 24] = [
        1, 2, 3, 4, 5, 6, //
        1, 2, 7, 8, 9, 7, //
        1, 8, 7, 1, 9, 8, //
        5, 5, 5, 5, 5, 5,
    ];

    struct Shared {
        blocks: Heap,
        map: PageMap,
    }

    impl Shared {
        /// A map that is fed with the first block. All pages are in one leaf,
        /// which is there from then on: how it came to be is not loom's to see.
        fn new() -> Arc<Self> {
            let shared = Shared {
                blocks: heap(4),
                map: PageMap::default(),
            };
            for (frame, page) in (1..).zip(PAGES) {
                append(&shared.blocks, frame, page).unwrap();
            }
            shared.feed();
            Arc::new(shared)
        }

        fn feed(&self) {
            let seal = |frame| Ok([u8::try_from(frame).unwrap(); FRAME_HEADER_LEN]);
            self.map.feed(&self.blocks, 24, seal).unwrap();
        }

        fn assert_found(&self, page: u32, max_frame: u32) {
            let holds = |&frame: &u32| PAGES[frame as usize - 1] == page;
            let expected = (1..=max_frame).rev().find(holds);
            let found = self.map.find(&self.blocks, page, 1, max_frame).unwrap();
            assert_eq!(found, expected, "page {page} up to {max_frame}");
        }
    }

    /// A reader whose snapshot ends at `max_frame` beside one that feeds.
    fn beside_a_feeder(max_frame: u32, pages: [u32; 2]) {
        loom::model(move || {
            let shared = Shared::new();
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || {
                    for page in pages {
                        shared.assert_found(page, max_frame);
                    }
                })
            };
            shared.feed();
            shared.feed();
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_reader_finds_what_the_newest_frames_hold_while_a_map_is_fed() {
        beside_a_feeder(24, [1, 7]);
    }

    #[test]
    fn a_reader_of_an_older_snapshot_finds_it_while_a_map_is_fed() {
        beside_a_feeder(14, [1, 7]);
    }

    #[test]
    fn a_block_that_is_seen_to_be_fed_has_its_seal() {
        loom::model(|| {
            let shared = Shared::new();
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let seal = |frame| Ok([u8::try_from(frame).unwrap(); FRAME_HEADER_LEN]);
                    assert!(shared.map.is_of(24, seal));
                })
            };
            shared.feed();
            reader.join().unwrap();
        });
    }
}
