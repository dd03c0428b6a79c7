//! What is refused, what is said then, and the database that nobody writes.

use super::*;

#[test]
fn whatever_writes_is_refused() {
    let (folder, path, peer) = database_of(StockKind::Bundled);
    protect(folder.path());
    let refused = |database: &Database| {
        let is_read_only = |error: &Error| matches!(error, Error::ReadOnly { .. });
        assert!(is_read_only(&database.begin_write().unwrap_err()));
        let checkpoint = database.checkpoint(CheckpointMode::Passive);
        assert!(is_read_only(&checkpoint.unwrap_err()));
        let upgraded = database.begin_read().unwrap().upgrade();
        assert!(is_read_only(&upgraded.unwrap_err().error));
    };
    refused(&open_patient(&path));
    peer.kill().unwrap();
    refused(&open_patient(&path));
    refused(&open(&path, &Options::new().immutable(true)).unwrap());
}

#[test]
fn who_may_not_write_is_told_how_to_read() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    let error = open(&path, &Options::new()).unwrap_err().to_string();
    assert!(error.contains("app.db: open failed"), "{error}");
    assert!(error.contains("Options::read_only"), "{error}");
}

#[test]
fn without_a_wal_index_only_an_immutable_database_is_read() {
    let (folder, path, peer) = database_of(StockKind::Bundled);
    peer.close().unwrap();
    protect(folder.path());
    let before = FolderState::of(folder.path()).unwrap();
    assert_eq!(before.names(), ["app.db"]);
    let error = open(&path, &read_only(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
    for way_out in ["-shm", "for writing", "immutable"] {
        assert!(error.to_string().contains(way_out), "{error}");
    }
    let immutable = open(&path, &Options::new().immutable(true)).unwrap();
    let file = fs::read(&path).unwrap();
    let pages: Vec<_> = file.chunks(4096).map(page_digest).collect();
    assert_eq!(newest(&immutable), pages);
    drop(immutable);
    let after = FolderState::of(folder.path()).unwrap();
    assert_eq!(before.changes(&after), [""; 0]);
}

#[test]
fn an_immutable_database_is_the_file_alone() {
    let (_folder, path, mut peer) = database_of(StockKind::Bundled);
    assert!(!checkpoint_is_busy(&mut peer));
    let in_file: Vec<_> = {
        let file = fs::read(&path).unwrap();
        file.chunks(4096).map(page_digest).collect()
    };
    insert(&mut peer, 5);
    let database = Options::new().immutable(true).open_shm(&path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(seen(&database, &read), in_file);
    // It locks nothing: the peer can do all, to its own harm.
    assert!(!checkpoint_is_busy(&mut peer));
    drop(read);
    drop(database);
    peer.close().unwrap();
}

#[test]
fn the_in_process_backend_does_not_read_only() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    let error = read_only(IMPATIENT).open_inproc(&path).unwrap_err();
    assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
}
