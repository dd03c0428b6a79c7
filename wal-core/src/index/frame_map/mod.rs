//! Which page is in which frame: the hash blocks that all processes share, and the private
//! map by which one process finds pages in a long log.

mod chain_ends;
mod hash;
mod page_tree;
mod private_map;

pub(crate) use chain_ends::ChainEnds;
pub(crate) use hash::{Blocks, append, build_block, chain, find, page_of_frame, trim};
pub(crate) use private_map::{PageMap, Seal};
