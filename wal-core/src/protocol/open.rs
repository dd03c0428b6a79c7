//! Finds out what a file is, before anything of it is trusted.

use std::io::IoSlice;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::{
    DatabaseHeader, DecodedHeader, DecodedStoreHeader, LOG_HEADER_LEN, LogHeader, PageStoreHeader,
};
use crate::protocol::config::{DatabaseKind, WalConfig};
use crate::storage::{File, FileSyncType, MayCarry, beside, open_with_room, sync_directory};
use crate::types::PageSize;

/// What an opener expects a database file to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// The kind of the file; `None` for a SQLite database or a page store, whichever it is.
    pub kind: Option<DatabaseKind>,
    /// The page size of a page store or of raw pages. `None` for what a store tells, and for
    /// [`PageSize::DEFAULT`] where nothing tells.
    pub page_size: Option<PageSize>,
    /// Whether nothing is going to be written.
    pub read_only: bool,
}

/// What the first page says.
enum Found {
    Sqlite(DatabaseHeader),
    PageStore(PageSize),
    Nothing,
    Unknown,
}

/// Looks at the database file and what lies beside it. The caller holds
/// SHARED or more on it. An empty file is one of pages if that kind is expected, and
/// [`is_unmade`]; otherwise it is refused, for stock SQLite may have just created it.
///
/// # Errors
/// [`Error::NotWalMode`], [`Error::HotJournal`], [`Error::CannotOpen`] for what is not
/// expected, [`Error::Corrupt`], [`Error::Io`]. No file was touched.
pub fn inspect(database: &dyn File, expected: Expected) -> Result<WalConfig> {
    let log_path = beside(database.path(), "-wal");
    let log_len = file_len(&log_path)?;
    // Also beside an empty file: rolling back would empty what we put there.
    refuse_hot_journal(database.path())?;
    let found = look_at(database)?;
    if matches!(found, Found::Nothing) && log_len > 0 {
        return Err(Error::cannot_open(
            database.path(),
            "it is empty, but a log lies beside it; restore the database, or remove the log",
        ));
    }
    let config = expected.check(database, &found)?;
    if let Found::Sqlite(header) = &found {
        // A log that is there counts even if the header does not say WAL,
        // as it does for SQLite (`pagerOpenWalIfPresent`).
        if !header.is_wal() && log_len == 0 {
            return Err(Error::NotWalMode {
                path: database.path().to_owned(),
            });
        }
        if header.write_version > 2 && !expected.read_only {
            let reason = "a newer version of SQLite wrote it; open it by `Options::read_only`";
            return Err(Error::cannot_open(database.path(), reason));
        }
    }
    if config.kind == DatabaseKind::RawPages && log_len > 0 {
        refuse_log_of_other_pages(database, &log_path, config.page_size)?;
    }
    // A checkpoint that was cut short can leave part of a page, with the
    // whole of it in the log.
    if log_len == 0 && !is_unmade(database, &config)? {
        refuse_part_of_a_page(database, &config)?;
    }
    Ok(config)
}

/// Looks at a database file that nobody writes, and at nothing beside it: the
/// file alone is the database, in whatever mode it was written
/// (`immutable=1`).
///
/// # Errors
/// [`Error::CannotOpen`] for what is not expected, [`Error::Corrupt`],
/// [`Error::Io`].
pub fn inspect_immutable(database: &dyn File, expected: Expected) -> Result<WalConfig> {
    let config = expected.check(database, &look_at(database)?)?;
    if !database.is_empty()? {
        refuse_part_of_a_page(database, &config)?;
    }
    Ok(config)
}

fn look_at(database: &dyn File) -> Result<Found> {
    let mut page_one = [0; DatabaseHeader::LEN];
    if database.read_at(&mut page_one, 0)? == 0 {
        return Ok(Found::Nothing);
    }
    if let Some(header) = DatabaseHeader::decode(&page_one) {
        return Ok(Found::Sqlite(header));
    }
    match PageStoreHeader::decode(&page_one) {
        DecodedStoreHeader::None => Ok(Found::Unknown),
        DecodedStoreHeader::Valid(header) => Ok(Found::PageStore(header.page_size)),
        DecodedStoreHeader::Damaged => Err(Error::corrupt(
            database.path(),
            "the header of the page store is damaged",
        )),
        DecodedStoreHeader::OtherVersion(version) => Err(Error::cannot_open(
            database.path(),
            format!("it is a page store of version {version}; open it by a newer version of wal"),
        )),
    }
}

