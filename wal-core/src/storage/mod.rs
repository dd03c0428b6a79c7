//! Files behind a trait, so that the main file can be another program's, the
//! disk can be a simulation, and tests can make any call fail.
#![expect(
    clippy::disallowed_types,
    reason = "models have files of their own, so what is here is in none"
)]

mod byte_lock;
mod claim;
mod descriptor;
mod file_id;
mod files;
mod held_path;
#[cfg(target_os = "linux")]
mod log_watch;
mod low_numbers;
mod mapped;
mod memory;
mod names;
mod new_file;
mod now_and_then;
mod open;
mod os;
mod parking;
mod read_only;
mod writeback;

use std::fmt;
use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;

use crate::error::Result;

pub use byte_lock::{ByteLocks, Conflict, LockKind, database_bytes, shm_bytes};
pub use claim::Claim;
pub use file_id::FileId;
pub use files::OsStorage;
pub use held_path::{Found, HeldPath, beside};
#[cfg(target_os = "linux")]
pub use log_watch::LogWatch;
pub(crate) use low_numbers::MayCarry;
pub use mapped::MappedFile;
pub use memory::MemoryFile;
pub use names::refuse_other_names;
pub use new_file::{Naming, NewFile, new_file_leftovers};
pub use now_and_then::NowAndThen;
pub use open::OpenMode;
pub use os::{OsFile, sync_directory};
pub(crate) use parking::open_with_room;
#[doc(hidden)]
pub use parking::parked_elsewhere;
pub use read_only::{ReadOnlyLog, ReadOnlyStorage};

/// How much of a file a sync makes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FileSyncType {
    /// The contents and the length (`fdatasync`).
    Data,
    /// The contents and all that is known of the file (`fsync`; on Apple
    /// systems the one that reaches the medium).
    Full,
}

/// One file. Its methods can be called by many threads at a time.
pub trait File: Send + Sync + fmt::Debug {
    /// The name of the file, for messages.
    fn path(&self) -> &Path;

    /// Fills `buffer` from `offset` on and tells how many bytes there were:
    /// fewer than asked for only at the end of the file.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// Writes all of `buffers`, one behind the other, from `offset` on.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; any part may have been written.
    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()>;

    /// Makes durable what was written before.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; what is durable is then unknown.
    fn sync(&self, kind: FileSyncType) -> Result<()>;

    /// Lets the system begin to write `range` to the disk, for the sake of a sync
    /// that follows. Nothing is durable by that.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if something in it cannot be written, which is then
    /// as after a sync that failed.
    fn start_writeback(&self, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    /// Lets the system tell what it could not write before, if it has not told
    /// yet, and forgets it: for who writes all of that again.
    fn forget_failures(&self) {}

    /// The length in bytes.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn len(&self) -> Result<u64>;

    /// True if the file has no bytes.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or fills it with zeros, to `len` bytes.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn set_len(&self, len: u64) -> Result<()>;

    /// Says that the file is about to be made `len` bytes long by writes, so that
    /// it can make room for all of them at once (`SQLITE_FCNTL_SIZE_HINT`).
    fn hint_len(&self, len: u64) {
        let _ = len;
    }

    /// How many more bytes the file system has room for, where it can tell: a hint,
    /// for others may use the room before.
    fn free_space(&self) -> Option<u64> {
        None
    }

    /// The file as memory, if it can be mapped and mapping is wanted. It is used by an
    /// attachment that was made by [`crate::protocol::Wal::new_mapped`], whose maker
    /// promises that it is a mapping of this very file.
    fn mapped(&self) -> Option<&MappedFile> {
        None
    }
}

/// How often files are looked for where they were opened. Finding one gone is
/// always too late for what was written before, so it need not be sooner.
pub const LOOK_IN_PLACE_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// The two files of one database, as the protocol needs them. Opening them,
/// and the order in which that is allowed, is the backend's affair.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The database file.
    fn database(&self) -> &dyn File;

    /// The log. It may have been made empty by the backend.
    fn log(&self) -> &dyn File;

    /// Refuses if a file is no longer where it was opened, so that nothing
    /// is written to a file that nobody else sees. Asked before each write
    /// transaction and checkpoint; it may look now and then only.
    ///
    /// # Errors
    /// [`crate::Error::Replaced`], [`crate::Error::Io`].
    fn check_in_place(&self) -> Result<()> {
        Ok(())
    }

    /// Called when the wal-index was rebuilt from the log, of which `frames` are
    /// committed; the caller holds WRITE. For an engine that notes it
    /// (`SQLITE_NOTICE_RECOVER_WAL`).
    fn log_recovered(&self, frames: u32) {
        let _ = frames;
    }

    /// Removes the log from the file system. The caller owns the database and
    /// the log is backfilled.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    fn remove_log(&self) -> Result<()>;

    /// Makes the removal of the log durable. Storage whose removals are durable
    /// at once has nothing to do.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; after a power failure the log may be there again.
    fn sync_directory(&self) -> Result<()> {
        Ok(())
    }
}
