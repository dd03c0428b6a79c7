//! Files that the process may not read or write.
//!
//! Root may do everything, so these tests look at the file system as another
//! user: on Linux that is a matter of the thread, and the rest of the process
//! stays root.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fixtures::{DATABASE, LOG};
use integration::folder::FolderState;
use integration::reading::Opener;
use integration::rights::as_nobody;
use integration::worker::BackendKind;
use nix::unistd::geteuid;
use wal::{Error, Result};

use super::refusal::Refusal;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Opens a copy of a fixture as nobody, after `restrict` took rights away, and
/// gives the error. The files must be as before.
fn refused(opener: Opener, restrict: impl Fn(&Path)) -> Error {
    let copy = fixtures::named("pages-1024").unwrap().copy().unwrap();
    set_mode(copy.folder(), 0o777);
    restrict(copy.folder());
    let before = FolderState::of(copy.folder()).unwrap();
    let read: Result<_> = as_nobody(|| opener.read(&copy.database()));
    let after = FolderState::of(copy.folder()).unwrap();
    set_mode(copy.folder(), 0o777);
    let mut changes = before.changes(&after);
    // What shows itself only at the log, after the wal-index was made.
    changes.retain(|change| !["app.db-shm is new", "app.db-coord is new"].contains(&&**change));
    assert_eq!(changes, [""; 0], "{opener:?}");
    read.unwrap_err()
}

fn denied(names: &'static str) -> Refusal {
    Refusal {
        is_expected: |e| matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied),
        names,
        says: &["open failed", "Permission denied"],
    }
}

#[test]
fn nobody_cannot_read_what_is_only_roots() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "").unwrap();
    set_mode(&path, 0o600);
    set_mode(folder.path(), 0o755);
    if !geteuid().is_root() {
        set_mode(&path, 0o000);
    }
    // Else the other tests of this file would show nothing.
    assert!(as_nobody(|| fs::read(&path)).is_err());
}

#[test]
fn a_database_that_may_not_be_read_is_refused_by_name() {
    for opener in Opener::ALL {
        let error = refused(opener, |folder| set_mode(&folder.join(DATABASE), 0o000));
        denied(DATABASE).check(&error);
    }
}

#[test]
fn a_database_that_may_not_be_written_is_refused_by_name() {
    for opener in Opener::ALL {
        let error = refused(opener, |folder| set_mode(&folder.join(DATABASE), 0o444));
        denied(DATABASE).check(&error);
    }
}

#[test]
fn a_log_that_may_not_be_written_is_refused_by_name() {
    for opener in Opener::ALL {
        let error = refused(opener, |folder| {
            set_mode(&folder.join(DATABASE), 0o666);
            set_mode(&folder.join(LOG), 0o444);
        });
        denied(LOG).check(&error);
    }
}

#[test]
fn a_folder_in_which_no_file_can_be_made_is_refused_by_name() {
    for opener in Opener::ALL {
        let error = refused(opener, |folder| {
            set_mode(&folder.join(DATABASE), 0o666);
            fs::remove_file(folder.join(LOG)).unwrap();
            set_mode(folder, 0o555);
        });
        let names = match opener.backend {
            BackendKind::Shm => "app.db-shm",
            BackendKind::InProcess => LOG,
        };
        denied(names).check(&error);
    }
}

/// Root that may not give files away, as in a container, shares a database of
/// another user all the same.
#[test]
fn an_owner_that_cannot_be_given_to_a_new_file_is_no_reason_to_refuse() {
    for opener in Opener::ALL {
        let fixture = fixtures::named("pages-1024").unwrap();
        let copy = fixture.copy().unwrap();
        set_mode(copy.folder(), 0o777);
        set_mode(&copy.database(), 0o666);
        set_mode(&copy.log(), 0o666);
        let read = as_nobody(|| opener.read(&copy.database())).unwrap();
        assert_eq!(read.pages, fixture.facts.pages, "{opener:?}");
    }
}
