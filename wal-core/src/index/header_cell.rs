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

use super::block::IndexBlock;
use super::header::{BadHeader, HeaderWords, IndexHeader};
use crate::sync::{AtomicU32, Ordering, fence};
use crate::testing::{Mutation, Point, mutated, step};

/// The header of the wal-index in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct HeaderCell<'a> {
    first: &'a [AtomicU32],
    second: &'a [AtomicU32],
}

impl<'a> HeaderCell<'a> {
    /// The cell of block 0.
    pub(crate) fn of(block: &'a IndexBlock) -> Self {
        let words = block.header_words();
        HeaderCell {
            first: &words[..12],
            second: &words[12..24],
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
        if !mutated(Mutation::DropLoadFence) {
            // As in `load_words`.
            fence(Ordering::Acquire);
        }
        first | differences(self.second, &wanted) == 0
    }

    /// Publishes `header`. The caller holds Write.
    pub(crate) fn store(&self, header: &IndexHeader) {
        self.store_words(compact(header.words()));
    }

    /// Leaves no header, so that whoever loads it recovers.
    pub(crate) fn forget(&self) {
        self.store_words(compact([0; 12]));
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self) -> Option<[u32; N]> {
        let first = load(self.first);
        if !mutated(Mutation::DropLoadFence) {
            // Pairs with the fence of `store_words`.
            fence(Ordering::Acquire);
        }
        (differences(self.second, &first) == 0).then_some(first)
    }

    fn store_words<const N: usize>(&self, words: [u32; N]) {
        if !mutated(Mutation::OneHeaderCopy) {
            step(Point::HeaderStoreSecond);
            store(self.second, words);
        }
        if !mutated(Mutation::DropStoreFence) {
            // Pairs with the fence of `load_words`; see "Ordering".
            fence(Ordering::SeqCst);
        }
        step(Point::HeaderStoreFirst);
        store(self.first, words);
    }
}

/// Not 0 if a word of `cells` is not that of `words`. The words stay in
/// registers: from memory they would be read wider than they were written,
/// for which a processor waits.
#[inline]
fn differences<const N: usize>(cells: &[AtomicU32], words: &[u32; N]) -> u32 {
    let pairs = cells.iter().zip(words);
    pairs.fold(0, |all, (cell, word)| {
        all | (cell.load(Ordering::Relaxed) ^ word)
    })
}

#[inline]
fn load<const N: usize>(cells: &[AtomicU32]) -> [u32; N] {
    let mut words = [0; N];
    for (word, cell) in words.iter_mut().zip(cells) {
        *word = cell.load(Ordering::Relaxed);
    }
    words
}

fn store<const N: usize>(cells: &[AtomicU32], words: [u32; N]) {
    for (cell, word) in cells.iter().zip(words) {
        cell.store(word, Ordering::Relaxed);
    }
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
use numbered::{compact, expanded};

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

    /// Two words a copy instead of twelve: enough for a mixture.
    struct Small {
        words: [AtomicU32; 4],
        entry: AtomicU32,
    }

    impl Small {
        fn cell(&self) -> HeaderCell<'_> {
            HeaderCell {
                first: &self.words[..2],
                second: &self.words[2..],
            }
        }
    }

    fn small() -> Arc<Small> {
        Arc::new(Small {
            words: std::array::from_fn(|_| AtomicU32::new(0)),
            entry: AtomicU32::new(0),
        })
    }

    #[test]
    fn a_reader_never_takes_a_mixture_for_a_header() {
        loom::model(|| {
            let shared = small();
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.cell().store_words([1, 1]);
                    shared.cell().store_words([2, 2]);
                })
            };
            if let Some([a, b]) = shared.cell().load_words::<2>() {
                assert_eq!(a, b);
            }
            writer.join().unwrap();
            assert_eq!(shared.cell().load_words(), Some([2, 2]));
        });
    }

    #[test]
    fn whoever_sees_the_header_sees_the_entries_before_it() {
        loom::model(|| {
            let shared = small();
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.entry.store(1, Ordering::Relaxed);
                    shared.cell().store_words([1, 1]);
                })
            };
            if shared.cell().load_words() == Some([1, 1]) {
                assert_eq!(shared.entry.load(Ordering::Relaxed), 1);
            }
            writer.join().unwrap();
        });
    }
}
