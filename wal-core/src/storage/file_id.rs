//! Which file it is, whatever it is called.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

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
}
