//! A private map of pages to frames, by which a look-up costs the same in a
//! log of any length, also for a page that is not in the log.
//!
//! # Protocol
//! A map is *fed* the frames of the log from the first on, at most a block of
//! the index at a time. It keeps the newest of them for each page, a [`Seal`]
//! for each whole block, and one for the last frame. Frames that it does not
//! have yet are looked for in the index.
//!
//! Whoever feeds, checks or asks a map has a snapshot, and holds a lock that
//! keeps the log from beginning anew. Such locks exclude a new generation
//! together, so all who use a map at one time see one log, of which the
//! snapshot of one may be longer than that of another. A frame is fed only if
//! it is within the snapshot of who feeds it: then its entry does not change any
//! more. A look-up goes by the map for the frames that are *covered*: all that
//! were fed, if its snapshot has them all; if not, the whole blocks that its
//! snapshot has. So if the map has a frame behind the covered ones, that was fed
//! by somebody with a newer snapshot, and an older frame is looked for in the
//! index, as without a map.
//!
//! Between two transactions the log may have begun anew, or have come back as
//! it was some time ago and gone on differently. The header of a frame holds
//! the salts and a checksum over everything before it, so who takes a map up
//! compares that of the last covered frame with the log ([`PageMap::is_of`]).
//! If it is the same, all frames up to there are, whatever the map has besides.
//! The snapshot of who feeds a map has all that was fed before. So it has compared
//! the last of these frames itself when it took the map up, or somebody who reads
//! the same log has fed them since.
//!
//! # Layout
//! The frames are in a [`PageTree`], which tells how much memory it takes; to
//! that come 32 bytes for each block.
//!
//! # Ordering
//! How much is fed is stored behind the entries and the seals (release; pairs
//! with the acquire load in [`PageMap::covered`]). An entry only grows, so one
//! that is covered is the newest of those, though somebody is feeding what comes
//! behind.
//!
//! # Crash
//! A map is gone with its process. Whatever can fail comes before the first
//! entry is stored, so nothing is left half fed.

use super::hash::{Blocks, find};
use super::page_tree::PageTree;
use crate::error::Result;
use crate::format::FRAME_HEADER_LEN;
use crate::index::block::{block_of_frame, frame_before_block, last_frame_of_block};
use crate::once_table::OnceTable;
use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering, Unpoison};
use crate::testing::rule;

/// The header of a frame, as it stands in the log.
pub(crate) type Seal = [u8; FRAME_HEADER_LEN];

/// How many frames a look-up may pass over in the index: as many as two blocks
/// have.
const LEFT_TO_INDEX: u32 = 8192;
/// How many frames are fed in the time that one look-up in the index takes.
const FED_FOR_A_LOOK: u32 = 16;

/// The newest frame of each page in the oldest part of the log.
#[derive(Default)]
pub(crate) struct PageMap {
    newest: PageTree,
    /// That of the last frame of each block that is fed as a whole.
    seals: OnceTable<Seal>,
    /// How many frames are fed. Whoever holds `feeding` stores it.
    fed: AtomicU32,
    /// Held for no longer than it takes to copy it.
    last: Mutex<LastFed>,
    feeding: Mutex<()>,
}

/// The last frame that was fed; 0 for none.
#[derive(Default)]
struct LastFed {
    frame: u32,
    seal: Seal,
}

impl PageMap {
    /// Up to which frame a snapshot up to `max_frame` goes by the map.
    fn covered(&self, max_frame: u32) -> u32 {
        // Acquire: pairs with the release of `feed`.
        match self.fed.load(Ordering::Acquire) {
            fed if fed <= max_frame => fed,
            _ => frame_before_block(whole_blocks(max_frame)),
        }
    }

