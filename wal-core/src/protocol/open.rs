//! Finds out what a file is, before anything of it is trusted.

use std::path::Path;

use super::WalConfig;
use crate::error::{Error, Result};
use crate::format::DatabaseHeader;
use crate::io::{File, FileSyncType, MayCarry, beside, open_with_room, sync_directory};
use crate::types::PageSize;

/// What a database file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DatabaseKind {
    /// A SQLite database: stock SQLite can use it at the same time, and page 1
    /// is kept as SQLite wants it.
    Sqlite,
    /// Pages of the application's own.
    PageStore,
}

/// Looks at the database file and what lies beside it. The caller holds
/// SHARED or more on it.
///
/// `page_size` is the size of a page store; a SQLite database tells its own.
///
/// # Errors
/// [`Error::NotWalMode`], [`Error::HotJournal`], [`Error::InvalidPageSize`],
/// [`Error::CannotOpen`] for what is no database, [`Error::Io`]. No file was
/// touched.
pub fn inspect(database: &dyn File, page_size: PageSize) -> Result<WalConfig> {
    let len = database.len()?;
    let log_len = file_len(&beside(database.path(), "-wal"))?;
    let mut page_one = [0; DatabaseHeader::LEN];
    database.read_at(&mut page_one, 0)?;
    // Also beside an empty file: rolling back would empty what we put there.
    refuse_hot_journal(database.path())?;
    let config = match DatabaseHeader::decode(&page_one) {
        Some(header) => {
            // A log that is there counts even if the header does not say WAL,
            // as it does for SQLite (`pagerOpenWalIfPresent`).
            if !header.is_wal() && log_len == 0 {
                return Err(Error::NotWalMode {
                    path: database.path().to_owned(),
                });
            }
            WalConfig::new(DatabaseKind::Sqlite, legal_page_size(database, &header)?)
        }
        None => WalConfig::new(DatabaseKind::PageStore, page_size),
    };
    if len == 0 && log_len > 0 {
        return Err(Error::cannot_open(
            database.path(),
            "it is empty, but a log lies beside it; restore the database, or remove the log",
        ));
    }
    // A checkpoint that was cut short can leave part of a page, with the
    // whole of it in the log.
    if log_len == 0 {
        refuse_part_of_a_page(database, config.page_size)?;
    }
    Ok(config)
}

/// Looks at a database file that nobody writes, and at nothing beside it: the
/// file alone is the database, in whatever mode it was written
/// (`immutable=1`).
///
/// # Errors
/// [`Error::CannotOpen`] for what is no database, [`Error::Corrupt`],
/// [`Error::Io`].
pub fn inspect_immutable(database: &dyn File, page_size: PageSize) -> Result<WalConfig> {
    let mut page_one = [0; DatabaseHeader::LEN];
    database.read_at(&mut page_one, 0)?;
    let config = match DatabaseHeader::decode(&page_one) {
        Some(header) => WalConfig::new(DatabaseKind::Sqlite, legal_page_size(database, &header)?),
        None => WalConfig::new(DatabaseKind::PageStore, page_size),
    };
    refuse_part_of_a_page(database, config.page_size)?;
    Ok(config)
}

fn legal_page_size(database: &dyn File, header: &DatabaseHeader) -> Result<PageSize> {
    let page_size = header.page_size();
    page_size.map_err(|_| Error::corrupt(database.path(), "its header holds no legal page size"))
}

fn refuse_part_of_a_page(database: &dyn File, page_size: PageSize) -> Result<()> {
    if database.len()?.is_multiple_of(u64::from(page_size.bytes())) {
        return Ok(());
    }
    let reason =
        format!("it is no database: its length is no multiple of the page size {page_size}");
    Err(Error::cannot_open(database.path(), reason))
}

/// Makes an empty file a page store of one page of zeros, durably, before any
/// log lies beside it: stock SQLite deletes a log beside an empty database.
/// The caller holds a lock under which nobody else does the same.
///
/// # Errors
/// [`Error::Io`].
pub fn create_page_store(database: &dyn File, page_size: PageSize) -> Result<()> {
    // One call, so that no death leaves a part of a page.
    database.set_len(u64::from(page_size.bytes()))?;
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
    let path = beside(database, "-journal");
    let mut journal = match open_with_room(MayCarry::NoLocks, || std::fs::File::open(&path)) {
        Ok(journal) => journal,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(&path, "open", e)),
    };
    let mut first = [0];
    let read = journal
        .read(&mut first)
        .map_err(|e| Error::io(&path, "read", e))?;
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
            let made = create_page_store(&file, PageSize::MIN);
            (made, file.1.into_inner().unwrap())
        };
        let steps = ["set the length to 512", "sync Full"];
        let (made, told) = make(directory.path().join("pages"));
        made.unwrap();
        assert_eq!(told, steps);
        let (made, told) = make(directory.path().join("missing").join("pages"));
        assert!(made.is_err(), "its directory cannot have been synced");
        assert_eq!(told, steps);
    }
}
