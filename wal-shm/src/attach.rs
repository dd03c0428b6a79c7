//! Attaches to a database, or joins an attachment that this process has.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use wal_core::storage::{ByteLocks, Claim, FileId, HeldPath, OpenMode, OsFile, refuse_other_names};
use wal_core::{Error, Result};

use crate::attachment::Attachment;
use crate::file_system;
use crate::index::Index;
use crate::main_file::MainFile;
use crate::options::{Access, ShmOptions};
use crate::registry::{self, Member};

/// Attaches to the database at `path`, or joins the attachment that this
/// process has. `look` is called with SHARED held and nothing else touched;
/// if it refuses, so does this.
pub(crate) fn attach<T>(
    path: &Path,
    mode: OpenMode<'_>,
    options: ShmOptions,
    look: impl FnOnce(&OsFile) -> Result<T>,
) -> Result<(Arc<Attachment>, T)> {
    let place = mode.held_path(path)?;
    let mode = match options.access {
        Access::ReadWrite => mode,
        Access::ReadOnly | Access::Immutable => OpenMode::ReadOnly,
    };
    if options.access == Access::Immutable {
        // It has no locks to share.
        let database = open_database(&place, mode, options)?;
        let found = look(&database)?;
        let immutable = Attachment::immutable(database, options)?;
        return Ok((Arc::new(immutable), found));
    }
    let request = Request {
        place: &place,
        mode,
        options,
    };
    let there = place.find().map_err(|e| Error::io(path, "stat", e))?;
    let (mut id, mut opened) = match there {
        Some(found) => (found.id, None),
        None => {
            // A file that is not there has no identity, so it is made first.
            let made = open_database(&place, mode, options)?;
            (made.id()?, Some(made))
        }
    };
    let mut look = look;
    loop {
        let join_or_open = |members: &mut _| request.join_or_open(members, id, opened, look);
        match registry::with_members(id, join_or_open)? {
            Attached::Done(attachment, found) => return Ok((attachment, found)),
            Attached::OtherFile(database, unused) => {
                id = database.id()?;
                opened = Some(database);
                look = unused;
            }
        }
    }
}

/// How a database is to be opened.
struct Request<'a> {
    place: &'a HeldPath,
    mode: OpenMode<'a>,
    options: ShmOptions,
}

/// The outcome of [`Request::join_or_open`].
enum Attached<T, F> {
    Done(Arc<Attachment>, T),
    /// The path leads to another file than the expected one: a process has replaced it, or an
    /// overlay file system has copied it to be written. Nothing was done with it.
    OtherFile(Arc<OsFile>, F),
}

impl Request<'_> {
    /// Joins one of `members`, the attachments of the file `id`, or adds one. `opened` is the
    /// database file, if it is already open.
    fn join_or_open<T, F: FnOnce(&OsFile) -> Result<T>>(
        &self,
        members: &mut Vec<Member>,
        id: FileId,
        opened: Option<Arc<OsFile>>,
        look: F,
    ) -> Result<Attached<T, F>> {
        if let Some((member, attachment)) = find(members, self.place.path(), self.options, false)? {
            let found = attachment.look_to_join(self.place.path(), self.options, look)?;
            member.join();
            return Ok(Attached::Done(attachment, found));
        }
        let database = match opened {
            Some(database) => database,
            None => open_database(self.place, self.mode, self.options)?,
        };
        if database.id()? != id {
            return Ok(Attached::OtherFile(database, look));
        }
        let makes = matches!(self.mode, OpenMode::Create);
        let (attachment, found) = Attachment::open(database, makes, self.options, look)?;
        let attachment = Arc::new(attachment);
        members.push(Member::new(&attachment));
        Ok(Attached::Done(attachment, found))
    }
}

/// Attaches to the database at `path`, whose file an engine has open with
/// SHARED held, or joins the attachment that engines of this process have.
pub(crate) fn attach_engine(
    path: &Path,
    place: Option<HeldPath>,
    options: ShmOptions,
) -> Result<Arc<Attachment>> {
    let place = place.map_or_else(|| HeldPath::of(path), Ok)?;
    let database = MainFile::of_engine(place)?;
    let id = database.id()?;
    registry::with_members(id, |members| {
        if let Some((member, attachment)) = find(members, path, options, true)? {
            attachment.refuse_other_kind(path, options)?;
            if let Some(claim) = &attachment.claim {
                claim.refuse_other_name(database.held_path())?;
            }
            attachment.agree_on_close(options);
            member.join();
            return Ok(attachment);
        }
        let maps = options.may_map(path, database.held_path())?;
        let locks = ByteLocks::new(options.lock_kind);
        let claim = Claim::acquire(database.held_path(), id, locks)?;
        let opened = Attachment::open_index(&database, locks, options)?;
        let attachment = Attachment::new(database, maps, id, opened, Some(claim), options);
        let attachment = Arc::new(attachment);
        members.push(Member::new(&attachment));
        Ok(attachment)
    })
}

