//! Whether the file system of a database can be trusted.

use std::fs::File;
use std::path::Path;

use wal_core::{Error, Result};

use crate::file_system;

/// What is known of the file system that a file is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FileSystem {
    /// Nothing speaks against it.
    Trusted,
    /// A network or host-shared file system of this name: locks and shared mappings may not
    /// reach all users of the database.
    Network(&'static str),
    /// An overlay: it copies a file when it is first opened for writing. A process that opened
    /// the file before keeps the one from which it was copied.
    CopiesUp,
}

impl FileSystem {
    /// The file system of the file or directory at `path`. The file is not opened for reading,
    /// so the locks of a stock SQLite in this process stay.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not there.
    ///
    /// ```
    /// use wal_shm::inspect::FileSystem;
    ///
    /// if let FileSystem::Network(name) = FileSystem::of("/".as_ref())? {
    ///     println!("the root is on {name}");
    /// }
    /// # Ok::<(), wal_core::Error>(())
    /// ```
    pub fn of(path: &Path) -> Result<Self> {
        let file = open(path).map_err(|e| Error::io(path, "open", e))?;
        if let Some(name) = file_system::network_name_at(path, &file)? {
            return Ok(FileSystem::Network(name));
        }
        Ok(match file_system::copies_up(path, &file)? {
            true => FileSystem::CopiesUp,
            false => FileSystem::Trusted,
        })
    }
}

#[cfg(target_os = "linux")]
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let flags = libc::O_PATH | libc::O_CLOEXEC;
    File::options().read(true).custom_flags(flags).open(path)
}

/// Nothing is known about file systems here: the directory stands for the file, whose close
/// would drop locks.
#[cfg(not(target_os = "linux"))]
fn open(path: &Path) -> std::io::Result<File> {
    File::open(path.parent().unwrap_or(path))
}
