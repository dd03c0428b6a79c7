//! Copies the files of a database that somebody has open.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

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
