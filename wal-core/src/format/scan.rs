//! Finds the valid prefix of a log: what a crash left of it that counts.
//!
//! A log is valid up to the first frame that is short, of another
//! generation, of page 0, or whose checksum does not follow from the frame
//! before. The database is what the *last commit frame* before that point
//! says; well-formed frames behind it belong to a transaction that never
//! committed (`walIndexRecover`).

use super::checksum::Checksum;
use super::frame_reader::FrameReader;
use super::log_header::{DecodedHeader, LOG_HEADER_LEN, LogHeader};
use crate::error::Result;
use crate::storage::File;
use crate::testing::rule;
use crate::types::Salts;
use std::fmt;

/// The valid prefix of a log.
#[derive(Clone)]
pub struct LogScan {
    /// The header of the log.
    pub header: LogHeader,
    /// The page of each committed frame; element 0 is frame 1.
    pub pages: Vec<u32>,
    /// The size of the database in pages after the last commit, 0 if there is
    /// no commit.
    pub page_count: u32,
    /// The checksum that the frame after the last committed one goes on from.
    pub checksum: Checksum,
    /// How many well-formed frames follow the last commit.
    pub uncommitted: u32,
}

impl fmt::Debug for LogScan {
    /// The pages are counted: a long log has millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogScan")
            .field("header", &self.header)
            .field("frames", &self.max_frame())
            .field("page_count", &self.page_count)
            .field("uncommitted", &self.uncommitted)
            .finish_non_exhaustive()
    }
}

impl LogScan {
    /// The number of the last committed frame; 0 if there is no commit.
    pub fn max_frame(&self) -> u32 {
        u32::try_from(self.pages.len()).unwrap_or(u32::MAX)
    }
}

/// Reads `log` from its start and finds its valid prefix. `None` says that
/// the log is empty: too short for a header, or without a valid one.
///
/// # Errors
/// [`crate::Error::CannotOpen`] for a sound header of an unknown format version, and
/// whatever reading the file gives.
pub fn scan(log: &dyn File) -> Result<Option<LogScan>> {
    let frames = FrameReader::of(log)?;
    frames.map(scan_frames).transpose()
}

/// What a log is to an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Covered {
    /// It is another log, or has more.
    No,
    /// It is covered.
    Yes,
    /// There is no log.
    NothingThere,
}

/// Whether `log` holds nothing that an index does not cover which ends at
/// frame `max_frame` of the generation `salts`, whose checksum is `checksum`:
/// the log still is of that generation, and no commit follows
/// (`walBeginShmUnreliable`).
pub(crate) fn is_covered(
    log: &dyn File,
    salts: Salts,
    max_frame: u32,
    checksum: Checksum,
) -> Result<Covered> {
    let mut bytes = [0; LOG_HEADER_LEN];
    if log.read_at(&mut bytes, 0)? < LOG_HEADER_LEN {
        return Ok(Covered::NothingThere);
    }
    let DecodedHeader::Valid(header, _) = LogHeader::decode(&bytes) else {
        return Ok(Covered::NothingThere);
    };
    if header.salts != salts {
        return Ok(Covered::No);
    }
    let mut frames = FrameReader::behind(log, header, max_frame, checksum).one_by_one();
    while let Some(frame) = frames.next_frame()? {
        match frame.fault {
            Some(_) => break,
            None if frame.is_commit() => return Ok(Covered::No),
            None => {}
        }
    }
    Ok(Covered::Yes)
}

fn scan_frames(mut frames: FrameReader<'_>) -> Result<LogScan> {
    let mut scan = LogScan {
        header: *frames.header(),
        pages: Vec::new(),
        page_count: 0,
        checksum: frames.checksum(),
        uncommitted: 0,
    };
    let mut pending = Vec::new();
    while let Some(frame) = frames.next_frame()? {
        if frame.fault.is_some() {
            break;
        }
        pending.push(frame.page);
        if rule!(RecoveryEndsAtCommit, frame.is_commit()) {
            scan.pages.append(&mut pending);
            scan.page_count = frame.commit_size;
            scan.checksum = frame.checksum;
        }
    }
    scan.uncommitted = u32::try_from(pending.len()).unwrap_or(u32::MAX);
    Ok(scan)
}
