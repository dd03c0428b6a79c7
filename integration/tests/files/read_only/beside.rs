//! Beside writers that are there: the shared index is used, and nothing of it changed.

use super::*;

#[test]
fn a_reader_follows_a_live_writer_that_checkpoints() {
    for kind in StockKind::available() {
        let (folder, path, mut peer) = database_of(kind);
        protect(folder.path());
        let database = open_patient(&path);
        for round in 0..12 {
            let before = database.begin_read().unwrap();
            let pages = seen(&database, &before);
            assert_eq!(pages, truth(&path, 4096), "{kind}, round {round}");
            insert(&mut peer, 20);
            run(&mut peer, "PRAGMA wal_checkpoint(PASSIVE)");
            insert(&mut peer, 5);
            assert_eq!(seen(&database, &before), pages, "{kind}, round {round}");
            assert_newest_is_the_truth(&database, &path, &format!("{kind}, round {round}"));
            drop(before);
            if round % 3 == 0 {
                assert!(!checkpoint_is_busy(&mut peer), "{kind}, round {round}");
            }
        }
        database.close().unwrap();
        peer.close().unwrap();
        assert_eq!(FolderState::of(folder.path()).unwrap().names(), ["app.db"]);
    }
}

/// The log stands unchanged, and may begin anew at any moment.
#[test]
fn beside_a_writer_that_moved_all_of_the_log_the_shared_index_is_used() {
    for kind in StockKind::available() {
        let (_folder, path) = abandoned(kind);
        let database = open_patient(&path);
        let pages = newest(&database);
        let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
        run(&mut peer, "PRAGMA wal_checkpoint(PASSIVE)");
        let read = database.begin_read().unwrap();
        run(&mut peer, "UPDATE t SET x = randomblob(300)");
        assert_eq!(seen(&database, &read), pages, "{kind}");
        assert_newest_is_the_truth(&database, &path, &format!("{kind}"));
    }
}

#[test]
fn our_own_writers_are_followed_in_other_processes_and_in_this_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pages.db");
    let stamp = |writer, sequence| Stamp { writer, sequence };
    let mut writer = Worker::open(&Settings::new(&path)).unwrap();
    writer.commit(1..2, stamp(1, 1)).unwrap();
    for name in ["", "-wal", "-shm"] {
        let file = beside(&path, name);
        fs::set_permissions(file, Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
    let elsewhere = open_patient(&path);
    let of = |database: &Database| newest(database)[0].clone();
    let mut states = vec![of(&elsewhere)];
    for serial in 2..5 {
        writer.commit(1..2, stamp(1, serial)).unwrap();
        assert!(
            writer
                .ask::<bool>(Command::Checkpoint(Checkpoint::Passive))
                .unwrap()
        );
        let state = of(&elsewhere);
        assert!(!states.contains(&state), "commit {serial} is not seen");
        states.push(state);
    }
    if !Need::Root.is_met("a reader without rights beside a writer in one process") {
        return;
    }
    let options = Options::new().kind(kind_at(&path));
    let here = options.open_shm(&path).unwrap();
    let beside_it = read_only(PATIENT)
        .kind(kind_at(&path))
        .open_shm(&path)
        .unwrap();
    let mut write = here.begin_write().unwrap();
    write.page_mut(wal::PageNo::ONE).unwrap()[0] ^= 1;
    write.commit().unwrap();
    let state = of(&here);
    assert!(!states.contains(&state));
    assert_eq!((of(&beside_it), of(&elsewhere)), (state.clone(), state));
    // The last to go may not clean up, so all stays.
    writer.run(Command::Close).unwrap();
    here.close().unwrap();
    drop((beside_it, elsewhere));
    assert!(beside(&path, "-wal").exists());
}

/// The words of a live wal-index are made what a dying writer may leave.
fn damage(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(beside(path, "-shm"));
    file.unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_damaged_live_index_is_left_to_a_writer() {
    let (folder, path, mut peer) = database_of(StockKind::Bundled);
    // The peer that mends it must be another: closing the file in this
    // process touches no lock of it.
    let database = open(&path, &read_only(IMPATIENT)).unwrap();
    let pages = newest(&database);
    damage(&path, 8, &[0xff; 4]);
    let error = database.begin_read().unwrap_err();
    assert!(matches!(error, Error::NeedsRecovery { .. }), "{error:?}");
    assert!(error.is_busy());
    run(&mut peer, "SELECT count(*) FROM t");
    assert_eq!(newest(&database), pages);
    drop(folder);
}

#[test]
fn a_live_index_without_a_usable_mark_is_waited_for() {
    let (_folder, path, mut peer) = database_of(StockKind::Bundled);
    let database = open(&path, &read_only(IMPATIENT)).unwrap();
    let pages = newest(&database);
    damage(&path, 104, &[0xff; 16]);
    let error = database.begin_read().unwrap_err();
    let is_busy = matches!(
        error,
        Error::Busy {
            lock: Lock::ReadMarks,
            ..
        }
    );
    assert!(is_busy, "{error:?}");
    run(&mut peer, "SELECT count(*) FROM t");
    assert_eq!(newest(&database), pages);
}
