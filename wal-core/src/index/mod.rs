//! The wal-index: which page is in which frame, and how far the log is
//! published and backfilled. It is a cache of the log, shared by everyone
//! who uses the database, in SQLite's `-shm` layout and host byte order.
//!
//! Layout: blocks of 32 KiB. Block 0 begins with 136 bytes that are not
//! entries, so it holds 34 frames less than the others.
//!
//! ```text
//! block 0   0         48        96          100        120     128        132  136
//!           │ copy 0  │ copy 1  │ backfilled │ marks 0-4 │ locks │ attempted │  │ pages of frames 1..4062 │ hash slots │
//! block k   0                                                                    16384
//!           │ pages of 4096 frames                                               │ 8192 hash slots of 16 bits │
//! ```

mod block;
mod checkpoint_info;
mod frame_map;
mod header;
mod header_cell;
mod validity;

pub use block::{BLOCK_LEN, IndexBlock, MARK_NOT_USED, WritableBlock};
pub(crate) use block::{block_of_frame, last_frame_of_block};
pub(crate) use checkpoint_info::CheckpointInfo;
pub use checkpoint_info::{publication_hint, published_header, serves_newest};
pub(crate) use frame_map::{
    Blocks, ChainEnds, PageMap, Seal, append, build_block, chain, find, page_of_frame, trim,
};
pub use header::IndexHeader;
pub(crate) use header::{BadHeader, HeaderWords};
pub(crate) use header_cell::HeaderCell;
pub use validity::{IndexOf, forget_header, index_of};
