//! Symbolic links: the log lies beside the file that a link leads to, never
//! beside the link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fixtures::DATABASE;
use integration::folder::FolderState;
use integration::reading::{Contents, Opener};
use integration::worker::BackendKind;
use wal::{Error, Options, PageNo, ReadStrategy, Synchronous};

use super::refusal::Refusal;

fn names(folder: &Path) -> Vec<String> {
    let state = FolderState::of(folder).unwrap();
    state.names().into_iter().map(str::to_owned).collect()
}

#[test]
fn the_log_is_found_and_kept_beside_the_file_and_not_beside_the_link() {
    let fixture = fixtures::named("pages-1024").unwrap();
    for opener in Opener::ALL {
        let copy = fixture.copy().unwrap();
        let links = tempfile::tempdir().unwrap();
        let link = links.path().join("link.db");
        let middle = links.path().join("middle.db");
        symlink(copy.database(), &middle).unwrap();
        symlink("middle.db", &link).unwrap();
        assert_eq!(opener.read(&link).unwrap().pages, fixture.facts.pages);
        assert_eq!(names(links.path()), ["link.db", "middle.db"]);
        assert_eq!(names(copy.folder()), [DATABASE]);
    }
}

#[test]
fn while_it_is_open_by_a_link_nothing_lies_beside_the_link() {
    let copy = fixtures::named("pages-1024").unwrap().copy().unwrap();
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link.db");
    symlink(copy.database(), &link).unwrap();
    let by_link = options().open_shm(&link).unwrap();
    let by_name = options().open_shm(copy.database()).unwrap();
    let mut write = by_link.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[60] ^= 1;
    write.commit().unwrap();
    assert_eq!(
        Contents::of(&by_link).unwrap(),
        Contents::of(&by_name).unwrap()
    );
    assert_eq!(by_link.path(), by_name.path());
    assert_eq!(names(links.path()), ["link.db"]);
    assert_eq!(
        names(copy.folder()),
        [DATABASE, "app.db-coord", "app.db-shm", "app.db-wal"]
    );
}

/// If the file were made through the link, its log would lie beside the link,
/// where the next opener does not look.
#[test]
fn a_link_to_a_file_that_is_not_there_yet_is_refused() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::CannotOpen { .. }),
        names: "link.db",
        says: &["a symbolic link", "make"],
    };
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link.db");
        symlink(folder.path().join("absent.db"), &link).unwrap();
        let options = options().create(true);
        let error = match backend {
            BackendKind::Shm => options.open_shm(&link).map(drop).unwrap_err(),
            BackendKind::InProcess => options.open_inproc(&link).map(drop).unwrap_err(),
        };
        refusal.check(&error);
        assert_eq!(names(folder.path()), ["link.db"]);
    }
}

#[test]
fn a_circle_of_links_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    symlink("b.db", folder.path().join("a.db")).unwrap();
    symlink("a.db", folder.path().join("b.db")).unwrap();
    for opener in Opener::ALL {
        let error = opener.read(&folder.path().join("a.db")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(error.to_string().contains("a.db"), "{error}");
    }
    assert!(fs::metadata(folder.path().join("a.db")).is_err());
}

fn options() -> Options {
    Options::new()
        .create(false)
        .synchronous(Synchronous::Off)
        .read_strategy(ReadStrategy::Mapped)
}
