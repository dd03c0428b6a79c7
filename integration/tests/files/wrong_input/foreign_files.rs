//! Files that are no database, or are one in another state.

use std::path::Path;
use std::sync::mpsc::channel;
use std::{fs, thread};

use fixtures::{DATABASE, JOURNAL, LOG, copy_folder};
use integration::worker::WATCHDOG;
use nix::sys::stat::Mode;
use wal::{Error, Options};

use super::refusal::Refusal;

/// Fills the folder with the files of a fixture.
pub(crate) fn fixture_in(folder: &Path, name: &str) {
    let copy = fixtures::named(name).unwrap().copy().unwrap();
    copy_folder(copy.folder(), folder).unwrap();
}

/// Overwrites bytes of the database file.
fn patch(folder: &Path, at: usize, bytes: &[u8]) {
    let path = folder.join(DATABASE);
    let mut content = fs::read(&path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(&path, content).unwrap();
}

/// What the shared backend has made when a transaction finds out.
const MADE: [&str; 3] = ["app.db-wal", "app.db-shm", "app.db-coord"];

#[test]
fn a_text_file_is_no_database() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::CannotOpen { .. }),
        names: "notes.txt",
        says: &["no database", "neither", "RawPages"],
    };
    refusal.holds(|folder| {
        fs::write(folder.join("notes.txt"), "milk, bread, and a database\n").unwrap();
        "notes.txt".into()
    });
}

#[test]
fn a_sqlite_database_cut_within_a_page_is_corrupt() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::Corrupt { .. }),
        names: DATABASE,
        says: &["pages", "restore it from a backup"],
    };
    refusal.holds_but_for(&MADE, |folder| {
        fixture_in(folder, "empty-log");
        fs::remove_file(folder.join(LOG)).unwrap();
        let path = folder.join(DATABASE);
        let content = fs::read(&path).unwrap();
        fs::write(path, &content[..content.len() - 2000]).unwrap();
        DATABASE.into()
    });
}

#[test]
fn a_database_shorter_than_its_header_says_is_corrupt() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::Corrupt { .. }),
        names: DATABASE,
        says: &["pages", "restore it from a backup"],
    };
    refusal.holds_but_for(&MADE, |folder| {
        fixture_in(folder, "empty-log");
        fs::remove_file(folder.join(LOG)).unwrap();
        let path = folder.join(DATABASE);
        let content = fs::read(&path).unwrap();
        fs::write(path, &content[..content.len() - 1024]).unwrap();
        DATABASE.into()
    });
}

#[test]
fn a_page_size_that_is_none_is_corruption() {
    for size in [[0, 0], [0, 2], [1, 0], [2, 1], [3, 0], [0x7f, 0xff]] {
        let refusal = Refusal {
            is_expected: |e| matches!(e, Error::Corrupt { .. }),
            names: DATABASE,
            says: &["no legal page size", "restore it from a backup"],
        };
        refusal.holds(|folder| {
            fixture_in(folder, "pages-1024");
            patch(folder, 16, &size);
            DATABASE.into()
        });
    }
}

#[test]
fn a_directory_is_no_database() {
    let refusal = Refusal {
        is_expected: |e| {
            matches!(e, Error::CannotOpen { .. })
                || matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::IsADirectory)
        },
        names: "folder",
        says: &["directory"],
    };
    refusal.holds(|folder| {
        fs::create_dir(folder.join("folder")).unwrap();
        "folder".into()
    });
}

#[test]
fn a_pipe_is_no_database() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::CannotOpen { .. }),
        names: "pipe",
        says: &["not a regular file"],
    };
    refusal.holds(|folder| {
        nix::unistd::mkfifo(&folder.join("pipe"), Mode::S_IRWXU).unwrap();
        "pipe".into()
    });
    // To open one for reading alone waits until somebody writes to it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    for options in [
        Options::new().read_only(true),
        Options::new().immutable(true),
    ] {
        let (path, (tell, told)) = (path.clone(), channel());
        thread::spawn(move || tell.send(options.open(path).unwrap_err()));
        refusal.check(&told.recv_timeout(WATCHDOG).expect("it waits"));
    }
}

#[test]
fn a_file_that_is_not_there_is_not_made_unless_that_is_wanted() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        names: "absent.db",
        says: &["open failed", "No such file"],
    };
    refusal.holds(|_| "absent.db".into());
}

#[test]
fn a_database_in_rollback_mode_tells_how_to_change_it() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::NotWalMode { .. }),
        names: DATABASE,
        says: &["rollback-journal mode", "PRAGMA journal_mode=WAL"],
    };
    refusal.holds(|folder| {
        fixture_in(folder, "rollback-mode");
        DATABASE.into()
    });
}

#[test]
fn a_hot_journal_is_left_to_stock_sqlite() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::HotJournal { .. }),
        names: JOURNAL,
        says: &["which rolls it back", "open that once with stock SQLite"],
    };
    refusal.holds(|folder| {
        fixture_in(folder, "hot-journal");
        DATABASE.into()
    });
}
