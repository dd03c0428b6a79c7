//! Whether what an observer has read without a lock is one committed state.
//!
//! # Protocol
//! The observer samples the header and the counts of the index, reads, and samples again
//! ([`Watch`]). What it read is the state that the first header publishes, if
//! - the second header has the same salts: the log was not restarted, so no frame up to the
//!   first header's last one was overwritten (a restart publishes its salts before it writes);
//! - no checkpoint has attempted a frame above that one, so no page of the database file that
//!   the state has there was overwritten (a checkpoint stores *attempted* before it writes), or
//!   the header is the same, so there was no such frame.
//!
//! Else it starts over, a bounded number of times. A database that restarts its log all the time
//! can be looked at with a lock only: a read transaction, or a backup.
//!
//! The files must still be at their paths afterwards
//! ([`crate::storage::OsFile::is_still_at_its_path`]): the last user of the database removes the
//! log and the index, and the next one makes others.
//!
//! Without an index, or with one whose header is not sound, no process uses the database in the shared way. Then the headers and
//! the lengths of both files are compared. A process that owns the whole database is not noticed
//! by that in each case; it holds EXCLUSIVE on the database file.
//!
//! # Ordering
//! As of `index_info`: the counts are loaded before the header is compared. The reads of an
//! observer are calls, which the system makes in their order.

use super::{IndexInfo, read_index};
use crate::error::Result;
use crate::format::{DatabaseHeader, LOG_HEADER_LEN};
use crate::index::IndexHeader;
use crate::storage::File;

/// The files of a database, and what their state was when the watch began.
#[derive(Debug)]
pub struct Watch<'a> {
    database: &'a dyn File,
    log: Option<&'a dyn File>,
    shm: Option<&'a dyn File>,
    before: Sample,
}

/// What tells one state from another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sample {
    index: Option<IndexInfo>,
    database: (u64, Vec<u8>),
    log: Option<(u64, Vec<u8>)>,
}

impl<'a> Watch<'a> {
    /// Samples the files.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    ///
    /// ```
    /// use wal_core::inspect::Watch;
    /// use wal_core::storage::MemoryFile;
    ///
    /// let database = MemoryFile::new("app.db", vec![0; 512]);
    /// let watch = Watch::begin(&database, None, None)?;
    /// assert!(watch.holds()?);
    /// # Ok::<(), wal_core::Error>(())
    /// ```
    pub fn begin(
        database: &'a dyn File,
        log: Option<&'a dyn File>,
        shm: Option<&'a dyn File>,
    ) -> Result<Self> {
        let before = sample(database, log, shm)?;
        Ok(Watch {
            database,
            log,
            shm,
            before,
        })
    }

    /// The index as it was; `None` if there is none.
    pub fn index(&self) -> Option<&IndexInfo> {
        self.before.index.as_ref()
    }

    /// The committed state that the index published; `None` if there is no index, or its header
    /// is not sound.
    pub fn published(&self) -> Option<&IndexHeader> {
        self.index()?.valid_header()
    }

    /// True if the frames up to the published one, and the pages of the database file that are
    /// not in them, are as they were when the watch began.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn holds(&self) -> Result<bool> {
        let after = sample(self.database, self.log, self.shm)?;
        Ok(match (&self.before.index, &after.index) {
            (Some(before), Some(now)) if is_valid(before) || is_valid(now) => {
                index_holds(before, now)
            }
            _ => self.before == after,
        })
    }
}

fn is_valid(info: &IndexInfo) -> bool {
    info.valid_header().is_some()
}

/// Whether the state that `before` publishes is still there while the index is as `now`.
fn index_holds(before: &IndexInfo, now: &IndexInfo) -> bool {
    let (Some(published), Some(header)) = (before.valid_header(), now.valid_header()) else {
        return false;
    };
    let is_generation = header.salts() == published.salts();
    let is_unwritten = header == published || now.attempted <= published.max_frame();
    before.is_settled && now.is_settled && is_generation && is_unwritten
}

fn sample(database: &dyn File, log: Option<&dyn File>, shm: Option<&dyn File>) -> Result<Sample> {
    Ok(Sample {
        index: shm.map(read_index).transpose()?.flatten(),
        database: start_of(database, DatabaseHeader::LEN)?,
        log: log.map(|log| start_of(log, LOG_HEADER_LEN)).transpose()?,
    })
}

/// The length of `file` and its first bytes.
fn start_of(file: &dyn File, len: usize) -> Result<(u64, Vec<u8>)> {
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok((file.len()?, bytes))
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::Checksum;
    use crate::index::WritableBlock;
    use crate::inspect::{HeaderState, inspect_index};
    use crate::storage::MemoryFile;
    use crate::types::PageSize;

    fn index(header: &IndexHeader, attempted: u32) -> IndexInfo {
        let block = WritableBlock::zeroed();
        block.store_header(header);
        block.set_attempted(attempted);
        inspect_index(&block)
    }

    fn committed(header: IndexHeader, frame: u32) -> IndexHeader {
        header.committed(PageSize::MIN, frame, 9, Checksum::ZERO)
    }

    #[test]
    fn state_holds_until_its_frames_or_pages_are_overwritten() {
        let published = committed(IndexHeader::empty().restarted(crate::Salts([1; 8])), 10);
        let later = committed(published, 15);
        let before = index(&published, 4);
        let holds =
            |header: &IndexHeader, attempted| index_holds(&before, &index(header, attempted));
        assert!(holds(&published, 4) && holds(&published, 10));
        assert!(
            holds(&later, 10),
            "commits and a checkpoint of the state itself"
        );
        assert!(
            !holds(&later, 11),
            "a page of the database file may be newer"
        );
        assert!(
            holds(&published, 99),
            "left by a restart that died: there is no such frame"
        );
        let restarted = published.restarted(crate::Salts([2; 8]));
        assert!(!holds(&restarted, 0) && !holds(&committed(restarted, 10), 0));
    }

    #[test]
    fn header_that_is_being_published_does_not_hold() {
        let published = committed(IndexHeader::empty(), 10);
        let sound = index(&published, 0);
        let mut differs = sound;
        differs.header = HeaderState::CopiesDiffer;
        differs.is_settled = false;
        assert!(!index_holds(&sound, &differs) && !index_holds(&differs, &sound));
    }

    #[test]
    fn files_without_an_index_hold_until_one_of_them_changes() {
        let database = MemoryFile::new("db", vec![0; 1024]);
        let log = MemoryFile::new("db-wal", vec![0; 32]);
        let watch = Watch::begin(&database, Some(&log), None).unwrap();
        assert!(watch.holds().unwrap() && watch.published().is_none());
        log.set_len(64).unwrap();
        assert!(!watch.holds().unwrap());
        let watch = Watch::begin(&database, Some(&log), None).unwrap();
        database.set_len(512).unwrap();
        assert!(!watch.holds().unwrap());
    }
}
