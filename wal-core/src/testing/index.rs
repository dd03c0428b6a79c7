//! The wal-index past the protocol, for the conformance suite: what stands in a block,
//! and stores that a hostile file or a peer that died may have left.

use crate::coordination::WalCoordination;
use crate::error::Result;
use crate::index::{CheckpointInfo, HeaderCell, IndexBlock, IndexHeader, WritableBlock};
use crate::protocol::Wal;
use crate::sync::Ordering;

/// The header that block 0 publishes, if both copies are whole and equal.
pub fn header(block: &IndexBlock) -> Option<IndexHeader> {
    HeaderCell::of(block).load().ok()
}

/// Stores the header of an empty log, as SQLite's recovery does, and returns it.
pub fn store_empty_header(block: &WritableBlock) -> IndexHeader {
    let header = IndexHeader::empty();
    block.store_header(&header);
    header
}

/// The change counter of `header`.
pub fn change_counter(header: &IndexHeader) -> u32 {
    header.change()
}

/// How many frames block 0 says are in the database file.
pub fn backfilled(block: &IndexBlock) -> u32 {
    CheckpointInfo::of(block).backfilled()
}

/// Stores how many frames are in the database file.
pub fn set_backfilled(block: &WritableBlock, frames: u32) {
    block.set_backfilled(frames);
}

/// Up to which frame block 0 says that a checkpoint may have written the database file.
pub fn attempted(block: &IndexBlock) -> u32 {
    CheckpointInfo::of(block).attempted()
}

/// Stores up to which frame a checkpoint may have written the database file.
pub fn set_attempted(block: &WritableBlock, frames: u32) {
    block.set_attempted(frames);
}

/// The page that `frame` holds, as the index of `wal` says; 0 if it has no entry.
///
/// # Errors
/// The coordination's, or that the block of the frame is not there.
pub fn page_of_frame<C: WalCoordination>(wal: &Wal<C>, frame: u32) -> Result<u32> {
    crate::index::page_of_frame(wal, frame)
}

/// How many words of block 0 stand before its entries.
pub fn header_words(block: &IndexBlock) -> usize {
    block.header_words().len()
}

/// Word `at` of those before the entries of block 0, by a relaxed load: what it sees of
/// other threads is what a lock hands over.
pub fn word(block: &IndexBlock, at: usize) -> u32 {
    block.header_words()[at].load()
}

/// Stores word `at` of those before the entries of block 0.
pub fn store_word(block: &WritableBlock, at: usize, value: u32, order: Ordering) {
    block.store_word(at, value, order);
}

/// The page numbers of block `index`, frame by frame.
pub fn pages(block: &IndexBlock, index: u32) -> Vec<u32> {
    let pages = block.pages(index).iter();
    pages.map(|page| page.load()).collect()
}

/// Stores the page number of the frame at `place` of block `index`.
pub fn store_page(block: &WritableBlock, index: u32, place: usize, page: u32) {
    block.store_page(index, place, page, Ordering::Relaxed);
}

/// The hash slots of a block.
pub fn slots(block: &IndexBlock) -> Vec<u16> {
    let slots = block.slots().iter();
    slots.map(|slot| slot.load()).collect()
}

/// Stores hash slot `at`.
pub fn store_slot(block: &WritableBlock, at: usize, value: u16) {
    block.store_slot(at, value, Ordering::Relaxed);
}
