//! The transactions in a log, one after the other.

use crate::error::Result;
use crate::format::{Checksum, FrameFault, FrameReader, LogHeader};
use crate::storage::File;
use crate::types::{FrameNo, Salts};

/// A transaction whose commit is in the valid prefix of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Transaction {
    /// The generation of the log.
    pub salts: Salts,
    /// Its first frame.
    pub first: FrameNo,
    /// Its last frame, which commits it.
    pub last: FrameNo,
    /// The size of the database in pages after it.
    pub page_count: u32,
    /// The page of each of its frames. A page that was spilled and changed again, and the commit
    /// frame that is repeated up to the end of a sector, are there more than once.
    pub pages: Vec<u32>,
    /// The checksum of its last frame, from which the next transaction goes on.
    pub checksum: Checksum,
}

impl Transaction {
    /// How many frames it has.
    pub fn frames(&self) -> u32 {
        self.last.get() - self.first.get() + 1
    }

    /// How many different pages it has written.
    pub fn distinct_pages(&self) -> usize {
        let mut pages = self.pages.clone();
        pages.sort_unstable();
        pages.dedup();
        pages.len()
    }
}

/// Why no transaction follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogEnd {
    /// The number of the first frame that is not in the valid prefix.
    pub frame: u32,
    /// Why it is not; `None` if the file ends with the frame before, or no more was asked for.
    pub fault: Option<FrameFault>,
    /// How many frames without a fault follow the last commit.
    pub uncommitted: u32,
}

/// Reads the transactions of a log, each frame checked against the one before it.
///
/// It keeps 4 bytes for each frame of the transaction that it reads.
///
/// ```
/// use wal_core::inspect::Transactions;
/// use wal_core::storage::MemoryFile;
///
/// let log = MemoryFile::new("app.db-wal", Vec::new());
/// assert!(Transactions::of(&log)?.is_none(), "an empty log");
/// # Ok::<(), wal_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Transactions<'a> {
    frames: FrameReader<'a>,
    end: Option<LogEnd>,
}

impl<'a> Transactions<'a> {
    /// Reads from the first transaction on. `None` if the log has no valid header.
    ///
    /// # Errors
    /// As [`FrameReader::of`].
    pub fn of(log: &'a dyn File) -> Result<Option<Self>> {
        let frames = FrameReader::of(log)?;
        Ok(frames.map(|frames| Transactions { frames, end: None }))
    }

    /// Reads from the transaction behind frame `before` on, which has the checksum `checksum`
    /// and ends a transaction. The caller knows that `header` still is that of the log.
    pub fn behind(log: &'a dyn File, header: LogHeader, before: u32, checksum: Checksum) -> Self {
        let frames = FrameReader::behind(log, header, before, checksum);
        Transactions { frames, end: None }
    }

    /// Reads no frame behind frame `last`, which is the last committed one by the index.
    #[must_use]
    pub fn up_to(mut self, last: u32) -> Self {
        self.frames = self.frames.up_to(last);
        self
    }

    /// The header of the log.
    pub fn header(&self) -> &LogHeader {
        self.frames.header()
    }

    /// Why no transaction follows; `None` as long as [`Iterator::next`] returns transactions.
    pub fn end(&self) -> Option<LogEnd> {
        self.end
    }

    fn read(&mut self) -> Result<Option<Transaction>> {
        let salts = self.header().salts;
        let mut first = None;
        let mut pages = Vec::new();
        while let Some(frame) = self.frames.next_frame()? {
            if let Some(fault) = frame.fault {
                let at = frame.number.get();
                self.end = Some(end(at, Some(fault), pages.len()));
                return Ok(None);
            }
            pages.push(frame.page);
            let first = *first.get_or_insert(frame.number);
            if frame.is_commit() {
                return Ok(Some(Transaction {
                    salts,
                    first,
                    last: frame.number,
                    page_count: frame.commit_size,
                    pages,
                    checksum: frame.checksum,
                }));
            }
        }
        let is_cut = self.frames.trailing_bytes().is_some_and(|bytes| bytes > 0);
        let fault = is_cut.then_some(FrameFault::Short);
        self.end = Some(end(self.frames.next_number(), fault, pages.len()));
        Ok(None)
    }
}

fn end(frame: u32, fault: Option<FrameFault>, uncommitted: usize) -> LogEnd {
    LogEnd {
        frame,
        fault,
        uncommitted: u32::try_from(uncommitted).unwrap_or(u32::MAX),
    }
}

impl Iterator for Transactions<'_> {
    type Item = Result<Transaction>;

    /// The next transaction; `None` behind the last one. An error is returned once.
    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_some() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.end = Some(end(self.frames.next_number(), None, 0));
        }
        read.transpose()
    }
}
