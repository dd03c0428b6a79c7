//! Opens a database for a command that works on it as its other users do.

use std::path::Path;
use std::time::Duration;

use wal::{Database, Options};
use wal_shm::inspect::DatabaseFile;

/// How long an owner of a database, as one in EXCLUSIVE locking mode, is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the database at `path`, which is there and has no symbolic links. An owner is waited for
/// as long as `patience`. It does nothing by itself: no automatic checkpoint, and no side file
/// where the users of the database have none.
pub(super) fn open(path: &Path, patience: Duration) -> wal::Result<Database> {
    let options = Options::new().create(false).auto_checkpoint(0);
    let has_side_file = DatabaseFile::Side.path(path).exists();
    options
        .busy_timeout(patience)
        .side_file(has_side_file)
        .open(path)
}
