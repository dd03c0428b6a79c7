//! How files are opened and made.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::{fs, io};

use nix::fcntl::OFlag;

use super::OsFile;
use super::descriptor::Descriptor;
use super::held_path::HeldPath;
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
    /// It is made as by [`OpenMode::Create`], and must not be there.
    New,
    /// It is made if it is not there, with the owner and the permissions of
    /// this file (`findCreateFileMode`).
    CreateLike(&'a OsFile),
    /// The same, and it must not be there.
    NewLike(&'a OsFile),
    /// As [`OpenMode::CreateLike`] with the file at this place as the model, which another
    /// program has open.
    CreateLikeAt(&'a HeldPath),
    /// It must be there, and is opened for reading alone. Shared locks can be
    /// taken on it, exclusive ones cannot.
    ReadOnly,
    /// As [`OpenMode::ReadOnly`], by a program that only looks: reading does not change the
    /// time of the last access, where the system allows that.
    Observed,
    /// As [`OpenMode::Observed`] of the file to which a link in `/proc/<pid>/fd` leads: the one
    /// that a process has open, also where its name was removed.
    ObservedByLink,
    /// The same as [`OpenMode::ReadOnly`] of a file that another process has opened for writing since it was made. On an
    /// overlay file system that was copied then: a mapping of what was opened before shows
    /// the file from which it was copied.
    ReadOnlyCopy,
    /// As [`OpenMode::ReadOnly`], and a backend looks for it where this file was opened, to
    /// which its path may lead no more.
    ReadOnlyAgain(&'a OsFile),
}

impl OpenMode<'_> {
    pub(super) fn reach(self) -> Reach {
        match self {
            OpenMode::ReadOnly
            | OpenMode::ReadOnlyAgain(_)
            | OpenMode::Observed
            | OpenMode::ObservedByLink => Reach::Reads,
            OpenMode::ReadOnlyCopy => Reach::MapsCopy,
            _ => Reach::Writes,
        }
    }

    pub(super) fn writes(self) -> bool {
        self.reach() == Reach::Writes
    }

    /// The place of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if its directory cannot be opened.
    pub fn held_path(self, path: &Path) -> Result<HeldPath> {
        match self {
            OpenMode::ReadOnlyAgain(file) => Ok(file.held_path().clone()),
            _ => HeldPath::of(path),
        }
    }

    /// What a new file is to be like, in the modes that name a model.
    fn model(self) -> Result<Model> {
        match self {
            OpenMode::CreateLike(model) | OpenMode::NewLike(model) => {
                let metadata = model.as_file()?.metadata();
                let metadata =
                    metadata.map_err(|e| Error::io(super::File::path(model), "fstat", e));
                Ok(Model::of(&metadata?))
            }
            OpenMode::CreateLikeAt(place) => {
                let stat = place.stat();
                let stat = stat.map_err(|e| Error::io(place.path(), "stat", e.into()))?;
                Ok(Model::of_stat(&stat))
            }
            OpenMode::Existing
            | OpenMode::Create
            | OpenMode::New
            | OpenMode::ReadOnly
            | OpenMode::Observed
            | OpenMode::ObservedByLink
            | OpenMode::ReadOnlyCopy
            | OpenMode::ReadOnlyAgain(_) => {
                let none = io::ErrorKind::InvalidInput.into();
                Err(Error::io(Path::new(""), "stat", none))
            }
        }
    }
}

impl OsFile {
    /// Opens a file that carries no locks, of this library or of a stock SQLite in this
    /// process: it is closed when it is dropped, which would drop the process's locks.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses, [`Error::CannotOpen`] if it is no
    /// regular file.
    pub fn open(path: &Path, mode: OpenMode<'_>) -> Result<Self> {
        Self::open_at(HeldPath::of(path)?, mode)
    }

    /// As [`OsFile::open`], at `place`.
    ///
    /// # Errors
    /// As [`OsFile::open`].
    pub fn open_at(place: HeldPath, mode: OpenMode<'_>) -> Result<Self> {
        refuse_pipe(&place, mode)?;
        let plain = |file| Ok(Descriptor::plain(file));
        let descriptor = open(&place, mode, MayCarry::NoLocks, plain)?;
        let opened = Self::wrap(place, descriptor)?;
        let existing = matches!(mode, OpenMode::Existing) || !mode.writes();
        opened.set_name_is_new(!existing);
        Ok(opened)
    }

    /// Opens a file on which locks are taken: a database or a `-shm` file. Its descriptor is
    /// closed in forked children. In this process it is parked when it is dropped, and used
    /// again for the next open of the file, because closing it would drop the locks of a
    /// stock SQLite in this process; see [`OsFile::set_close_on_drop`].
    ///
    /// # Errors
    /// As [`OsFile::open`].
    pub fn open_for_locks(path: &Path, mode: OpenMode<'_>) -> Result<Self> {
        Self::open_for_locks_at(HeldPath::of(path)?, mode)
    }

    /// As [`OsFile::open_for_locks`], at `place`.
    ///
    /// # Errors
    /// As [`OsFile::open`].
    pub fn open_for_locks_at(place: HeldPath, mode: OpenMode<'_>) -> Result<Self> {
        let reused = match mode {
            OpenMode::New | OpenMode::NewLike(_) => None,
            _ => {
                let there = place
                    .find()
                    .map_err(|e| Error::io(place.path(), "stat", e))?;
                there.and_then(|found| Descriptor::reuse(found.id, mode.reach()))
            }
        };
        if let Some(descriptor) = reused {
            return Self::wrap(place, descriptor);
        }
        refuse_pipe(&place, mode)?;
        let may_carry = match mode {
            // Nothing has locked a file that was just made.
            OpenMode::NewLike(_) => MayCarry::NoLocks,
            _ => MayCarry::Locks,
        };
        let with_locks = |file| Descriptor::with_locks(file, mode.reach());
        let descriptor = open(&place, mode, may_carry, with_locks)?;
        Self::wrap(place, descriptor)
    }
}

/// Reads leave the time of the last access as it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
const QUIETLY: OFlag = OFlag::O_NOATIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const QUIETLY: OFlag = OFlag::empty();

/// The permissions and the owner of a file.
#[derive(Clone, Copy)]
struct Model {
    permissions: u32,
    uid: u32,
    gid: u32,
}

impl Model {
    fn of(metadata: &fs::Metadata) -> Self {
        Model {
            permissions: metadata.mode() & 0o777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        }
    }

    #[allow(clippy::unnecessary_cast)] // The fields differ between systems.
    fn of_stat(stat: &nix::sys::stat::FileStat) -> Self {
        Model {
            permissions: stat.st_mode as u32 & 0o777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}

/// Opens the file at `place`. `keep` takes the descriptor before any other call that may
/// fail, since one that carries locks must not be closed then.
pub(super) fn open(
    place: &HeldPath,
    mode: OpenMode<'_>,
    may_carry: MayCarry,
    keep: impl Fn(fs::File) -> io::Result<Descriptor>,
) -> Result<Descriptor> {
    let path = place.path();
    let access = match mode.writes() {
        true => OFlag::O_RDWR,
        false => OFlag::O_RDONLY,
    };
    let must_be_new = matches!(mode, OpenMode::NewLike(_));
    let opened = |flags, permissions| {
        // The database's path has no links any more; one in place of a file beside
        // it is not followed, as by SQLite. The process that a link of `/proc` is of may have
        // another file there by now, and to open a pipe waits.
        let links = match mode {
            OpenMode::ObservedByLink => OFlag::O_NONBLOCK,
            _ => OFlag::O_NOFOLLOW,
        };
        let flags = flags | access | links;
        let file = parking::open_with_room(may_carry, || place.open(flags, permissions));
        file.and_then(&keep).map_err(|e| Error::io(path, "open", e))
    };
    match mode {
        OpenMode::Observed | OpenMode::ObservedByLink => {
            // Refused to a process that neither owns the file nor is root.
            return match opened(QUIETLY, 0) {
                Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                    opened(OFlag::empty(), 0)
                }
                opened => opened,
            };
        }
        OpenMode::Existing
        | OpenMode::ReadOnly
        | OpenMode::ReadOnlyCopy
        | OpenMode::ReadOnlyAgain(_) => return opened(OFlag::empty(), 0),
        OpenMode::Create => return opened(OFlag::O_CREAT, 0o644),
        OpenMode::New => return opened(OFlag::O_CREAT | OFlag::O_EXCL, 0o644),
        OpenMode::CreateLike(_) | OpenMode::CreateLikeAt(_) | OpenMode::NewLike(_) => {}
    }
    // Existing files keep their owner and permissions.
    if !must_be_new {
        match opened(OFlag::empty(), 0) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    let model = mode.model()?;
    let exclusive = match must_be_new {
        true => OFlag::O_EXCL,
        false => OFlag::empty(),
    };
    let descriptor = opened(OFlag::O_CREAT | exclusive, model.permissions)?;
    make_like(descriptor.file()?, model).map_err(|e| {
        if must_be_new {
            let _ = place.remove();
        }
        Error::io(path, "open", e)
    })?;
    Ok(descriptor)
}

/// Sets the permissions of `file`, which was just made, to those of `model`, and its owner if
/// this process may.
fn make_like(file: &fs::File, model: Model) -> io::Result<()> {
    let made = Model::of(&file.metadata()?);
    if made.permissions != model.permissions {
        // The mask of the process took bits away.
        file.set_permissions(fs::Permissions::from_mode(model.permissions))?;
    }
    if (made.uid, made.gid) != (model.uid, model.gid) && nix::unistd::geteuid().is_root() {
        // A root without the right to do that (in a container) goes on
        // with a file of its own, as SQLite's does (`robustFchown`).
        let _ = std::os::unix::fs::fchown(file, Some(model.uid), Some(model.gid));
    }
    Ok(())
}

/// To open a pipe for reading alone waits until somebody writes to it.
pub(super) fn refuse_pipe(place: &HeldPath, mode: OpenMode<'_>) -> Result<()> {
    use nix::sys::stat::SFlag;
    // A link is not followed, so the open refuses it.
    let waits = || {
        let kind = |stat: nix::sys::stat::FileStat| SFlag::from_bits_truncate(stat.st_mode);
        let kind = place.stat().map(|stat| kind(stat) & SFlag::S_IFMT);
        kind.is_ok_and(|kind| ![SFlag::S_IFREG, SFlag::S_IFLNK].contains(&kind))
    };
    match !mode.writes() && waits() {
        true => Err(super::os::not_regular(place.path())),
        false => Ok(()),
    }
}
