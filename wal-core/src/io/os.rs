//! A file of the operating system.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::uio::pwritev;

use super::mapped::MappedFile;
use super::{File, FileSyncType, parking, writeback};
use crate::error::{Error, Result};
use crate::fork::ClosedInChild;

/// How many buffers one vectored write takes (`IOV_MAX` on Linux).
const MAX_BUFFERS: usize = 1024;
/// How many bytes, unless one buffer has more. Linux may keep what one write
/// brings in one piece of its cache, and goes through all of that for each page
/// that is written there later.
const MAX_BYTES: usize = 512 << 10;

/// Whether a file may be made by opening it, and written.
#[derive(Clone, Copy, Debug)]
pub enum OpenMode<'a> {
    /// It must be there.
    Existing,
    /// It is made if it is not there, for everyone that the system's mask
    /// allows.
    Create,
    /// It is made if it is not there, with the owner and the permissions of
    /// this file (`findCreateFileMode`).
    CreateLike(&'a OsFile),
    /// The same, and it must not be there.
    NewLike(&'a OsFile),
    /// As [`OpenMode::CreateLike`] with the file at this path as the model, which another program
    /// has open.
    CreateLikeAt(&'a Path),
    /// It must be there, and is opened for reading alone. Shared locks can be
    /// taken on it, exclusive ones cannot.
    ReadOnly,
}

impl OpenMode<'_> {
    fn writes(self) -> bool {
        !matches!(self, OpenMode::ReadOnly)
    }

    /// What a new file is to be like.
    fn model(self) -> io::Result<fs::Metadata> {
        match self {
            OpenMode::CreateLike(model) | OpenMode::NewLike(model) => model.as_file().metadata(),
            OpenMode::CreateLikeAt(path) => fs::metadata(path),
            OpenMode::Existing | OpenMode::Create | OpenMode::ReadOnly => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }
}

/// A file of the operating system.
#[derive(Debug)]
pub struct OsFile {
    path: PathBuf,
    /// Emptied only by `drop`.
    file: Option<Arc<fs::File>>,
    mapped: Option<MappedFile>,
    /// Set for a file that carries locks.
    in_child: Option<ClosedInChild>,
    close_for_real: AtomicBool,
    /// The file may be new, so its name is made durable by its first sync.
    name_is_new: AtomicBool,
    /// Set by a sync that failed, and locked by each one. The system tells a
    /// descriptor of lost pages once, and those who share it have to know.
    sync_failed: Mutex<bool>,
}

impl OsFile {
    /// Opens a file that carries no locks.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses, [`Error::CannotOpen`] if it is no
    /// regular file.
    pub fn open(path: &Path, mode: OpenMode<'_>) -> Result<Self> {
        refuse_pipe(path, mode)?;
        let file = open(path, mode).map_err(|e| Error::io(path, "open", e))?;
        let opened = Self::wrap(path, file, None)?;
        let existing = matches!(mode, OpenMode::Existing | OpenMode::ReadOnly);
        opened.name_is_new.store(!existing, Ordering::Relaxed);
        Ok(opened)
    }

    /// Opens a file on which locks are taken. Its descriptor is closed in
    /// forked children, and parked instead of closed in this process while anybody else in
    /// it has the file open, unless [`OsFile::close_for_real`] says otherwise.
    ///
    /// # Errors
    /// As [`OsFile::open`], and [`Error::CannotOpen`] if the process has some thousand
    /// of them.
    pub fn open_for_locks(path: &Path, mode: OpenMode<'_>) -> Result<Self> {
        let parked = parking::reuse(path, mode.writes()).map_err(|e| Error::io(path, "stat", e))?;
        let (file, in_child) = match parked {
            Some(parked) => parked,
            None => {
                refuse_pipe(path, mode)?;
                // Before it is opened: to close it again would drop the locks of others.
                let in_child = ClosedInChild::reserve().ok_or_else(|| {
                    let reason = "this process has used too many databases; use another process";
                    Error::cannot_open(path, reason)
                })?;
                let file = open(path, mode).map_err(|e| Error::io(path, "open", e))?;
                in_child.register(file.as_fd());
                (file, in_child)
            }
        };
        Self::wrap(path, file, Some(in_child))
    }

    // What is refused is taken from the table of children before it is closed, as
    // arguments are dropped from the last to the first.
    fn wrap(path: &Path, file: fs::File, in_child: Option<ClosedInChild>) -> Result<Self> {
        let metadata = file.metadata().map_err(|e| Error::io(path, "fstat", e))?;
        if !metadata.is_file() {
            return Err(not_regular(path));
        }
        Ok(OsFile {
            path: path.to_owned(),
            file: Some(Arc::new(file)),
            mapped: None,
            in_child,
            close_for_real: AtomicBool::new(false),
            name_is_new: AtomicBool::new(false),
            sync_failed: Mutex::new(false),
        })
    }

    /// Makes the file's bytes available as memory, if `mapped`.
    #[must_use]
    pub fn with_mapping(mut self, mapped: bool) -> Self {
        let file = self.file.as_ref().filter(|_| mapped);
        self.mapped = file.map(|file| MappedFile::new(self.path.clone(), file.clone()));
        self
    }

    /// The file, for calls that the [`File`] trait does not have.
    pub fn as_file(&self) -> &fs::File {
        match &self.file {
            Some(file) => file,
            // Only `drop` empties the field, and nobody can call it then.
            None => unreachable!(),
        }
    }

    fn sync_failed(&self) -> MutexGuard<'_, bool> {
        self.sync_failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that nobody else in this process ever holds locks on the file, so that
    /// dropping it may close the descriptor.
    pub fn close_for_real(&self) {
        self.close_for_real.store(true, Ordering::Relaxed);
    }

    /// Refuses if the path no longer leads to this very file.
    ///
    /// # Errors
    /// [`Error::Replaced`], or [`Error::Io`] if the system does not tell.
    pub fn check_in_place(&self) -> Result<()> {
        if self.is_still_at_its_path()? {
            return Ok(());
        }
        Err(Error::Replaced {
            path: self.path.clone(),
        })
    }

    /// True if the path still leads to this very file.
    ///
    /// # Errors
    /// [`Error::Io`] if the system does not tell.
    pub fn is_still_at_its_path(&self) -> Result<bool> {
        let here = self
            .as_file()
            .metadata()
            .map_err(|e| Error::io(&self.path, "fstat", e))?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(&self.path, "stat", e)),
        }
    }
}

