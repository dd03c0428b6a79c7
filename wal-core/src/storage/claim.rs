//! Which databases this process uses, so that two uses of one file exclude each other where
//! the locks of the system do not.
//!
//! Locks of open file descriptions keep two uses apart in one process too. Classic locks
//! belong to the process: two uses by them do not conflict, and a release by one of them
//! releases what the other one holds. So a use by classic locks is the only one of its file
//! in the process, whichever backend it is of. A use without locks needs no claim.
//!
//! # Protocol
//! A claim is acquired before the first lock of a use, and dropped after its last one is
//! released. No lock is waited for while the mutex of the table is held.

use std::collections::{BTreeMap, btree_map};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use super::byte_lock::ByteLocks;
use super::file_id::FileId;
use super::held_path::HeldPath;
use crate::error::{Error, Result};
use crate::fork::ProcessGeneration;
use crate::once_table::OnceTable;
use crate::sync::Unpoison;

/// The right to use a database by locks in this process, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    name: Name,
    id: FileId,
    process: ProcessGeneration,
}

/// The claims of one file, of which there is at least one.
struct Claimed {
    name: Name,
    count: usize,
    by_classic_locks: bool,
}

type Claims = BTreeMap<FileId, Claimed>;

/// One table for each generation of forks: a child has none of its parent's locks, and the
/// mutex may have been held at the fork.
static CLAIMS: OnceTable<Mutex<Claims>> = OnceTable::new();

fn claims() -> MutexGuard<'static, Claims> {
    let generation = ProcessGeneration::current().number();
    CLAIMS
        .get_or_make(generation, Mutex::default)
        .lock()
        .unpoison()
}

impl Claim {
    /// Claims the database `id`, which is at `place`, for a use by `locks`.
    ///
    /// # Errors
    /// [`Error::Locked`] if another use in this process excludes this one;
    /// [`Error::CannotOpen`] if another use is of the same file by another name: a log and an
    /// index lie beside one name, so the two uses would not see each other's.
    pub fn acquire(place: &HeldPath, id: FileId, locks: ByteLocks) -> Result<Self> {
        let name = Name::of(place);
        let by_classic_locks = !locks.belong_to_description();
        match claims().entry(id) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Claimed {
                    name: name.clone(),
                    count: 1,
                    by_classic_locks,
                });
            }
            btree_map::Entry::Occupied(mut occupied) => {
                let claimed = occupied.get_mut();
                if claimed.by_classic_locks || by_classic_locks {
                    let path = place.path().to_owned();
                    return Err(Error::Locked { path });
                }
                claimed.name.refuse_other(&name)?;
                claimed.count += 1;
            }
        }
        Ok(Claim {
            name,
            id,
            process: ProcessGeneration::current(),
        })
    }

    /// Refuses to share the claim with a user that has the file by another name.
    ///
    /// # Errors
    /// [`Error::CannotOpen`], as [`Claim::acquire`].
    pub fn refuse_other_name(&self, place: &HeldPath) -> Result<()> {
        self.name.refuse_other(&Name::of(place))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.process.is_over() {
            return;
        }
        if let btree_map::Entry::Occupied(mut occupied) = claims().entry(self.id) {
            occupied.get_mut().count -= 1;
            if occupied.get().count == 0 {
                occupied.remove();
            }
        }
    }
}

/// The name by which a file is used, and the directory that has it, however that is called.
#[derive(Clone, Debug)]
struct Name {
    path: PathBuf,
    directory: Option<FileId>,
}

impl Name {
    fn of(place: &HeldPath) -> Self {
        Name {
            path: place.path().to_owned(),
            directory: place.directory_id(),
        }
    }

    fn refuse_other(&self, other: &Name) -> Result<()> {
        if self.is_same(other) {
            return Ok(());
        }
        let claimed = self.path.display();
        let reason = format!(
            "this process has the same file open as {claimed}, and its log is beside that name; \
             open it by that name"
        );
        Err(Error::cannot_open(&other.path, reason))
    }

    fn is_same(&self, other: &Name) -> bool {
        self.directory == other.directory && self.path.file_name() == other.path.file_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LockKind;

    const OFD: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);
    const CLASSIC: ByteLocks = ByteLocks::new(LockKind::Classic);

    fn database() -> (tempfile::TempDir, HeldPath, FileId) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        std::fs::write(&path, "").unwrap();
        let place = HeldPath::of(&path).unwrap();
        let id = place.find().unwrap().unwrap().id;
        (directory, place, id)
    }

    #[test]
    fn a_claim_by_classic_locks_is_the_only_one() {
        let (_directory, place, id) = database();
        for (first, second) in [(OFD, CLASSIC), (CLASSIC, OFD), (CLASSIC, CLASSIC)] {
            let claim = Claim::acquire(&place, id, first).unwrap();
            let refused = Claim::acquire(&place, id, second);
            assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
            drop(claim);
            drop(Claim::acquire(&place, id, second).unwrap());
        }
    }

    #[test]
    fn claims_that_the_system_keeps_apart_are_counted() {
        let (_directory, place, id) = database();
        let one = Claim::acquire(&place, id, OFD).unwrap();
        let two = Claim::acquire(&place, id, OFD).unwrap();
        drop(one);
        assert!(Claim::acquire(&place, id, CLASSIC).is_err());
        drop(two);
        assert!(Claim::acquire(&place, id, CLASSIC).is_ok());
    }

    #[test]
    fn a_second_name_of_a_claimed_file_is_refused() {
        let (directory, place, id) = database();
        let link = directory.path().join("link");
        std::fs::hard_link(place.path(), &link).unwrap();
        let _claim = Claim::acquire(&place, id, OFD).unwrap();
        let refused = Claim::acquire(&HeldPath::of(&link).unwrap(), id, OFD).unwrap_err();
        assert!(matches!(refused, Error::CannotOpen { .. }), "{refused}");
        assert!(refused.to_string().contains("open as"), "{refused}");
        // The same name by another way is no second one.
        let detour = directory.path().join(".").join("..");
        let detour = detour.join(directory.path().file_name().unwrap());
        let detour = HeldPath::of(&detour.join("db")).unwrap();
        assert!(Claim::acquire(&detour, id, OFD).is_ok());
    }
}
