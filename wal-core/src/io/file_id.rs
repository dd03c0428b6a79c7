//! Which file it is, whatever it is called.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The device and the inode of a file. While a descriptor of the file is open, no other file
/// has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that `metadata` is of.
    pub fn of(metadata: &Metadata) -> Self {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// The file that `stat` is of.
    #[allow(clippy::unnecessary_cast)] // The fields differ between systems.
    pub(super) fn of_stat(stat: &nix::sys::stat::FileStat) -> Self {
        FileId {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }

    /// The file at `path`, `None` if there is none. A symbolic link is a file of its own, as
    /// [`super::OsFile`] follows none.
    ///
    /// # Errors
    /// What `lstat` returns, other than that there is no such file.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