impl Drop for OsFile {
    fn drop(&mut self) {
        self.mapped = None;
        let Some(file) = self.file.take().and_then(Arc::into_inner) else {
            return;
        };
        match self.in_child.take() {
            // The number belongs to nobody, or to another file of the child.
            Some(in_child) if in_child.is_closed() => {
                let _ = file.into_raw_fd();
            }
            Some(in_child) if !self.close_for_real.load(Ordering::Relaxed) => {
                parking::park(file, in_child);
            }
            _ => {}
        }
    }
}

/// To open a pipe for reading alone waits until somebody writes to it.
fn refuse_pipe(path: &Path, mode: OpenMode<'_>) -> Result<()> {
    let is_pipe = || fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    match matches!(mode, OpenMode::ReadOnly) && is_pipe() {
        true => Err(not_regular(path)),
        false => Ok(()),
    }
}

fn not_regular(path: &Path) -> Error {
    Error::cannot_open(path, "it is not a regular file")
}

fn open(path: &Path, mode: OpenMode<'_>) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    // The database's path has no links any more; one in place of a file beside
    // it is not followed, as by SQLite.
    options
        .read(true)
        .write(mode.writes())
        .custom_flags(libc::O_NOFOLLOW);
    match mode {
        OpenMode::Existing | OpenMode::ReadOnly => options.open(path),
        OpenMode::Create => options.create(true).truncate(false).mode(0o644).open(path),
        OpenMode::CreateLike(_) | OpenMode::CreateLikeAt(_) | OpenMode::NewLike(_) => {
            let must_be_new = matches!(mode, OpenMode::NewLike(_));
            // Existing files keep their owner and permissions.
            if !must_be_new {
                match options.open(path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => return other,
                }
            }
            let like = mode.model()?;
            let permissions = like.mode() & 0o777;
            let file = options
                .create(true)
                .create_new(must_be_new)
                .truncate(false)
                .mode(permissions)
                .open(path)?;
            let made = file.metadata()?;
            if made.mode() & 0o777 != permissions {
                // The mask of the process took bits away.
                let permissions = fs::Permissions::from_mode(permissions);
                if let Err(e) = file.set_permissions(permissions) {
                    if must_be_new {
                        let _ = fs::remove_file(path);
                    }
                    return Err(e);
                }
            }
            if (made.uid(), made.gid()) != (like.uid(), like.gid())
                && nix::unistd::geteuid().is_root()
            {
                // A root without the right to do that (in a container) goes on
                // with a file of its own, as SQLite's does (`robustFchown`).
                let _ = std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()));
            }
            Ok(file)
        }
    }
}

