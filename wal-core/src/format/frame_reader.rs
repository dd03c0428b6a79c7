//! Reads the frames of a log in their order.
//!
//! Each frame stores the running checksum of the log, so a frame is checked against the stored
//! checksum of the frame before it, and a reader can begin at any frame. A frame is in the valid
//! prefix of the log if it and all frames before it are without a fault.

use std::fmt;

use super::checksum::Checksum;
use super::frame::{FRAME_HEADER_LEN, FrameHeader, frame_offset};
use super::log_header::{DecodedHeader, LOG_HEADER_LEN, LogHeader};
use crate::error::{Error, Result};
use crate::storage::File;
use crate::types::{FrameNo, MAX_FRAME, PageSize, Salts};

/// About how many bytes are read at a time.
const READ_LEN: usize = 1 << 20;

/// Why a frame does not follow the frame before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum FrameFault {
    /// The file ends within the frame.
    Short,
    /// It holds page 0, which no database has.
    PageZero,
    /// Its salts are those of another generation.
    Salts,
    /// Its checksum does not continue that of the frame before.
    Checksum,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameFault::Short => "the file ends within it",
            FrameFault::PageZero => "it holds page 0",
            FrameFault::Salts => "its salts are of another generation",
            FrameFault::Checksum => "its checksum does not continue that of the frame before",
        })
    }
}

/// A whole frame, as it stands in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedFrame<'a> {
    /// Its number.
    pub number: FrameNo,
    /// The number of its page.
    pub page: u32,
    /// The size of the database in pages if it ends a transaction, else 0.
    pub commit_size: u32,
    /// The generation that it belongs to.
    pub salts: Salts,
    /// Its checksum, from which the next frame goes on.
    pub checksum: Checksum,
    /// The content of the page.
    pub content: &'a [u8],
    /// Why it does not follow the frame before it; `None` if it does.
    pub fault: Option<FrameFault>,
}

impl LoggedFrame<'_> {
    /// True if it ends a transaction.
    pub fn is_commit(&self) -> bool {
        self.commit_size != 0
    }
}

impl fmt::Debug for LoggedFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedFrame")
            .field("number", &self.number)
            .field("page", &self.page)
            .field("commit_size", &self.commit_size)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// Reads frames one after the other, about 1 MiB at a time.
#[derive(Clone)]
pub struct FrameReader<'a> {
    log: &'a dyn File,
    header: LogHeader,
    /// The number of the frame that is read next.
    next: u32,
    /// The last frame that is read.
    last: u32,
    /// The checksum from which the next frame goes on.
    before: Checksum,
    buffer: Vec<u8>,
    /// How many bytes are read at a time, one frame at least.
    read_len: usize,
    /// The whole frames of the buffer that are still to be returned, in bytes.
    rest: std::ops::Range<usize>,
    /// The bytes of a last frame that is not whole, once the end of the file is read.
    end: Option<usize>,
}

impl fmt::Debug for FrameReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<'a> FrameReader<'a> {
    /// Reads the frames of `log` from the first on. `None` if the log has no header that frames
    /// can follow.
    ///
    /// # Errors
    /// [`Error::CannotOpen`] for a sound header of an unknown format version, [`Error::Io`].
    pub fn of(log: &'a dyn File) -> Result<Option<Self>> {
        let header = scan_header(log)?;
        Ok(header.map(|(header, checksum)| Self::behind(log, header, 0, checksum)))
    }

    /// Reads the frames behind frame `before`, whose checksum is `checksum`. For 0 that is the
    /// checksum of the header.
    pub fn behind(log: &'a dyn File, header: LogHeader, before: u32, checksum: Checksum) -> Self {
        FrameReader {
            log,
            header,
            next: before.saturating_add(1),
            last: MAX_FRAME,
            before: checksum,
            buffer: Vec::new(),
            read_len: READ_LEN,
            rest: 0..0,
            end: None,
        }
    }

