//! The names of a fixture's files, and copying them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The database file of every fixture.
pub(crate) const DATABASE: &str = "app.db";
/// Its log.
pub(crate) const LOG: &str = "app.db-wal";
/// Its wal-index.
pub(crate) const INDEX: &str = "app.db-shm";
/// Its rollback journal.
pub(crate) const JOURNAL: &str = "app.db-journal";

/// Copies the named files from one folder to another.
///
/// A live database is copied like any other file. Closing what was opened for
/// that drops every POSIX lock that this process holds on the file, SQLite's
/// too; the databases copied here have no second process to be kept out.
pub(crate) fn copy_files(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    fs::create_dir_all(to)?;
    for name in names {
        fs::copy(from.join(name), to.join(name))
            .with_context(|| format!("copy {name} from {}", from.display()))?;
    }
    Ok(())
}

/// Copies all files of a folder that has no folders in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
