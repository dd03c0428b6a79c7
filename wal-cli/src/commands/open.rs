//! Opens a database for a command that works on it as its other users do.

use std::path::Path;

use wal::{Database, Options};
use wal_shm::inspect::DatabaseFile;

use crate::look::resolve;

/// Opens the database at `path`, which is there. It does nothing by itself: no automatic
/// checkpoint, and no side file where the users of the database have none.
pub(super) fn open(path: &Path) -> anyhow::Result<Database> {
    let path = resolve(path)?;
    let options = Options::new().create(false).auto_checkpoint(0);
    let has_side_file = DatabaseFile::Side.path(&path).exists();
    Ok(options.side_file(has_side_file).open(path)?)
}