impl Expected {
    /// Refuses what is not expected.
    fn check(self, database: &dyn File, found: &Found) -> Result<WalConfig> {
        use DatabaseKind::{PageStore, RawPages, Sqlite};
        let page_size = self.page_size.unwrap_or(PageSize::DEFAULT);
        let reason = match (found, self.kind) {
            (Found::Sqlite(header), None | Some(Sqlite)) => {
                let page_size = header.page_size().map_err(|_| {
                    Error::corrupt(database.path(), "its header holds no legal page size")
                })?;
                return match header.fault(page_size) {
                    Some(fault) => Err(Error::corrupt(database.path(), fault)),
                    None => Ok(WalConfig::new(Sqlite, page_size)),
                };
            }
            (&Found::PageStore(found), None | Some(PageStore)) => {
                if self.page_size.is_none_or(|wanted| wanted == found) {
                    return Ok(WalConfig::new(PageStore, found));
                }
                format!(
                    "it is a page store of {found}-byte pages; set `Options::page_size` to \
                 {found}, or leave it out"
                )
            }
            (Found::Nothing, Some(kind @ (PageStore | RawPages)))
            | (Found::Unknown, Some(kind @ RawPages)) => {
                return Ok(WalConfig::new(kind, page_size));
            }
            (Found::Sqlite(_), Some(_)) => {
                "it is a SQLite database, and pages were asked for; set `Options::kind` to Sqlite"
                    .to_owned()
            }
            (Found::PageStore(_), Some(_)) => {
                "it is a page store; set `Options::kind` to PageStore".to_owned()
            }
            (Found::Nothing, None | Some(Sqlite)) => {
                "it is empty; another program may be creating it. For a SQLite database run \
                 `PRAGMA journal_mode=WAL` on it by stock SQLite, then open it again; for a page \
                 store set `Options::kind` to PageStore"
                    .to_owned()
            }
            (Found::Unknown, _) => {
                "it is no database: it begins neither as a SQLite database nor as a page store. \
                 If it holds pages without a header, set `Options::kind` to RawPages and \
                 `Options::page_size`"
                    .to_owned()
            }
        };
        Err(Error::cannot_open(database.path(), reason))
    }
}

/// Raw pages do not tell their size, but the log beside them does.
fn refuse_log_of_other_pages(database: &dyn File, log: &Path, page_size: PageSize) -> Result<()> {
    let mut bytes = [0; LOG_HEADER_LEN];
    let read = open_with_room(MayCarry::NoLocks, || std::fs::File::open(log))
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    match read.map(|()| LogHeader::decode(&bytes)) {
        Ok(DecodedHeader::Valid(header, _)) if header.page_size != page_size => {
            let found = header.page_size;
            let reason = format!(
                "the log beside it has {found}-byte pages, and {page_size} were asked for; set \
                 `Options::page_size` to {found}"
            );
            Err(Error::cannot_open(database.path(), reason))
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        Err(e) => Err(Error::io(log, "read", e)),
    }
}

/// A part of a page at the end of a SQLite database is no part of it, as for SQLite.
fn refuse_part_of_a_page(database: &dyn File, config: &WalConfig) -> Result<()> {
    let page_size = config.page_size;
    let is_whole = database.len()?.is_multiple_of(u64::from(page_size.bytes()));
    if is_whole || config.kind == DatabaseKind::Sqlite {
        return Ok(());
    }
    let reason = format!(
        "it was cut: its length is no multiple of the page size {page_size}; restore it from a \
         backup{}",
        match config.kind {
            DatabaseKind::RawPages => ", or set `Options::page_size`",
            _ => "",
        }
    );
    Err(Error::cannot_open(database.path(), reason))
}

/// True if the file is to be made by [`create_pages`]: it is empty, or a [`create_pages`]
/// that died has written the header and no page.
///
/// # Errors
/// [`Error::Io`].
pub fn is_unmade(database: &dyn File, config: &WalConfig) -> Result<bool> {
    let len = database.len()?;
    let header_alone = PageStoreHeader::LEN as u64;
    Ok(len == 0 || config.kind == DatabaseKind::PageStore && len == header_alone)
}

/// Page 1 of a new file of pages.
pub fn first_page(config: &WalConfig) -> Vec<u8> {
    let page_size = config.page_size;
    let mut page = vec![0; page_size.len()];
    if config.kind == DatabaseKind::PageStore {
        let header = PageStoreHeader::new(page_size).encode();
        page[..PageStoreHeader::LEN].copy_from_slice(&header);
    }
    page
}

/// Makes a file for which [`is_unmade`] is true one of pages, durably, before any
/// log lies beside it: stock SQLite deletes a log beside an empty database.
/// The caller holds EXCLUSIVE: stock SQLite that has seen the file empty writes to it.
///
/// If the process dies here, the file is empty, or has the header of a page store and no
/// page, or is made. A new file is better made under another name ([`first_page`]).
///
/// # Errors
/// [`Error::Io`].
pub fn create_pages(database: &dyn File, config: &WalConfig) -> Result<()> {
    if config.kind == DatabaseKind::PageStore {
        let header = PageStoreHeader::new(config.page_size);
        database.write_all_at(&mut [IoSlice::new(&header.encode())], 0)?;
        database.sync(FileSyncType::Full)?;
    }
    // One call, so that no death leaves another part of a page.
    database.set_len(u64::from(config.page_size.bytes()))?;
    database.sync(FileSyncType::Full)?;
    sync_directory(database.path())
}

/// Refuses to make a database at `path`, where none was, beside what is left
/// of another one: stock SQLite deletes a log beside an empty database. A
/// database that another process has made meanwhile is none of its business.
///
/// # Errors
/// [`Error::CannotOpen`], [`Error::HotJournal`], [`Error::Io`].
pub fn refuse_leftovers(path: &Path) -> Result<()> {
    refuse_hot_journal(path)?;
    let log = beside(path, "-wal");
    // The log is looked at first: who makes a database makes its log later,
    // and nobody removes the database, so none now means none then.
    if file_len(&log)? == 0 || path.exists() {
        return Ok(());
    }
    let reason = "its database is not there; restore the database, or remove the log";
    Err(Error::cannot_open(&log, reason))
}

/// A rollback journal with a header means that a transaction of rollback mode
/// was cut short; rolling it back is stock SQLite's affair (`hasHotJournal`).
fn refuse_hot_journal(database: &Path) -> Result<()> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let path = beside(database, "-journal");
    let mut options = std::fs::File::options();
    // To open a pipe would wait for a writer.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut journal = match open_with_room(MayCarry::NoLocks, || options.open(&path)) {
        Ok(journal) => journal,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(&path, "open", e)),
    };
    let mut first = [0];
    let read = match journal.read(&mut first) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
        read => read.map_err(|e| Error::io(&path, "read", e))?,
    };
    if read == 1 && first != [0] {
        Err(Error::HotJournal { path })
    } else {
        Ok(())
    }
}

