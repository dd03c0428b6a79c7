//! Which kind of file a test has.

use std::path::Path;

use wal::DatabaseKind;
use wal_core::storage::{File, OpenMode, OsFile};

/// The kind as which a test opens `path`: a SQLite database if one is there, else raw pages, of
/// which a test may fill page 1 too.
#[must_use]
pub fn kind_at(path: &Path) -> DatabaseKind {
    let mut magic = [0; 16];
    // Parked, because closing it would drop the locks of a stock SQLite in this process.
    let read = OsFile::open_for_locks(path, OpenMode::ReadOnly)
        .and_then(|file| file.read_at(&mut magic, 0));
    match read {
        Ok(_) if magic == *b"SQLite format 3\0" => DatabaseKind::Sqlite,
        _ => DatabaseKind::RawPages,
    }
}
