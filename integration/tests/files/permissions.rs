//! The files that the library makes beside a database have its owner and its
//! permissions, so that whoever may use the database may use them.
//!
//! The mask of the process is its own affair and is set here for all tests of
//! the file, which is why they are alone in it.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use fixtures::{Copy, DATABASE};
use integration::folder::FolderState;
use integration::kind::kind_at;
use integration::needs::Need;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::BackendKind;
use nix::sys::stat::{Mode, umask};
use wal::{Options, PageNo, Synchronous};

/// No user's and no group's number that a test is likely to run as.
const OWNER: (u32, u32) = (54321, 54322);

/// Takes everything from everybody but the owner.
fn set_mask() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// A database without any file beside it.
fn database_of_mode(mode: u32) -> Copy {
    let copy = fixtures::named("empty-log").unwrap().copy().unwrap();
    fs::remove_file(copy.log()).unwrap();
    fs::set_permissions(copy.database(), Permissions::from_mode(mode)).unwrap();
    copy
}

/// Opens and changes the database, and looks at the files while it is open.
fn while_open(backend: BackendKind, path: &Path, look: impl FnOnce()) {
    let options = Options::new().kind(kind_at(path));
    let options = options.synchronous(Synchronous::Off);
    match backend {
        BackendKind::Shm => commit_and(options.open_shm(path).unwrap(), look),
        BackendKind::InProcess => commit_and(options.open_inproc(path).unwrap(), look),
    }
}

fn commit_and<B: wal::Backend>(database: wal::generic::Database<B>, look: impl FnOnce()) {
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[60] ^= 1;
    write.commit().unwrap();
    look();
    database.close().unwrap();
}

fn names_beside(backend: BackendKind) -> &'static [&'static str] {
    match backend {
        BackendKind::Shm => &["app.db-coord", "app.db-shm", "app.db-wal"],
        BackendKind::InProcess => &["app.db-wal"],
    }
}

/// Every file of the folder has the permissions and the owner of the database.
fn all_are_like_the_database(backend: BackendKind, folder: &Path) {
    let mut expected = vec![DATABASE];
    expected.extend(names_beside(backend));
    assert_eq!(FolderState::of(folder).unwrap().names(), expected);
    let of = |name: &str| {
        let metadata = fs::metadata(folder.join(name)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    for name in expected {
        let (mode, uid, gid) = of(name);
        let (like_mode, like_uid, like_gid) = of(DATABASE);
        assert_eq!(
            (format!("{mode:o}"), uid, gid),
            (format!("{like_mode:o}"), like_uid, like_gid),
            "{name}, {backend:?}"
        );
    }
}

#[test]
fn new_files_have_the_permissions_of_the_database_whatever_the_mask() {
    set_mask();
    for mode in [0o600, 0o640, 0o644, 0o660, 0o666] {
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            let copy = database_of_mode(mode);
            while_open(backend, &copy.database(), || {
                all_are_like_the_database(backend, copy.folder());
            });
        }
    }
}

#[test]
fn new_files_made_by_root_belong_to_the_owner_of_the_database() {
    set_mask();
    // Only root can have a database of somebody else's.
    if !Need::Root.is_met("whom files belong to that root makes") {
        return;
    }
    for mode in [0o600, 0o640] {
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            let copy = database_of_mode(mode);
            chown(copy.database(), Some(OWNER.0), Some(OWNER.1)).unwrap();
            while_open(backend, &copy.database(), || {
                all_are_like_the_database(backend, copy.folder());
            });
        }
    }
}

#[test]
fn files_that_are_there_keep_their_permissions() {
    set_mask();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let copy = database_of_mode(0o640);
        for name in names_beside(backend) {
            let path = copy.folder().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        }
        while_open(backend, &copy.database(), || {
            for name in names_beside(backend) {
                let mode = fs::metadata(copy.folder().join(name)).unwrap().mode();
                assert_eq!(mode & 0o777, 0o604, "{name}, {backend:?}");
            }
        });
    }
}

#[test]
fn a_new_database_has_what_the_mask_leaves_and_its_files_are_like_it() {
    set_mask();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        let folder = tempfile::tempdir().unwrap();
        while_open(backend, &folder.path().join(DATABASE), || {
            all_are_like_the_database(backend, folder.path());
            let made = fs::metadata(folder.path().join(DATABASE)).unwrap();
            assert_eq!(made.mode() & 0o777, 0o600);
        });
    }
}

/// Somebody who may write to the directory could let the library write to a
/// file of its own choice. Stock SQLite refuses such a link too.
#[test]
fn a_symbolic_link_in_place_of_the_log_or_the_index_is_not_followed() {
    set_mask();
    for link in ["app.db-wal", "app.db-shm", "app.db-coord"] {
        let copy = database_of_mode(0o600);
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        fs::write(elsewhere.path(), "somebody else's").unwrap();
        let path = copy.database();
        symlink(elsewhere.path(), path.with_file_name(link)).unwrap();
        let database = Options::new().open(&path);
        // The side file is done without; the other two are needed.
        assert_eq!(database.is_ok(), link == "app.db-coord", "{link}");
        drop(database);
        if link != "app.db-coord" {
            let stock = StockSqlite::spawn(StockKind::Bundled, &path, None);
            let read = stock.and_then(|mut stock| stock.run("SELECT count(*) FROM sqlite_schema"));
            let refused = matches!(&read, Err(_) | Ok(Err(_)));
            assert!(refused, "stock SQLite follows {link}: {read:?}");
        }
        let content = fs::read_to_string(elsewhere.path()).unwrap();
        assert_eq!(content, "somebody else's", "{link}");
    }
}