fn file_len(path: &Path) -> Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Error::io(path, "stat", e)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn with_a_log(database: Option<&[u8]>) -> Result<()> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        if let Some(content) = database {
            std::fs::write(&path, content).unwrap();
        }
        std::fs::write(beside(&path, "-wal"), [7; 32]).unwrap();
        refuse_leftovers(&path)
    }

    #[test]
    fn a_log_without_its_database_is_a_leftover() {
        assert!(matches!(with_a_log(None), Err(Error::CannotOpen { .. })));
    }

    #[test]
    fn an_opener_that_saw_no_database_heeds_who_made_it_meanwhile() {
        with_a_log(Some(&[0; 512])).unwrap();
    }

    /// Tells what is done to it.
    #[derive(Debug)]
    struct Told(std::path::PathBuf, std::sync::Mutex<Vec<String>>);

    impl Told {
        fn tell(&self, what: String) {
            self.1.lock().unwrap().push(what);
        }
    }

    impl File for Told {
        fn path(&self) -> &Path {
            &self.0
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<usize> {
            Ok(0)
        }
        fn write_all_at(&self, _: &mut [std::io::IoSlice<'_>], offset: u64) -> Result<()> {
            self.tell(format!("write at {offset}"));
            Ok(())
        }
        fn sync(&self, kind: FileSyncType) -> Result<()> {
            self.tell(format!("sync {kind:?}"));
            Ok(())
        }
        fn len(&self) -> Result<u64> {
            Ok(0)
        }
        fn set_len(&self, len: u64) -> Result<()> {
            self.tell(format!("set the length to {len}"));
            Ok(())
        }
    }

    /// Else a power failure could leave a log beside an empty file, which stock SQLite
    /// deletes.
    #[test]
    fn page_store_is_durable_by_name_and_content_once_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let make = |path: std::path::PathBuf| {
            let file = Told(path, std::sync::Mutex::default());
            let config = WalConfig::new(DatabaseKind::PageStore, PageSize::MIN);
            let made = create_pages(&file, &config);
            (made, file.1.into_inner().unwrap())
        };
        let steps = [
            "write at 0",
            "sync Full",
            "set the length to 512",
            "sync Full",
        ];
        let (made, told) = make(directory.path().join("pages"));
        made.unwrap();
        assert_eq!(told, steps);
        let (made, told) = make(directory.path().join("missing").join("pages"));
        assert!(made.is_err(), "its directory cannot have been synced");
        assert_eq!(told, steps);
    }
}
