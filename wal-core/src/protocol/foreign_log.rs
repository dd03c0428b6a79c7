//! Whether a log can follow from the database file beside which it lies.
//!
//! A database that is restored from a backup beside an old log is the commonest way to lose
//! one: the log is valid by its own checksums, and its pages replace those of the backup.
//! Nothing in the format ties the two files together, but page 1 of both can be compared.
//!
//! # What is compared
//! A writer that changes page 1 of a SQLite database sets the change counter to one more than
//! that of the page 1 that it last read from the files, so the counters of page 1 in a log go up
//! by one or stay (`pager_write_changecounter`). Page 1 of the database file is then
//! - the one that the first page 1 of the log was made from: its counter is one less, or the
//!   same if one connection made both; or
//! - one that a checkpoint has moved: its header is that of a page 1 of the log.
//!
//! Where the log has no page 1, no commit of it has changed the size of the database.
//!
//! # What is not noticed
//! A log without a page 1 beside a backup of the same size; one whose first change counter
//! happens to follow; and any log while a process has the database open, whose index says what
//! the log is. A page store has a name in its header instead of a change counter, so a log with a page 1
//! of another store is noticed; a copy of a store has the same name. Raw pages have neither.

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::format::{
    self, DatabaseHeader, FRAME_HEADER_LEN, LogScan, PageStoreHeader, frame_offset,
};
use crate::inspect::{Content, DatabaseInfo, read_database};
use crate::protocol::config::DatabaseKind;
use crate::protocol::handle::Wal;
use crate::protocol::write::page_one;
use crate::storage::File;
use crate::types::{FrameNo, PageNo, PageSize};

/// The part of page 1 that says what the file is.
type Head = [u8; DatabaseHeader::LEN];

const _: () = assert!(PageStoreHeader::LEN <= DatabaseHeader::LEN);

impl<C: WalCoordination> Wal<C> {
    /// Reports a log that does not seem to follow from the database file, or refuses it. The
    /// caller holds `WRITE` and `CKPT`, so neither file changes; a private index may be behind
    /// its log.
    pub(super) fn check_log_follows(&self, scan: &LogScan) -> Result<()> {
        let found = pair(self).why_log_does_not_follow(scan);
        if !matches!(found, Ok(None))
            && self.config().read_only
            && pair(self).log_has_changed(scan)?
        {
            // A writer has come. The reader asks afterwards whether this is the index of the log.
            return Ok(());
        }
        let Some(reason) = found? else {
            return Ok(());
        };
        observe!(self, ForeignLog { reason });
        match self.config().strict_log {
            false => Ok(()),
            true => Err(Error::ForeignLog {
                path: self.storage().log().path().to_owned(),
                reason,
            }),
        }
    }

    /// Refuses a page 1 in `frame` of the log that is none of this kind of database, before a
    /// checkpoint moves it over the one that is there. The caller keeps the frame in the log.
    pub(super) fn check_page_one_in_log(&self, frame: FrameNo) -> Result<()> {
        pair(self).check_page_one(frame)
    }
}

/// Why the committed frames of `log`, which `scan` describes, cannot follow from `database`, in
/// the words of an error; `None` if nothing speaks against it. What it compares, and what it
/// cannot notice, is listed in docs/crash-safety.md.
///
/// An empty database is taken for foreign beside a log of SQLite only: stock SQLite removes
/// that log. The first commit of a page store can be in the log alone.
///
/// The caller sees to it that neither file changes, or asks again: a checkpoint or a restart
/// of the log between two reads looks like a foreign log.
///
/// # Errors
/// [`crate::Error::Io`].
///
/// ```
/// use wal_core::format::scan;
/// use wal_core::inspect::why_log_does_not_follow;
/// use wal_core::storage::MemoryFile;
///
/// let (database, log) = (MemoryFile::new("db", vec![]), MemoryFile::new("db-wal", vec![]));
/// if let Some(scan) = scan(&log)? {
///     println!("{:?}", why_log_does_not_follow(&database, &log, &scan)?);
/// }
/// # Ok::<(), wal_core::Error>(())
/// ```
pub fn why_log_does_not_follow(
    database: &dyn File,
    log: &dyn File,
    scan: &LogScan,
) -> Result<Option<&'static str>> {
    if scan.pages.is_empty() {
        return Ok(None);
    }
    let info = read_database(database)?;
    let mut pair = Pair {
        database,
        log,
        kind: DatabaseKind::RawPages,
        page_size: scan.header.page_size,
    };
    let newest = frames_of_page_one(scan).next_back();
    if info.content == Content::Empty {
        let head = newest.map(|newest| pair.head_in_log(newest)).transpose()?;
        let may_be_first = head.is_some_and(|head| DatabaseHeader::decode(&head).is_none());
        return Ok((!may_be_first).then_some("the database file is empty"));
    }
    let Some(kind) = kind_of(&info) else {
        return Ok(None);
    };
    if info.page_size().is_some_and(|size| size != pair.page_size) {
        return Ok(Some("its page size is not that of the database"));
    }
    pair.kind = kind;
    let fault = newest.map(|newest| pair.fault_of_page_one(newest));
    if let Some(fault) = fault.transpose()?.flatten() {
        return Ok(Some(fault));
    }
    pair.why_counters_do_not_follow(scan)
}