impl File for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self
                .as_file()
                .read_at(&mut buffer[done..], offset + done as u64)
            {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(&self.path, "read", e)),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], mut offset: u64) -> Result<()> {
        let mut rest = buffers;
        while !rest.is_empty() {
            let batch = at_once(rest);
            let at = i64::try_from(offset).map_err(|_| {
                Error::io(
                    &self.path,
                    "write",
                    io::Error::from(io::ErrorKind::FileTooLarge),
                )
            })?;
            match pwritev(self.as_file(), &rest[..batch], at) {
                Ok(0) => {
                    let e = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(Error::io(&self.path, "write", e));
                }
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(Error::io(&self.path, "write", e.into())),
            }
        }
        Ok(())
    }

    fn start_writeback(&self, range: Range<u64>) -> Result<()> {
        writeback::start(self.as_file(), range).map_err(|e| {
            // What is lost is told once, here instead of by a sync.
            *self.sync_failed() = true;
            Error::io(&self.path, "write to the disk", e)
        })
    }

    fn forget_failures(&self) {
        // Locked, so that nobody's own sync is the one that is told.
        let _failed = self.sync_failed();
        let _ = self.as_file().sync_data();
    }

    fn sync(&self, kind: FileSyncType) -> Result<()> {
        let mut failed = self.sync_failed();
        let synced = match kind {
            _ if *failed => Err(io::Error::other("an earlier sync of it failed")),
            FileSyncType::Data => self.as_file().sync_data(),
            FileSyncType::Full => self.as_file().sync_all(),
        };
        *failed = synced.is_err();
        synced.map_err(|e| Error::io(&self.path, "sync", e))?;
        drop(failed);
        if self.name_is_new.load(Ordering::Relaxed) {
            sync_directory(&self.path)?;
            self.name_is_new.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let metadata = self
            .as_file()
            .metadata()
            .map_err(|e| Error::io(&self.path, "fstat", e))?;
        Ok(metadata.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.as_file()
            .set_len(len)
            .map_err(|e| Error::io(&self.path, "truncate", e))?;
        if let Some(mapped) = &self.mapped {
            mapped.forget_len();
        }
        Ok(())
    }

    fn free_space(&self) -> Option<u64> {
        fs2::available_space(&self.path).ok()
    }

    fn mapped(&self) -> Option<&MappedFile> {
        self.mapped.as_ref()
    }
}

/// Makes the names in the directory of `path` durable: after a file was made
/// or removed there.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_directory(path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| Error::io(directory, "sync the directory", e))
}

/// How many of `buffers`, of which there are some, go into one write.
fn at_once(buffers: &[IoSlice<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |buffer: &&IoSlice<'_>| {
        bytes += buffer.len();
        bytes <= MAX_BYTES
    };
    let first = buffers.iter().take(MAX_BUFFERS);
    first.take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_takes_so_many_bytes_or_buffers_or_one_that_is_larger() {
        let page = vec![0; 4096];
        let (page, byte) = (IoSlice::new(&page), IoSlice::new(&[0]));
        assert_eq!(at_once(&[page; 3]), 3);
        assert_eq!(at_once(&[page; 200]), MAX_BYTES / 4096);
        assert_eq!(at_once(&[byte; 2000]), MAX_BUFFERS);
        let large = vec![0; MAX_BYTES + 1];
        assert_eq!(at_once(&[IoSlice::new(&large), byte]), 1);
    }
}
