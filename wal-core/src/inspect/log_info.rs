//! The header of the log, and what lies behind it.

use crate::error::Result;
use crate::format::{DecodedHeader, FRAME_HEADER_LEN, LOG_HEADER_LEN, LogHeader};
use crate::storage::File;
use crate::types::PageSize;

/// What is known of the file of the log without reading its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogInfo {
    /// The length of the file in bytes.
    pub len: u64,
    /// Its header; `None` if the file is shorter than one.
    pub header: Option<DecodedHeader>,
}

impl LogInfo {
    /// The header, if frames can follow it.
    pub fn valid_header(&self) -> Option<&LogHeader> {
        match &self.header {
            Some(DecodedHeader::Valid(header, _)) => Some(header),
            _ => None,
        }
    }

    /// How many frames of `page_size` the file has room for, those of older generations
    /// behind the committed ones included.
    pub fn frames_on_disk(&self, page_size: PageSize) -> u64 {
        let frames = self.len.saturating_sub(LOG_HEADER_LEN as u64);
        frames / (FRAME_HEADER_LEN + page_size.len()) as u64
    }
}

/// Describes `log`, of which the header alone is read.
///
/// # Errors
/// [`crate::Error::Io`] if it cannot be read.
///
/// ```
/// use wal_core::inspect::read_log;
/// use wal_core::storage::MemoryFile;
///
/// let info = read_log(&MemoryFile::new("app.db-wal", Vec::new()))?;
/// assert_eq!((info.len, info.header), (0, None));
/// # Ok::<(), wal_core::Error>(())
/// ```
pub fn read_log(log: &dyn File) -> Result<LogInfo> {
    let mut bytes = [0; LOG_HEADER_LEN];
    let is_whole = log.read_at(&mut bytes, 0)? == LOG_HEADER_LEN;
    Ok(LogInfo {
        len: log.len()?,
        header: is_whole.then(|| LogHeader::decode(&bytes)),
    })
}
