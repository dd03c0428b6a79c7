//! The bytes on disk: the log's header and frames with their checksums, the
//! valid prefix of a log, and the part of page 1 that a page-level writer has
//! to understand.
//!
//! Layout (all integers big-endian):
//!
//! ```text
//! -wal   0        32            32+24+P         32+2·(24+P)
//!        │ header │ frame 1     │ frame 2       │ …
//!                 │ 24 │ page P │
//! ```

mod checksum;
mod database_header;
mod frame;
mod frame_reader;
mod log_header;
mod page_store_header;
mod scan;

pub use checksum::{ByteOrder, Checksum};
pub use database_header::DatabaseHeader;
pub use frame::{FRAME_HEADER_LEN, FrameHeader, frame_end, frame_offset};
pub use frame_reader::{FrameFault, FrameReader, LoggedFrame};
pub(crate) use frame_reader::{frame_len, scan_header};
pub use log_header::{DecodedHeader, LOG_HEADER_LEN, LogHeader};
pub use page_store_header::{DecodedStoreHeader, PageStoreHeader};
pub(crate) use scan::{Covered, is_covered};
pub use scan::{LogScan, scan};
