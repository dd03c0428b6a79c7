//! A number for each page that has one, found without a lock.
//!
//! # Layout
//! A tree of three levels by page number. Its leaves hold the numbers of 64
//! pages, and are made when they are needed, as are the nodes above:
//!
//! ```text
//! page   31          14 13         6 5        0
//!        │ root, grows │ 256 leaves │ 64 pages │
//! ```
//!
//! So a tree needs 4 bytes for a page where most pages have a number; where
//! they lie scattered no more than 256 bytes for each, and 4 KiB for each
//! 16,384 pages of which one has a number.
//!
//! # Ordering
//! The numbers are relaxed; who needs more stores something behind them.

use std::sync::OnceLock;

use crate::once_table::OnceTable;
use crate::sync::{AtomicU32, Ordering};

/// How many low bits of a page number tell its place in a leaf.
const LEAF_BITS: u32 = 6;
/// How many bits above these tell the leaf in its node.
const NODE_BITS: u32 = 8;

type Leaf = [AtomicU32; 1 << LEAF_BITS];
type Node = [OnceLock<Box<Leaf>>; 1 << NODE_BITS];

/// A number for each page, 0 to begin with.
#[derive(Default)]
pub(in crate::index) struct PageTree {
    root: OnceTable<Box<Node>>,
}

impl PageTree {
    /// The number of `page`.
    pub(in crate::index) fn get(&self, page: u32) -> u32 {
        let node = self.root.get(place_in_root(page));
        let leaf = node.and_then(|node| node[place_in_node(page)].get());
        leaf.map_or(0, |leaf| leaf[place_in_leaf(page)].load(Ordering::Relaxed))
    }

    /// Gives `page` the number `number`.
    pub(in crate::index) fn set(&self, page: u32, number: u32) {
        let node = self.root.get_or_make(place_in_root(page), || {
            Box::new([const { OnceLock::new() }; 1 << NODE_BITS])
        });
        let leaf = node[place_in_node(page)]
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU32::new(0))));
        leaf[place_in_leaf(page)].store(number, Ordering::Relaxed);
    }
}

fn place_in_root(page: u32) -> u32 {
    page >> (LEAF_BITS + NODE_BITS)
}

fn place_in_node(page: u32) -> usize {
    (page >> LEAF_BITS) as usize & ((1 << NODE_BITS) - 1)
}

fn place_in_leaf(page: u32) -> usize {
    page as usize & ((1 << LEAF_BITS) - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn any_page_has_a_number_of_its_own() {
        let tree = PageTree::default();
        let pages = [0, 1, 63, 64, 16383, 16384, u32::MAX - 1, u32::MAX];
        for (number, page) in (1..).zip(pages) {
            assert_eq!(tree.get(page), 0);
            tree.set(page, number);
        }
        for (number, page) in (1..).zip(pages) {
            assert_eq!(tree.get(page), number);
        }
        assert_eq!(tree.get(2), 0);
    }
}