fn kind_of(info: &DatabaseInfo) -> Option<DatabaseKind> {
    match info.content {
        Content::Sqlite(_) => Some(DatabaseKind::Sqlite),
        Content::PageStore(_) => Some(DatabaseKind::PageStore),
        _ => None,
    }
}

/// The two files of a database.
struct Pair<'a> {
    database: &'a dyn File,
    log: &'a dyn File,
    kind: DatabaseKind,
    /// The page size of the log.
    page_size: PageSize,
}

impl Pair<'_> {
    fn check_page_one(&self, frame: FrameNo) -> Result<()> {
        match self.fault_of_page_one(frame)? {
            Some(fault) => {
                let reason = format!("page 1 in frame {}: {fault}", frame.get());
                Err(Error::corrupt(self.log.path(), reason))
            }
            None => Ok(()),
        }
    }

    fn fault_of_page_one(&self, frame: FrameNo) -> Result<Option<&'static str>> {
        if self.kind == DatabaseKind::RawPages {
            return Ok(None);
        }
        let head = self.head_in_log(frame)?;
        let fault = page_one::fault(self.kind, self.page_size, &head);
        Ok(fault.or(self.other_store(&head)?))
    }

    /// That a page store has another name than the page 1 that begins with `head`, if so.
    fn other_store(&self, head: &Head) -> Result<Option<&'static str>> {
        if self.kind != DatabaseKind::PageStore {
            return Ok(None);
        }
        let mut in_file: Head = [0; DatabaseHeader::LEN];
        self.database.read_at(&mut in_file, 0)?;
        let differs = PageStoreHeader::decode(&in_file) != PageStoreHeader::decode(head);
        Ok(differs.then_some("it is that of another page store; move the log to its own file"))
    }

    fn why_log_does_not_follow(&self, scan: &LogScan) -> Result<Option<&'static str>> {
        if let Some(newest) = frames_of_page_one(scan).next_back() {
            self.check_page_one(newest)?;
        }
        self.why_counters_do_not_follow(scan)
    }

    fn why_counters_do_not_follow(&self, scan: &LogScan) -> Result<Option<&'static str>> {
        if self.kind != DatabaseKind::Sqlite || scan.pages.is_empty() {
            return Ok(None);
        }
        let mut page_ones = frames_of_page_one(scan);
        let mut head: Head = [0; DatabaseHeader::LEN];
        let database = self.database;
        database.read_at(&mut head, 0)?;
        let Some(header) = DatabaseHeader::decode(&head) else {
            return Ok(None);
        };
        let Some(first) = page_ones.next() else {
            let page = u64::from(self.page_size.bytes());
            let in_file = u32::try_from(database.len()?.div_ceil(page)).unwrap_or(u32::MAX);
            let fits = |count| (count..=in_file.max(count)).contains(&scan.page_count);
            let differs = header.page_count.is_some_and(|count| !fits(count));
            return Ok(differs.then_some("its commits are of a database of another size"));
        };
        let first_head = self.head_in_log(first)?;
        let follows = DatabaseHeader::decode(&first_head).is_some_and(|in_log| {
            matches!(
                in_log.change_counter.wrapping_sub(header.change_counter),
                0 | 1
            )
        });
        if follows || first_head == head {
            return Ok(None);
        }
        // A checkpoint moves a late one rather than an early one.
        for frame in page_ones.rev() {
            if self.head_in_log(frame)? == head {
                return Ok(None);
            }
        }
        Ok(Some(
            "its change counters do not continue that of the database",
        ))
    }

    fn head_in_log(&self, frame: FrameNo) -> Result<Head> {
        let mut head: Head = [0; DatabaseHeader::LEN];
        let offset = frame_offset(frame, self.page_size) + FRAME_HEADER_LEN as u64;
        self.log.read_at(&mut head, offset)?;
        Ok(head)
    }

    fn log_has_changed(&self, before: &LogScan) -> Result<bool> {
        let now = format::scan(self.log)?;
        Ok(!now.is_some_and(|now| {
            now.header.salts == before.header.salts && now.checksum == before.checksum
        }))
    }
}

/// The committed frames of page 1.
fn frames_of_page_one(scan: &LogScan) -> impl DoubleEndedIterator<Item = FrameNo> + Clone + '_ {
    let of_page_one = |(before, page): (usize, &u32)| match *page == PageNo::ONE.get() {
        true => FrameNo::new(u32::try_from(before).ok()?.checked_add(1)?),
        false => None,
    };
    scan.pages.iter().enumerate().filter_map(of_page_one)
}

fn pair<C: WalCoordination>(wal: &Wal<C>) -> Pair<'_> {
    Pair {
        database: wal.storage().database(),
        log: wal.storage().log(),
        kind: wal.config().kind,
        page_size: wal.config().page_size,
    }
}
