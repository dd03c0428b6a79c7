//! The pages of a committed state: each from the log, or from the database file.

use crate::error::Result;
use crate::format::{FRAME_HEADER_LEN, frame_offset};
use crate::storage::File;
use crate::types::{FrameNo, PageNo, PageSize};

/// Where a page of the state is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PageSource {
    /// In this frame of the log.
    Log(FrameNo),
    /// In the database file.
    Database,
    /// In neither: the database file is too short. It is read as zeros.
    Missing,
}

/// A committed state: the first frames of a log over a database file.
#[derive(Clone, Debug)]
pub struct CommittedPages<'a> {
    database: &'a dyn File,
    log: &'a dyn File,
    page_size: PageSize,
    page_count: u32,
    /// Each page in the log with its newest frame, in the order of pages.
    newest: Vec<(u32, u32)>,
}

impl<'a> CommittedPages<'a> {
    /// The state of `page_count` pages after the frames of `log` that hold `frames`: element 0
    /// is the page of frame 1 ([`crate::format::LogScan::pages`]).
    pub fn new(
        database: &'a dyn File,
        log: &'a dyn File,
        page_size: PageSize,
        page_count: u32,
        frames: &[u32],
    ) -> Self {
        let mut newest: Vec<(u32, u32)> = frames.iter().copied().zip(1..).collect();
        newest.sort_unstable();
        // Of the frames of a page the last one stays.
        newest.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                *earlier = *later;
            }
            is_same
        });
        CommittedPages {
            database,
            log,
            page_size,
            page_count,
            newest,
        }
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The size of the database in pages.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The same files as a database of `page_count` pages.
    #[must_use]
    pub fn with_page_count(mut self, page_count: u32) -> Self {
        self.page_count = page_count;
        self
    }

    /// The size of the database in pages without those at its end that are in neither file: less
    /// than [`CommittedPages::page_count`] if the database file was cut, or its header is damaged.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn available(&self) -> Result<u32> {
        let in_file = self
            .database
            .len()?
            .div_ceil(u64::from(self.page_size.bytes()));
        let in_file = u32::try_from(in_file)
            .unwrap_or(u32::MAX)
            .min(self.page_count);
        let within = self
            .newest
            .partition_point(|(page, _)| *page <= self.page_count);
        let in_log = self.newest[..within].last().map_or(0, |(page, _)| *page);
        Ok(in_file.max(in_log))
    }

    /// How many pages are in the log, those beyond the end of the database included.
    pub fn pages_in_log(&self) -> usize {
        self.newest.len()
    }

    /// The newest frame that holds `page`; `None` if the page is not in the log.
    pub fn frame_of(&self, page: PageNo) -> Option<FrameNo> {
        let at = self
            .newest
            .binary_search_by_key(&page.get(), |(page, _)| *page);
        FrameNo::new(self.newest.get(at.ok()?)?.1)
    }

    /// The first page that is in neither file; `None` if the state is whole. The page of the
    /// lock bytes holds no data, so it may be missing.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn first_missing(&self) -> Result<Option<PageNo>> {
        let in_file = self.database.len()? / u64::from(self.page_size.bytes());
        let in_file = u32::try_from(in_file).unwrap_or(u32::MAX);
        let beyond = self.newest.partition_point(|(page, _)| *page <= in_file);
        let mut in_log = self.newest[beyond..]
            .iter()
            .map(|(page, _)| *page)
            .peekable();
        let lock_bytes = self.page_size.lock_byte_page().get();
        // Ends with the first page that is missing, so after as many as the log has.
        for page in (in_file..self.page_count).map(|before| before + 1) {
            if in_log.next_if_eq(&page).is_none() && page != lock_bytes {
                return Ok(PageNo::new(page).ok());
            }
        }
        Ok(None)
    }

    /// Reads `page` into `buffer`, which is a page long.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn read(&self, page: PageNo, buffer: &mut [u8]) -> Result<PageSource> {
        let (file, offset, source) = match self.frame_of(page) {
            Some(frame) => {
                let offset = frame_offset(frame, self.page_size) + FRAME_HEADER_LEN as u64;
                (self.log, offset, PageSource::Log(frame))
            }
            None => (
                self.database,
                page.offset(self.page_size),
                PageSource::Database,
            ),
        };
        let read = file.read_at(buffer, offset)?;
        buffer[read..].fill(0);
        Ok(match read == buffer.len() {
            true => source,
            false => PageSource::Missing,
        })
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspect::sample_log::SampleLog;
    use crate::storage::MemoryFile;

    #[test]
    fn page_in_neither_file_is_missing() {
        let log = MemoryFile::new("db-wal", Vec::new());
        let database = MemoryFile::new("db", vec![7; 1024 + 100]);
        let missing = |frames: &[u32], page_count| {
            let pages = CommittedPages::new(&database, &log, PageSize::MIN, page_count, frames);
            pages.first_missing().unwrap().map(PageNo::get)
        };
        assert_eq!((missing(&[], 2), missing(&[], 3)), (None, Some(3)));
        assert_eq!(
            (missing(&[4, 3, 1], 4), missing(&[4, 1], 4)),
            (None, Some(3))
        );
        assert_eq!(missing(&[4, 3, 1, 9], u32::MAX), Some(5));
        let available = |frames: &[u32], page_count| {
            let pages = CommittedPages::new(&database, &log, PageSize::MIN, page_count, frames);
            pages.available().unwrap()
        };
        assert_eq!(
            (
                available(&[], 9),
                available(&[], 2),
                available(&[7, 1, 20], 9)
            ),
            (3, 2, 7)
        );
        let lock_bytes = PageSize::MAX.lock_byte_page().get();
        let database = MemoryFile::new("db", Vec::new());
        let all: Vec<u32> = (1..=lock_bytes + 1)
            .filter(|&page| page != lock_bytes)
            .collect();
        let pages = CommittedPages::new(&database, &log, PageSize::MAX, lock_bytes + 1, &all);
        assert_eq!(pages.first_missing().unwrap(), None);
    }

    #[test]
    fn page_is_read_from_its_newest_frame_or_from_the_database() {
        let log = SampleLog::new(1).commit(&[3, 2]).commit(&[3]).commit(&[3]);
        let log = MemoryFile::new("db-wal", log.bytes());
        let database = MemoryFile::new("db", vec![7; 1024 + 100]);
        let source = |frames: &[u32], page| {
            let pages = CommittedPages::new(&database, &log, PageSize::MIN, 9, frames);
            let mut buffer = vec![1; 512];
            let source = pages.read(PageNo::new(page).unwrap(), &mut buffer).unwrap();
            (source, buffer)
        };
        let frame = |number| PageSource::Log(FrameNo::new(number).unwrap());
        assert_eq!(source(&[3, 2, 3, 3], 3).0, frame(4));
        let (of_two, content) = source(&[3, 2, 3], 3);
        assert_eq!(of_two, frame(3));
        assert_eq!(content, SampleLog::content(3, SampleLog::offset(3)));
        assert_eq!(source(&[3, 2, 3], 1), (PageSource::Database, vec![7; 512]));
        let (missing, content) = source(&[], 3);
        assert_eq!(missing, PageSource::Missing);
        assert_eq!((content[99], content[100]), (7, 0));
        assert_eq!(source(&[], 9), (PageSource::Missing, vec![0; 512]));
    }
}
