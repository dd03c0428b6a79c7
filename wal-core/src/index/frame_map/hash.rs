//! The page→frame entries of the wal-index.
//!
//! # Protocol
//! Only the holder of Write stores entries, always above the published
//! `max_frame`; readers look only at or below their snapshot's. What lies
//! above may be the garbage of a writer that died, and is trimmed by the next
//! one before it adds its own.
//!
//! # Ordering
//! The page number is stored before the hash slot that leads to it
//! (release; pairs with the fence behind the load of the slot in [`find`]), and both
//! before the header that makes the frame visible (the fence of
//! [`crate::index::HeaderCell`]).
//!
//! # Crash
//! Entries without a header that covers them are never read.

use super::chain_ends::{ChainEnds, FAR, Further, VERY_FAR};
use crate::error::Result;
use crate::index::block::{
    IndexBlock, SLOTS, Word, WritableBlock, block_of_frame, frame_before_block, hash,
};
use crate::sync::{Ordering, fence};
use crate::testing::{Point, rule, step};

/// How the blocks of the index are reached.
pub(crate) trait Blocks {
    /// Block `index`, which must be there.
    fn existing(&self, index: u32) -> Result<&IndexBlock>;
    /// The same, to be stored to.
    fn writable(&self, index: u32) -> Result<&WritableBlock>;
    /// Where chains were walked to.
    fn chain_ends(&self) -> &ChainEnds;
    /// The error for contents that no writer leaves.
    fn corrupt(&self, reason: &str) -> crate::Error;
}

/// Adds the entry that frame `frame` holds `page`.
pub(crate) fn append(blocks: &impl Blocks, frame: u32, page: u32) -> Result<()> {
    let (index, place) = block_of_frame(frame);
    let block = blocks.writable(index)?;
    if place == 0 {
        step(Point::IndexClear);
        clear_from(block, index, 0);
    }
    step(Point::IndexPageStore);
    block.store_page(index, place, page, Ordering::Relaxed);
    let value = slot_value(place);
    let entries = (block.slots(), block.pages(index));
    let mut at = hash(page);
    // A block of n entries has at most n full slots; more means a foreign hand.
    for walked in 0..=place {
        if block.slots()[at].load() == 0 {
            step(Point::IndexHashStore);
            // Release: pairs with the fence of `find_in_block`, so the page number
            // is there when the slot is.
            block.store_slot(at, value, Ordering::Release);
            if walked >= FAR {
                blocks.chain_ends().remember(page, at);
            }
            return Ok(());
        }
        if walked == FAR
            && let Some(further) = Further::than(at, page, entries, blocks.chain_ends())
        {
            at = further.slot;
        }
        at = (at + 1) & (SLOTS - 1);
    }
    Err(blocks.corrupt("the hash chain of a wal-index block is longer than its entries"))
}