impl ShmOptions {
    /// True if the database at `path` may be read from mappings. A page of a mapping must
    /// not change as long as its lock is held. So there has to be a lock, which an
    /// immutable database has not; it must not get lost when something else in this
    /// process closes the file, as classic locks do; and the file system must keep locks
    /// and mappings, as network file systems may not, and overlays do not where a reader
    /// is open before the first writer. `open` is the database file, or its directory if
    /// the file is not opened here.
    ///
    /// # Errors
    /// Those of [`file_system::is_network`] and [`file_system::copies_up`].
    fn may_map(self, path: &Path, open: impl AsFd) -> Result<bool> {
        if self.access == Access::Immutable {
            return Ok(false);
        }
        let open = open.as_fd();
        let is_network = file_system::is_network(path, open, self)?;
        let keeps_locks = ByteLocks::new(self.lock_kind).belong_to_description();
        let may_be_copied = self.access == Access::ReadOnly && file_system::copies_up(path, open)?;
        Ok(self.mapped && keeps_locks && !is_network && !may_be_copied)
    }
}

fn open_database(place: &HeldPath, mode: OpenMode<'_>, options: ShmOptions) -> Result<Arc<OsFile>> {
    let database = OsFile::open_for_locks_at(place.clone(), mode)?;
    database.set_close_on_drop(options.close_descriptors);
    // An immutable database has no log.
    if !options.allow_other_names && options.access != Access::Immutable {
        refuse_other_names(&database)?;
    }
    let maps = options.may_map(place.path(), database.as_file()?)?;
    Ok(Arc::new(database.with_mapping(maps)))
}

/// The attachment to join.
fn find<'m>(
    members: &'m mut [Member],
    path: &Path,
    options: ShmOptions,
    of_engine: bool,
) -> Result<Option<(&'m mut Member, Arc<Attachment>)>> {
    let mut chosen = None;
    for (place, member) in members.iter().enumerate() {
        let of_this_kind =
            |attachment: &Arc<Attachment>| attachment.database.own().is_none() == of_engine;
        let Some(attachment) = member.attachment().filter(of_this_kind) else {
            continue;
        };
        let preference = preference(&attachment, options.access)?;
        if preference.is_none() && !attachment.locks.belong_to_description() {
            let reason = "this process has it open for reading alone; with classic locks, close \
                that first";
            return Err(Error::cannot_open(path, reason));
        }
        let better = |(best, ..): &(Preference, usize, _)| preference > Some(*best);
        if let Some(preference) = preference
            && chosen.as_ref().is_none_or(better)
        {
            chosen = Some((preference, place, attachment));
        }
    }
    Ok(chosen.and_then(|(_, place, attachment)| Some((members.get_mut(place)?, attachment))))
}

/// Which of the attachments that can be joined is joined: the last one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    Private,
    Shared,
    Writable,
}

/// How well `attachment` serves a user with `access`; `None` if not at all.
fn preference(attachment: &Attachment, access: Access) -> Result<Option<Preference>> {
    Ok(match (access, attachment.access, &*attachment.index) {
        (_, Access::ReadWrite, _) => Some(Preference::Writable),
        (Access::ReadOnly, Access::ReadOnly, Index::Shared(_)) => Some(Preference::Shared),
        (Access::ReadOnly, Access::ReadOnly, Index::Private(private)) => {
            (!private.is_superseded()?).then_some(Preference::Private)
        }
        _ => None,
    })
}

/// Counts out one user of `attachment` that does not clean up, and returns how many users of
/// this process are left.
pub(crate) fn detach(attachment: &Arc<Attachment>) -> usize {
    let left = registry::leave(attachment.id, attachment);
    if left == 0 {
        attachment.stop_delaying();
    }
    left
}