    /// Reads from frame `first` on. It is checked against the checksum that the frame before it
    /// stores, or the header for the first one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn starting_at(log: &'a dyn File, header: LogHeader, first: FrameNo) -> Result<Self> {
        let mut bytes = [0; 8];
        let before = first.get() - 1;
        let offset = match FrameNo::new(before) {
            Some(before) => frame_offset(before, header.page_size) + 16,
            None => LOG_HEADER_LEN as u64 - 8,
        };
        // A log that was cut since has no such frame either.
        log.read_at(&mut bytes, offset)?;
        let checksum = Checksum::from_be_bytes(bytes);
        Ok(Self::behind(log, header, before, checksum))
    }

    /// Reads no frame behind frame `last`.
    #[must_use]
    pub fn up_to(mut self, last: u32) -> Self {
        self.last = last.min(MAX_FRAME);
        self
    }

    /// Reads no more than a frame at a time, for a caller that expects few.
    pub(super) fn one_by_one(mut self) -> Self {
        self.read_len = 0;
        self
    }

    /// The checksum from which the next frame goes on.
    pub fn checksum(&self) -> Checksum {
        self.before
    }

    /// The header of the log.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// The number of the frame that is read next.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// How many bytes of a frame that is not whole the file ends with. `None` as long as its end
    /// is not read.
    pub fn trailing_bytes(&self) -> Option<usize> {
        self.end
    }

    /// The next whole frame; `None` at the end of the file or behind the last frame.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn next_frame(&mut self) -> Result<Option<LoggedFrame<'_>>> {
        let Some(number) = FrameNo::new(self.next).filter(|number| number.get() <= self.last)
        else {
            return Ok(None);
        };
        if self.rest.is_empty() && (self.end.is_some() || !self.fill(number)?) {
            return Ok(None);
        }
        let start = self.rest.start;
        self.rest.start += frame_len(self.header.page_size);
        self.next += 1;
        let bytes = &self.buffer[start..self.rest.start];
        let Some((head, content)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        let frame = logged(number, head, content, &self.header, self.before);
        self.before = frame.checksum;
        Ok(Some(frame))
    }

    /// Reads the frames from `first` on into the buffer; false if there is no whole one.
    fn fill(&mut self, first: FrameNo) -> Result<bool> {
        let page_size = self.header.page_size;
        let frame_len = frame_len(page_size);
        let left = (self.last - first.get()) as usize + 1;
        let wanted = (self.read_len / frame_len).max(1).min(left) * frame_len;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let offset = frame_offset(first, page_size);
        let read = self.log.read_at(&mut self.buffer[..wanted], offset)?;
        let trailing = read % frame_len;
        if read < wanted {
            self.end = Some(trailing);
        }
        self.rest = 0..read - trailing;
        Ok(!self.rest.is_empty())
    }
}

/// The header of `log`, and the checksum from which frame 1 goes on. `None` if the log is too
/// short for a header, or has no valid one.
pub(crate) fn scan_header(log: &dyn File) -> Result<Option<(LogHeader, Checksum)>> {
    let mut bytes = [0; LOG_HEADER_LEN];
    if log.read_at(&mut bytes, 0)? < LOG_HEADER_LEN {
        return Ok(None);
    }
    match LogHeader::decode(&bytes) {
        DecodedHeader::Invalid => Ok(None),
        DecodedHeader::UnknownVersion(version) => Err(Error::cannot_open(
            log.path(),
            format!("log format {version} is not known; a newer program wrote it"),
        )),
        DecodedHeader::Valid(header, checksum) => Ok(Some((header, checksum))),
    }
}

/// The bytes of a frame, its header included.
pub(crate) fn frame_len(page_size: PageSize) -> usize {
    FRAME_HEADER_LEN + page_size.len()
}

fn logged<'b>(
    number: FrameNo,
    head: &[u8; FRAME_HEADER_LEN],
    content: &'b [u8],
    log: &LogHeader,
    before: Checksum,
) -> LoggedFrame<'b> {
    let [page, commit_size, salts_1, salts_2, sum_1, sum_2] =
        [0, 4, 8, 12, 16, 20].map(|at| word(head, at));
    let decoded = decode(head, content, log, before);
    let mut salts = [0; 8];
    salts[..4].copy_from_slice(&salts_1.to_be_bytes());
    salts[4..].copy_from_slice(&salts_2.to_be_bytes());
    let salts = Salts(salts);
    let (checksum, fault) = match decoded {
        Some((_, checksum)) => (checksum, None),
        None => {
            let stored = Checksum {
                s1: sum_1,
                s2: sum_2,
            };
            let fault = match page {
                0 => FrameFault::PageZero,
                _ if salts != log.salts => FrameFault::Salts,
                _ => FrameFault::Checksum,
            };
            (stored, Some(fault))
        }
    };
    LoggedFrame {
        number,
        page,
        commit_size,
        salts,
        checksum,
        content,
        fault,
    }
}

fn decode(
    head: &[u8; FRAME_HEADER_LEN],
    content: &[u8],
    log: &LogHeader,
    before: Checksum,
) -> Option<(FrameHeader, Checksum)> {
    FrameHeader::decode(head, content, log.salts, log.byte_order, before)
}

fn word(head: &[u8; FRAME_HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}
