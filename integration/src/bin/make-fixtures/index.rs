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
use integration::fixtures::facts::IndexFacts;

/// Reads a `-shm` file whose two header copies agree.
pub(crate) fn parse(bytes: &[u8]) -> Result<IndexFacts> {
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
    Ok(IndexFacts {
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
    })
}

/// The salts, which are random at every run and therefore not among the facts.
pub(crate) fn salts(bytes: &[u8]) -> Result<[u32; 2]> {
    let salt = |offset| Ok::<_, anyhow::Error>(u32::from_be_bytes(field(bytes, offset)?));
    Ok([salt(32)?, salt(36)?])
}

fn field(bytes: &[u8], offset: usize) -> Result<[u8; 4]> {
    let field = bytes.get(offset..offset + 4).context("a field cut short")?;
    Ok(field.try_into()?)
}
