//! Reads the header of a `-shm` file, so that the facts can tell what a
//! fixture's wal-index claims.
//!
//! # Layout
//!
//! Two 48-byte copies of the header at 0 and 48, the backfilled count at 96,
//! five read marks from 100 on, all in the byte order of the host that wrote
//! them (SQLite's `WalIndexHdr`, `WalCkptInfo`). The salts are the exception:
//! they are the bytes of the log.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// What the wal-index says, true or stale.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IndexFacts {
    /// Size of the `-shm` file.
    pub(crate) bytes: usize,
    /// Counts the commits since the index was built.
    pub(crate) change: u32,
    /// Last committed frame.
    pub(crate) max_frame: u32,
    /// Database size in pages at that frame.
    pub(crate) page_count: u32,
    /// Frames already copied into the database file.
    pub(crate) backfilled: u32,
    /// Read marks 0 to 4; 4294967295 is an unused one.
    pub(crate) read_marks: [u32; 5],
    /// Random at every run, and therefore not among the facts.
    #[serde(skip)]
    pub(crate) salts: [u32; 2],
}

impl IndexFacts {
    /// Reads a `-shm` file whose two header copies agree.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len().is_multiple_of(32768),
            "a wal-index of {} bytes",
            bytes.len()
        );
        let header = bytes.get(..136).context("a wal-index cut short")?;
        ensure!(
            header[..48] == header[48..96],
            "the two header copies differ"
        );
        ensure!(header[12] != 0, "the wal-index was never built");
        let native = |offset| Ok::<_, anyhow::Error>(u32::from_ne_bytes(field(header, offset)?));
        let salt = |offset| Ok::<_, anyhow::Error>(u32::from_be_bytes(field(header, offset)?));
        Ok(Self {
            bytes: bytes.len(),
            change: native(8)?,
            max_frame: native(16)?,
            page_count: native(20)?,
            backfilled: native(96)?,
            read_marks: [
                native(100)?,
                native(104)?,
                native(108)?,
                native(112)?,
                native(116)?,
            ],
            salts: [salt(32)?, salt(36)?],
        })
    }
}

fn field(bytes: &[u8], offset: usize) -> Result<[u8; 4]> {
    let field = bytes.get(offset..offset + 4).context("a field cut short")?;
    Ok(field.try_into()?)
}
