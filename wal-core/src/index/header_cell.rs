//! The two copies of the header in block 0, through which a commit becomes
//! visible.
//!
//! # Protocol
//! Only the holder of Write stores. Anybody loads, without a lock.
//!
//! # Ordering
//! The writer stores copy 1, fences, stores copy 0 (`walIndexWriteHdr`). A
//! reader loads copy 0, fences, loads copy 1 (`walIndexTryHdr`). A reader that
//! saw any word of a new copy 0 therefore sees copy 1 at least as new, so two
//! equal copies are one state and not a mixture. The fence of the writer also
//! orders the index entries before copy 0: it pairs with the reader's, so a
//! reader that sees the new header finds every entry that it speaks of.
//!
//! # Crash
//! A writer that dies between the copies leaves them unequal. Readers then
//! ask for Write and recover; they never wait for the dead.

use super::block::{IndexBlock, Word, WritableBlock};
use super::header::{BadHeader, CHANGE, HeaderWords, IndexHeader, MAX_FRAME};
use crate::sync::{Ordering, fence};
use crate::testing::{Point, rule, step};

/// How many words a copy has.
const COPY: usize = 12;

/// The header of the wal-index in shared memory, to be loaded.
#[derive(Clone, Copy)]
pub(crate) struct HeaderCell<'a> {
    first: &'a [Word],
    second: &'a [Word],
}

impl<'a> HeaderCell<'a> {
    /// The cell of block 0.
    pub(crate) fn of(block: &'a IndexBlock) -> Self {
        let words = block.header_words();
        HeaderCell {
            first: &words[..COPY],
            second: &words[COPY..2 * COPY],
        }
    }

    /// Loads the header.
    #[inline(always)]
    pub(crate) fn load(&self) -> Result<IndexHeader, BadHeader> {
        let words = self.load_words().ok_or(BadHeader::Damaged)?;
        IndexHeader::from_words(expanded(words))
    }

    /// True if both copies are exactly `header`. This is the comparison that
    /// every operation makes again once its lock is held.
    #[inline(always)]
    pub(crate) fn is(&self, header: &IndexHeader) -> bool {
        let wanted = compact(header.words());
        let first = differences(self.first, &wanted);
        // As in `load_words`.
        rule!(HeaderLoadFence, {
            fence(Ordering::Acquire);
        });
        first | differences(self.second, &wanted) == 0
    }

    /// The change counter and the last committed frame in copy 0.
    #[inline]
    pub(super) fn publication_hint(&self) -> u64 {
        u64::from(self.first[CHANGE].load()) << 32 | u64::from(self.max_frame_hint())
    }

    /// Loads both copies in the order of a reader, whatever they hold.
    pub(crate) fn load_copies(&self) -> [HeaderWords; 2] {
        let first = load(self.first);
        // As in `load_words`.
        fence(Ordering::Acquire);
        [first, load(self.second)].map(expanded)
    }

    /// The last committed frame, as copy 0 says at this moment. It is compared with
    /// nothing, so it serves for hints only.
    #[inline]
    pub(crate) fn max_frame_hint(&self) -> u32 {
        self.first[MAX_FRAME].load()
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self) -> Option<[u32; N]> {
        let first = load(self.first);
        // Pairs with the fence of `store_copies`.
        rule!(HeaderLoadFence, {
            fence(Ordering::Acquire);
        });
        (differences(self.second, &first) == 0).then_some(first)
    }
}

impl WritableBlock {
    /// Publishes `header` in block 0. The caller holds Write.
    pub(crate) fn store_header(&self, header: &IndexHeader) {
        self.store_copies(compact(header.words()));
    }

    /// Leaves no header in block 0, so that whoever loads it recovers.
    pub(crate) fn forget_header(&self) {
        self.store_copies(compact([0; 12]));
    }

    fn store_copies<const N: usize>(&self, words: [u32; N]) {
        rule!(SecondHeaderCopy, {
            step(Point::HeaderStoreSecond);
            self.store_copy(COPY, words);
        });
        // Pairs with the fence of `load_words`; see "Ordering".
        rule!(HeaderStoreFence, {
            fence(Ordering::SeqCst);
        });
        step(Point::HeaderStoreFirst);
        self.store_copy(0, words);
    }

    fn store_copy<const N: usize>(&self, from: usize, words: [u32; N]) {
        for (at, word) in (from..).zip(words) {
            self.store_word(at, word, Ordering::Relaxed);
        }
    }
}

/// Not 0 if a word of `cells` is not that of `words`. The words stay in
/// registers: from memory they would be read wider than they were written,
/// for which a processor waits.
#[inline]
fn differences<const N: usize>(cells: &[Word], words: &[u32; N]) -> u32 {
    let pairs = cells.iter().zip(words);
    pairs.fold(0, |all, (cell, word)| all | (cell.load() ^ word))
}

#[inline]
fn load<const N: usize>(cells: &[Word]) -> [u32; N] {
    let mut words = [0; N];
    for (word, cell) in words.iter_mut().zip(cells) {
        *word = cell.load();
    }
    words
}

#[cfg(not(loom))]
fn compact(words: HeaderWords) -> HeaderWords {
    words
}

#[cfg(not(loom))]
fn expanded(words: HeaderWords) -> HeaderWords {
    words
}

#[cfg(loom)]
use numbered::compact;
#[cfg(loom)]
use numbered::expanded;

/// Under loom a copy of the header is one word, its number in a table: no
/// model of the protocol would end if each of 24 words could be old or new.
/// The tests below, which are about this cell alone, have copies of two words.
#[cfg(loom)]
mod numbered {
    use super::HeaderWords;
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, MutexGuard};

    type Table = (HashMap<HeaderWords, u32>, Vec<HeaderWords>);

    /// Number 0 is a copy that was never stored.
    static TABLE: LazyLock<Mutex<Table>> =
        LazyLock::new(|| Mutex::new((HashMap::from([([0; 12], 0)]), vec![[0; 12]])));

    fn table() -> MutexGuard<'static, Table> {
        TABLE.lock().expect("nobody panics with the table")
    }

    pub(super) fn compact(words: HeaderWords) -> [u32; 1] {
        let (numbers, all) = &mut *table();
        [*numbers.entry(words).or_insert_with(|| {
            all.push(words);
            all.len() as u32 - 1
        })]
    }

    pub(super) fn expanded([number]: [u32; 1]) -> HeaderWords {
        table().1[number as usize]
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Copies of two words instead of twelve, which is enough for a mixture, and
    /// the page number of the first frame as an entry.
    fn small() -> Arc<Box<WritableBlock>> {
        Arc::new(WritableBlock::zeroed())
    }

    fn load(block: &IndexBlock) -> Option<[u32; 2]> {
        HeaderCell::of(block).load_words()
    }

    #[test]
    fn a_reader_never_takes_a_mixture_for_a_header() {
        loom::model(|| {
            let shared = small();
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.store_copies([1, 1]);
                    shared.store_copies([2, 2]);
                })
            };
            if let Some([a, b]) = load(&shared) {
                assert_eq!(a, b);
            }
            writer.join().unwrap();
            assert_eq!(load(&shared), Some([2, 2]));
        });
    }

    #[test]
    fn whoever_sees_the_header_sees_the_entries_before_it() {
        loom::model(|| {
            let shared = small();
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.store_page(0, 0, 1, Ordering::Relaxed);
                    shared.store_copies([1, 1]);
                })
            };
            if load(&shared) == Some([1, 1]) {
                assert_eq!(shared.pages(0)[0].load(), 1);
            }
            writer.join().unwrap();
        });
    }
}
