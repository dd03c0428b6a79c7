//! How files are opened and made.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::OsFile;
use super::descriptor::Descriptor;
use super::low_numbers::MayCarry;
use super::parking::{self, Reach};
use crate::error::{Error, Result};

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
    /// The same of a file that another process has opened for writing since it was made. On an
    /// overlay file system that was copied then: a mapping of what was opened before shows
    /// the file from which it was copied.
    ReadOnlyCopy,
}

impl OpenMode<'_> {
    pub(super) fn reach(self) -> Reach {
        match self {
            OpenMode::ReadOnly => Reach::Reads,
            OpenMode::ReadOnlyCopy => Reach::MapsCopy,
            _ => Reach::Writes,
        }
    }

    /// What a new file is to be like, in the modes that name a model.
    fn model(self) -> Result<fs::Metadata> {
        let (path, metadata) = match self {
            OpenMode::CreateLike(model) | OpenMode::NewLike(model) => {
                (super::File::path(model), model.as_file()?.metadata())
            }
            OpenMode::CreateLikeAt(path) => (path, fs::metadata(path)),
            OpenMode::Existing | OpenMode::Create | OpenMode::ReadOnly | OpenMode::ReadOnlyCopy => {
                (Path::new(""), Err(io::ErrorKind::InvalidInput.into()))
            }
        };
        metadata.map_err(|e| Error::io(path, "stat", e))
    }
}

/// Opens the file at `path`. `keep` takes the descriptor before any other call that may fail,
/// since one that carries locks must not be closed then.
pub(super) fn open(
    path: &Path,
    mode: OpenMode<'_>,
    may_carry: MayCarry,
    keep: impl Fn(fs::File) -> io::Result<Descriptor>,
) -> Result<Descriptor> {
    let mut options = OpenOptions::new();
    // The database's path has no links any more; one in place of a file beside
    // it is not followed, as by SQLite.
    options
        .read(true)
        .write(mode.reach() == Reach::Writes)
        .custom_flags(libc::O_NOFOLLOW);
    let must_be_new = matches!(mode, OpenMode::NewLike(_));
    let opened = |options: &OpenOptions| {
        let file = parking::open_with_room(may_carry, || options.open(path));
        file.and_then(&keep).map_err(|e| Error::io(path, "open", e))
    };
    match mode {
        OpenMode::Existing | OpenMode::ReadOnly | OpenMode::ReadOnlyCopy => {
            return opened(&options);
        }
        OpenMode::Create => return opened(options.create(true).truncate(false).mode(0o644)),
        OpenMode::CreateLike(_) | OpenMode::CreateLikeAt(_) | OpenMode::NewLike(_) => {}
    }
    // Existing files keep their owner and permissions.
    if !must_be_new {
        match opened(&options) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    let model = mode.model()?;
    let permissions = model.mode() & 0o777;
    let descriptor = opened(
        options
            .create(true)
            .create_new(must_be_new)
            .truncate(false)
            .mode(permissions),
    )?;
    make_like(descriptor.file()?, &model).map_err(|e| {
        if must_be_new {
            let _ = fs::remove_file(path);
        }
        Error::io(path, "open", e)
    })?;
    Ok(descriptor)
}

/// Sets the permissions of `file`, which was just made, to those of `model`, and its owner if
/// this process may.
fn make_like(file: &fs::File, model: &fs::Metadata) -> io::Result<()> {
    let made = file.metadata()?;
    let permissions = model.mode() & 0o777;
    if made.mode() & 0o777 != permissions {
        // The mask of the process took bits away.
        file.set_permissions(fs::Permissions::from_mode(permissions))?;
    }
    if (made.uid(), made.gid()) != (model.uid(), model.gid()) && nix::unistd::geteuid().is_root() {
        // A root without the right to do that (in a container) goes on
        // with a file of its own, as SQLite's does (`robustFchown`).
        let _ = std::os::unix::fs::fchown(file, Some(model.uid()), Some(model.gid()));
    }
    Ok(())
}

/// To open a pipe for reading alone waits until somebody writes to it.
pub(super) fn refuse_pipe(path: &Path, mode: OpenMode<'_>) -> Result<()> {
    let is_pipe = || fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    match mode.reach() < Reach::Writes && is_pipe() {
        true => Err(not_regular(path)),
        false => Ok(()),
    }
}

pub(super) fn not_regular(path: &Path) -> Error {
    Error::cannot_open(path, "it is not a regular file")
}
