//! Files beside a database: those of other programs stay as they are, and no new file gets the
//! name of one.

use std::sync::mpsc::channel;
use std::time::Duration;
use std::{fs, thread};

use integration::worker::BackendKind;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use wal::{Database, Error, PageNo};
use wal_core::storage::beside;

use super::{options, try_open};

fn commit(database: &Database, byte: u8) {
    let mut tx = database.begin_write().unwrap();
    let page = tx.allocate().unwrap();
    tx.page_mut(page).unwrap().fill(byte);
    tx.commit().unwrap();
}

#[test]
fn pipe_in_place_of_a_journal_holds_no_open_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    Database::open_pages(&path).unwrap().close().unwrap();
    mkfifo(&beside(&path, "-journal"), Mode::S_IRWXU).unwrap();
    let (opens, opened) = channel();
    thread::spawn(move || {
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            opens.send(try_open(backend, &options(), &path)).unwrap();
        }
    });
    for _ in 0..2 {
        let outcome = opened.recv_timeout(Duration::from_secs(20));
        outcome.expect("it waits for a writer of the pipe").unwrap();
    }
}

#[test]
fn new_file_gets_no_name_of_a_side_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    let database = Database::open_pages(&path).unwrap();
    commit(&database, 1);
    for suffix in ["-wal", "-shm", "-coord", "-journal"] {
        let name = beside(&path, suffix);
        let before = fs::read(&name).ok();
        let outcomes = [
            database.backup(&name, |_| Ok(())),
            database.replace_backup(&name, |_| Ok(())),
        ];
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::CannotOpen { .. }), "{error}");
        }
        assert_eq!(fs::read(&name).ok(), before, "{suffix}");
    }
    database.close().unwrap();
    for suffix in ["-wal", "-shm", "-coord", "-journal"] {
        let name = beside(&path, suffix);
        let error = Database::open_pages(&name).unwrap_err();
        assert!(error.to_string().contains("belongs to"), "{error}");
        assert!(!name.exists());
    }
}

#[test]
fn file_of_another_program_in_place_of_the_side_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    Database::open_pages(&path).unwrap().close().unwrap();
    let notes = beside(&path, "-coord");
    fs::write(&notes, "coordinates of the office").unwrap();
    let database = Database::open(&path).unwrap();
    commit(&database, 1);
    database.close().unwrap();
    assert_eq!(fs::read(&notes).unwrap(), b"coordinates of the office");

    // One of ours that has another name is not emptied either.
    fs::remove_file(&notes).unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, [0; 10_000]).unwrap();
    fs::hard_link(&precious, &notes).unwrap();
    let database = Database::open(&path).unwrap();
    commit(&database, 2);
    database.close().unwrap();
    assert_eq!(fs::read(&precious).unwrap(), [0; 10_000]);
}

#[test]
fn store_in_use_is_no_leftover_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store-new-by-wal-1-1");
    let database = Database::open_pages(&path).unwrap();
    let other = Database::open_pages(folder.path().join("other")).unwrap();
    commit(&database, 7);
    let read = database.begin_read().unwrap();
    assert_eq!(read.page(PageNo::new(2).unwrap()).unwrap()[9], 7);
    assert!(path.exists());
    drop(read);
    database.close().unwrap();
    other.close().unwrap();
}

#[test]
fn messages_of_refused_files_have_no_runs_of_spaces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for content in [&b""[..], &[7; 8192], b"SQLite format 3\0"] {
        fs::write(&path, content).unwrap();
        let error = Database::open(&path).unwrap_err().to_string();
        assert!(!error.contains("  "), "{error}");
    }
}