/// The newest frame in `min_frame..=max_frame` that holds `page`
/// (`walFindFrame`).
pub(crate) fn find(
    blocks: &impl Blocks,
    page: u32,
    min_frame: u32,
    max_frame: u32,
) -> Result<Option<u32>> {
    if max_frame == 0 || max_frame < min_frame {
        return Ok(None);
    }
    let (last, _) = block_of_frame(max_frame);
    let (first, _) = block_of_frame(min_frame.max(1));
    for index in (first..=last).rev() {
        let block = blocks.existing(index)?;
        let found = find_in_block(
            block,
            index,
            page,
            (min_frame, max_frame),
            blocks.chain_ends(),
        )
        .ok_or_else(|| blocks.corrupt("a wal-index block has no empty hash slot"))?;
        if found != 0 {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The frame, 0 if there is none, or `None` if the chain never ends.
fn find_in_block(
    block: &IndexBlock,
    index: u32,
    page: u32,
    (min, max): (u32, u32),
    ends: &ChainEnds,
) -> Option<u32> {
    let (before, pages) = (frame_before_block(index), block.pages(index));
    let (mut newest, mut newest_at) = (0, 0);
    let mut at = hash(page);
    for walked in 0..SLOTS {
        let value = block.slots()[at].load();
        if value == 0 {
            if walked >= VERY_FAR && newest != 0 {
                ends.remember(page, newest_at);
            }
            return Some(newest);
        }
        // A slot of a dead or foreign writer can hold any value. A number beyond the last
        // frame number becomes 0, which is in no range, and `get` checks the place.
        let frame = before.checked_add(u32::from(value)).unwrap_or(0);
        let in_range = frame >= min && rule!(FoundWithinSnapshot, frame <= max);
        let holds = |cell: &Word| {
            // Acquire: the page number behind the slot that leads to it.
            fence(Ordering::Acquire);
            cell.load() == page
        };
        if in_range && frame > newest && pages.get(usize::from(value) - 1).is_some_and(holds) {
            (newest, newest_at) = (frame, at);
        }
        // Entries before it are older than this one, which is to be seen.
        if walked == FAR
            && let Some(further) = Further::than(at, page, (block.slots(), pages), ends)
            && before
                .checked_add(u32::from(further.value))
                .is_some_and(|frame| frame <= max)
        {
            at = further.slot;
            continue;
        }
        at = (at + 1) & (SLOTS - 1);
    }
    None
}

/// The frames of block `index` to which the hash chain of `page` leads, those above the last
/// committed one included. `None` if the chain never ends.
pub(crate) fn chain(block: &IndexBlock, index: u32, page: u32) -> Option<Vec<u32>> {
    let (before, pages) = (frame_before_block(index), block.pages(index));
    let mut frames = Vec::new();
    let begin = hash(page);
    for walked in 0..SLOTS {
        let value = block.slots()[(begin + walked) & (SLOTS - 1)].load_acquire();
        if value == 0 {
            return Some(frames);
        }
        let entry = pages.get(usize::from(value) - 1);
        if entry.is_some_and(|entry| entry.load() == page) {
            frames.extend(before.checked_add(u32::from(value)));
        }
    }
    None
}

/// The page that `frame` holds.
pub(crate) fn page_of_frame(blocks: &impl Blocks, frame: u32) -> Result<u32> {
    let (index, place) = block_of_frame(frame);
    Ok(blocks.existing(index)?.pages(index)[place].load())
}

/// Clears what a writer that died or rolled back left above `max_frame` in
/// the block of `max_frame` (`walCleanupHash`). Later blocks clear themselves
/// when their first frame is added. The caller holds Write.
pub(crate) fn trim(blocks: &impl Blocks, max_frame: u32) -> Result<()> {
    if max_frame == 0 {
        return Ok(());
    }
    let (index, place) = block_of_frame(max_frame);
    let block = blocks.existing(index)?;
    let Some(next) = block.pages(index).get(place + 1) else {
        return Ok(());
    };
    // Entries are added from the first on, page number first, and cleared
    // from the last on: if the next one is empty, so is everything behind.
    if next.load() != 0 {
        rule!(LeftoversAreTrimmed, {
            step(Point::IndexTrim);
            clear_from(blocks.writable(index)?, index, place + 1);
        });
    }
    Ok(())
}

/// Clears the entries from `place` on: the slots first, so that no slot ever
/// leads to a cleared page number.
fn clear_from(block: &WritableBlock, index: u32, place: usize) {
    for (at, slot) in block.slots().iter().enumerate() {
        if usize::from(slot.load()) > place {
            block.store_slot(at, 0, Ordering::Release);
        }
    }
    // From the last to the first: should we die here, what is left begins
    // right behind `place`, where the next writer looks for it.
    for place in (place..block.pages(index).len()).rev() {
        block.store_page(index, place, 0, Ordering::Release);
    }
}

/// Writes the entries for `pages` (element 0 is the block's first frame) into
/// block `index`, for recovery. Words that are right already are not stored,
/// and none takes a value in between: readers may be using the block, and
/// what they can see does not change (`walIndexRecover`).
pub(crate) fn build_block(block: &WritableBlock, index: u32, pages: &[u32]) {
    let mut slots = vec![0u16; SLOTS];
    for (place, &page) in pages.iter().enumerate() {
        let mut at = hash(page);
        while slots[at] != 0 {
            at = (at + 1) & (SLOTS - 1);
        }
        slots[at] = slot_value(place);
    }
    step(Point::RecoveryCopy);
    for (place, word) in block.pages(index).iter().enumerate() {
        let page = pages.get(place).copied().unwrap_or(0);
        if word.load() != page {
            block.store_page(index, place, page, Ordering::Relaxed);
        }
    }
    for (at, (found, &slot)) in block.slots().iter().zip(&slots).enumerate() {
        if found.load() != slot {
            block.store_slot(at, slot, Ordering::Release);
        }
    }
}

/// The value of the hash slot for the entry at `place`, which is below 4096.
fn slot_value(place: usize) -> u16 {
    u16::try_from(place + 1).unwrap_or(0)
}

/// Blocks on the heap, for tests.
#[cfg(test)]
pub(in crate::index) struct Heap(pub(super) Vec<Box<WritableBlock>>, ChainEnds);

#[cfg(test)]
impl Blocks for Heap {
    fn existing(&self, index: u32) -> Result<&IndexBlock> {
        Ok(&self.0[index as usize])
    }
    fn writable(&self, index: u32) -> Result<&WritableBlock> {
        Ok(&self.0[index as usize])
    }
    fn chain_ends(&self) -> &ChainEnds {
        &self.1
    }
    fn corrupt(&self, reason: &str) -> crate::Error {
        crate::Error::corrupt(std::path::Path::new("heap"), reason)
    }
}

/// Blocks on the heap that are zero.
#[cfg(test)]
pub(in crate::index) fn heap(blocks: usize) -> Heap {
    let blocks = (0..blocks).map(|_| WritableBlock::zeroed()).collect();
    Heap(blocks, ChainEnds::default())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_frame_in_range_is_found_in_any_block() {
        let heap = heap(3);
        let mut rng = fastrand::Rng::with_seed(1);
        let frames: Vec<u32> = (0..10_000).map(|_| rng.u32(1..2000)).collect();
        for (frame, &page) in (1..).zip(&frames) {
            append(&heap, frame, page).unwrap();
        }
        for _ in 0..20_000 {
            let (page, max) = (rng.u32(1..2100), rng.u32(0..=10_000));
            let min = rng.u32(1..=10_000);
            let expected = (min..=max).rev().find(|&f| frames[f as usize - 1] == page);
            assert_eq!(find(&heap, page, min, max).unwrap(), expected);
        }
    }

    #[test]
    fn trimmed_leftovers_are_gone_and_the_rest_stays() {
        let heap = heap(2);
        for frame in 1..=4100 {
            append(&heap, frame, frame % 7 + 1).unwrap();
        }
        trim(&heap, 4000).unwrap();
        assert_eq!(find(&heap, 1, 1, 4062).unwrap(), Some(3997));
        for frame in 4001..=4062 {
            assert_eq!(page_of_frame(&heap, frame).unwrap(), 0);
        }
        append(&heap, 4001, 99).unwrap();
        assert_eq!(find(&heap, 99, 1, 4001).unwrap(), Some(4001));
    }

    #[test]
    fn recovery_builds_what_appending_would() {
        let (appended, built) = (heap(2), heap(2));
        let pages: Vec<u32> = (0..5000).map(|i| i % 613 + 1).collect();
        for (frame, &page) in (1..).zip(&pages) {
            append(&appended, frame, page).unwrap();
        }
        build_block(&built.0[0], 0, &pages[..4062]);
        build_block(&built.0[1], 1, &pages[4062..]);
        for page in 1..=620 {
            assert_eq!(
                find(&appended, page, 1, 5000).unwrap(),
                find(&built, page, 1, 5000).unwrap()
            );
        }
    }

    /// Whoever adds to a log, in another process too, with guesses of its own from any
    /// time, leaves what recovery would.
    #[test]
    fn a_chain_goes_on_where_it_would_without_a_guess() {
        let number = |frames: usize| u32::try_from(frames).unwrap();
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut heap = heap(1);
            let others = [(); 3].map(|()| ChainEnds::default());
            let mut others = Vec::from(others);
            let mut log: Vec<u32> = Vec::new();
            let pages = rng.u32(1..40);
            for _ in 0..2_000 {
                match rng.u8(..100) {
                    // Another process goes on.
                    0..5 => {
                        let other = rng.usize(..others.len());
                        std::mem::swap(&mut heap.1, &mut others[other]);
                    }
                    // A rollback; the log begins anew.
                    5 if !log.is_empty() => {
                        log.truncate(rng.usize(1..=log.len()));
                        trim(&heap, number(log.len())).unwrap();
                    }
                    6 if rng.u8(..10) == 0 => log.clear(),
                    // Some hash to the same slots.
                    _ => {
                        let page = rng.u32(1..=pages) << (10 * rng.u32(..2));
                        log.push(page);
                        append(&heap, number(log.len()), page).unwrap();
                    }
                }
                let page = rng.u32(1..=pages);
                let max = rng.usize(..=log.len());
                let newest = log[..max].iter().rposition(|&at| at == page);
                let found = find(&heap, page, 1, number(max)).unwrap();
                assert_eq!(found, newest.map(|at| number(at) + 1), "seed {seed}");
            }
            let built = super::heap(1);
            build_block(&built.0[0], 0, &log);
            for (at, slot) in built.0[0].slots().iter().enumerate() {
                let expected = slot.load();
                let found = heap.0[0].slots()[at].load();
                // What an earlier log left is cleared with the first frame.
                let is_there = log.is_empty() || found == expected;
                assert!(is_there, "seed {seed}, slot {at}: {found}, not {expected}");
            }
        }
    }

    /// The last block has more places than there are frame numbers.
    #[test]
    fn garbage_in_the_last_block_names_no_frame() {
        let (index, _) = block_of_frame(u32::MAX);
        let heap = heap(1);
        let block = &heap.0[0];
        // Beyond the last frame number.
        block.store_page(index, 100, 5, Ordering::Relaxed);
        let begin = hash(5);
        for (slot, value) in [101, 4000, 4130, u16::MAX].into_iter().enumerate() {
            block.store_slot(begin + slot, value, Ordering::Relaxed);
        }
        let found = find_in_block(block, index, 5, (1, u32::MAX), &heap.1);
        assert_eq!(found, Some(0));
    }

    #[test]
    fn a_full_hash_table_is_corrupt_and_does_not_hang() {
        let heap = heap(1);
        for at in 0..SLOTS {
            heap.0[0].store_slot(at, 4000, Ordering::Relaxed);
        }
        assert!(find(&heap, 5, 1, 10).is_err());
        assert!(append(&heap, 2, 5).is_err());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::{AtomicU32, fence};
    use loom::sync::Arc;
    use loom::thread;
    use std::path::Path;

    /// A block, and how many frames of it are published: in the place of the
    /// header, whose cell has tests of its own, a word and the same fences.
    struct Published {
        block: Box<WritableBlock>,
        ends: ChainEnds,
        max_frame: AtomicU32,
    }

    impl Blocks for Published {
        fn existing(&self, _: u32) -> Result<&IndexBlock> {
            Ok(&self.block)
        }
        fn writable(&self, _: u32) -> Result<&WritableBlock> {
            Ok(&self.block)
        }
        fn chain_ends(&self) -> &ChainEnds {
            &self.ends
        }
        fn corrupt(&self, reason: &str) -> crate::Error {
            crate::Error::corrupt(Path::new("loom"), reason)
        }
    }

    impl Published {
        /// Frames that hold `pages`, of which `max_frame` are published.
        fn new(pages: &[u32], max_frame: u32) -> Arc<Self> {
            let published = Published {
                block: WritableBlock::zeroed(),
                ends: ChainEnds::default(),
                max_frame: AtomicU32::new(max_frame),
            };
            for (frame, &page) in (1..).zip(pages) {
                append(&published, frame, page).unwrap();
            }
            Arc::new(published)
        }

        fn commit(&self, frame: u32, page: u32) {
            append(self, frame, page).unwrap();
            fence(Ordering::SeqCst);
            self.max_frame.store(frame, Ordering::Relaxed);
        }

        fn snapshot(&self) -> u32 {
            let max_frame = self.max_frame.load(Ordering::Relaxed);
            fence(Ordering::SeqCst);
            max_frame
        }
    }

    /// Two pages whose chains begin at the same one of loom's 16 slots.
    const PAGE: u32 = 1;
    const SAME_CHAIN: u32 = 17;

    #[test]
    fn a_reader_finds_what_its_snapshot_has_while_frames_are_added() {
        loom::model(|| {
            let shared = Published::new(&[PAGE], 1);
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let max_frame = shared.snapshot();
                    let found = find(&*shared, PAGE, 1, max_frame).unwrap();
                    assert_eq!(found, Some(if max_frame == 3 { 3 } else { 1 }));
                })
            };
            shared.commit(2, SAME_CHAIN);
            shared.commit(3, PAGE);
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_reader_finds_what_its_snapshot_has_while_leftovers_are_trimmed() {
        loom::model(|| {
            // Frames 2 and 3 are the leftovers of a dead writer.
            let shared = Published::new(&[SAME_CHAIN, PAGE, SAME_CHAIN], 1);
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let max_frame = shared.snapshot();
                    let found = |page| find(&*shared, page, 1, max_frame).unwrap();
                    assert_eq!(found(SAME_CHAIN), Some(1));
                    assert_eq!(found(PAGE), (max_frame == 2).then_some(2));
                })
            };
            trim(&*shared, 1).unwrap();
            shared.commit(2, PAGE);
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_reader_is_not_disturbed_by_a_recovery() {
        loom::model(|| {
            let shared = Published::new(&[SAME_CHAIN, PAGE, PAGE], 2);
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || {
                    assert_eq!(find(&*shared, PAGE, 1, 2).unwrap(), Some(2));
                    assert_eq!(find(&*shared, SAME_CHAIN, 1, 2).unwrap(), Some(1));
                })
            };
            build_block(&shared.block, 0, &[SAME_CHAIN, PAGE]);
            reader.join().unwrap();
        });
    }
}