    fn last(&self) -> MutexGuard<'_, LastFed> {
        self.last.lock().unpoison()
    }

    /// True if the log is the one that the map was fed from, as far as the
    /// map covers a snapshot up to `max_frame`. `seal_at` reads the log.
    pub(crate) fn is_of(&self, max_frame: u32, seal_at: impl FnOnce(u32) -> Result<Seal>) -> bool {
        let LastFed { frame, seal } = *self.last();
        let (frame, seal) = if frame <= max_frame {
            (frame, Some(seal))
        } else if let Some(block) = whole_blocks(frame.min(max_frame)).checked_sub(1) {
            (last_frame_of_block(block), self.seals.get(block).copied())
        } else {
            return true;
        };
        // If the log cannot be read, the index serves.
        frame == 0 || rule!(MapOfThisLog, seal_at(frame).ok() == seal)
    }

    /// True if the map is to be fed by a transaction with a snapshot up to
    /// `max_frame` that has looked for `looks` pages so far: if its look-ups would
    /// pass over too much that is not fed, or if they have passed over it for as
    /// long as feeding it takes.
    #[inline]
    pub(crate) fn is_hungry(&self, max_frame: u32, looks: u32) -> bool {
        let left = max_frame.saturating_sub(self.fed.load(Ordering::Relaxed));
        left > LEFT_TO_INDEX || left > 0 && left <= looks.saturating_mul(FED_FOR_A_LOOK)
    }

    /// Feeds what is left of a block, as far as it is within a snapshot up to
    /// `max_frame`, unless somebody else feeds the map.
    pub(crate) fn feed(
        &self,
        blocks: &impl Blocks,
        max_frame: u32,
        seal_at: impl FnOnce(u32) -> Result<Seal>,
    ) -> Result<()> {
        let Ok(_feeding) = self.feeding.try_lock() else {
            return Ok(());
        };
        let fed = self.fed.load(Ordering::Relaxed);
        if fed >= max_frame {
            return Ok(());
        }
        let (index, place) = block_of_frame(fed + 1);
        let end_of_block = last_frame_of_block(index);
        let end = end_of_block.min(max_frame);
        let block = blocks.existing(index)?;
        let seal = seal_at(end)?;
        // From here on nothing fails.
        if end == end_of_block {
            self.seals.get_or_make(index, || seal);
        }
        for (frame, page) in (fed + 1..=end).zip(&block.pages(index)[place..]) {
            self.newest.set(page.load(), frame);
        }
        *self.last() = LastFed { frame: end, seal };
        // Release: who sees the count sees the entries.
        self.fed.store(end, Ordering::Release);
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
        let covered = self.covered(max_frame);
        let behind = min_frame.max(covered.saturating_add(1));
        if let Some(found) = find(blocks, page, behind, max_frame)? {
            return Ok(Some(found));
        }
        let newest = self.newest.get(page);
        if rule!(MapWithinSnapshot, newest <= covered) {
            return Ok((newest >= min_frame.max(1)).then_some(newest));
        }
        // Behind the snapshot, or it would have been found above.
        find(blocks, page, min_frame, covered)
    }

    /// How many frames are fed.
    #[cfg(all(any(test, feature = "step-points"), not(loom)))]
    pub(crate) fn frames(&self) -> u32 {
        self.fed.load(Ordering::Acquire)
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
    whole
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::hash::{Heap, append, heap};
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
        assert!(map.frames() > 45_000 / 2, "{}", map.frames());
    }

    #[test]
    fn a_map_is_fed_a_block_at_a_time_up_to_the_end_of_the_snapshot() {
        let mut rng = fastrand::Rng::with_seed(2);
        let (mut log, map) = (Log::new(), PageMap::default());
        for page in 1..=4062 + 3 * 4096 {
            log.append(page, &mut rng);
        }
        for fed in [4000, 4000, 4062, 4062 + 4095] {
            log.feed(&map, fed);
            assert_eq!(map.frames(), fed);
        }
        log.feed(&map, 4062);
        assert_eq!(map.frames(), 4062 + 4095);
        for fed in [4062 + 4096, 4062 + 2 * 4096, log.end(), log.end()] {
            log.feed(&map, log.end());
            assert_eq!(map.frames(), fed);
        }
    }

    #[test]
    fn a_map_is_hungry_for_much_and_for_what_many_look_for() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut log, map) = (Log::new(), PageMap::default());
        for page in 1..=4000 {
            log.append(page, &mut rng);
        }
        log.feed(&map, 4000);
        assert!(!map.is_hungry(4000, u32::MAX) && !map.is_hungry(3999, u32::MAX));
        assert!(map.is_hungry(4000 + 8193, 0) && !map.is_hungry(4000 + 8192, 0));
        assert!(map.is_hungry(4160, 10) && !map.is_hungry(4161, 10));
    }

    #[test]
    fn a_log_that_differs_in_what_is_covered_is_another_one() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut log, map) = (Log::new(), PageMap::default());
        for page in 1..=4062 + 2 * 4096 {
            log.append(page, &mut rng);
        }
        let fed = 4062 + 4096 + 100;
        for _ in 0..3 {
            log.feed(&map, fed);
        }
        assert_eq!(map.frames(), fed);
        // From here on the log went on differently.
        let same = log.seals.clone();
        for from in [4062 + 4096, 4062] {
            log.seals[from..].reverse();
            let whole_blocks = u32::try_from(from).unwrap_or(0);
            assert!(!log.is_of(&map, fed) && !log.is_of(&map, log.end()));
            assert!(log.is_of(&map, whole_blocks), "they are the same");
            assert_eq!(log.is_of(&map, fed - 1), whole_blocks > 4062);
            log.seals.clone_from(&same);
        }
        assert!(log.is_of(&map, fed) && log.is_of(&map, log.end()));
        assert!(!map.is_of(log.end(), |_| Err(log.blocks.corrupt("unreadable"))));
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
    use super::super::hash::{Heap, append, heap};
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
            shared.feed(24);
            Arc::new(shared)
        }

        fn feed(&self, max_frame: u32) {
            let seal = |frame| Ok([u8::try_from(frame).unwrap(); FRAME_HEADER_LEN]);
            self.map.feed(&self.blocks, max_frame, seal).unwrap();
        }

        fn assert_found(&self, page: u32, max_frame: u32) {
            let holds = |&frame: &u32| PAGES[frame as usize - 1] == page;
            let expected = (1..=max_frame).rev().find(holds);
            let found = self.map.find(&self.blocks, page, 1, max_frame).unwrap();
            assert_eq!(found, expected, "page {page} up to {max_frame}");
        }
    }

    /// A reader whose snapshot ends at `max_frame` beside one that feeds up to
    /// the ends of its own.
    fn beside_a_feeder(max_frame: u32, pages: [u32; 2], feeder: [u32; 2]) {
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
            feeder.map(|end| shared.feed(end));
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_reader_finds_what_the_newest_frames_hold_while_a_map_is_fed() {
        beside_a_feeder(24, [1, 7], [24, 24]);
    }

    #[test]
    fn a_reader_of_an_older_snapshot_finds_it_while_a_map_is_fed() {
        beside_a_feeder(14, [1, 7], [24, 24]);
    }

    #[test]
    fn a_reader_finds_it_while_a_part_of_a_block_is_fed_and_then_the_rest() {
        beside_a_feeder(24, [1, 7], [9, 24]);
        beside_a_feeder(10, [1, 7], [9, 24]);
    }

    #[test]
    fn what_is_seen_to_be_fed_has_its_seal() {
        for (max_frame, feeder) in [(24, 24), (14, 24), (24, 9)] {
            loom::model(move || {
                let shared = Shared::new();
                let reader = {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        let seal = |frame| Ok([u8::try_from(frame).unwrap(); FRAME_HEADER_LEN]);
                        assert!(shared.map.is_of(max_frame, seal));
                    })
                };
                shared.feed(feeder);
                reader.join().unwrap();
            });
        }
    }
}
