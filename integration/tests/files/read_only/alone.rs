//! Alone, with a private index, and with writers that come later.

use super::*;

/// Every fixture that can be read at all, beside a `-shm` that is worth nothing.
#[test]
fn alone_the_log_is_read_as_stock_sqlite_reads_it_and_nothing_is_touched() {
    let readable = |fixture: &Fixture| {
        fixture.facts.journal_bytes.is_none() && fixture.facts.journal_mode == "wal"
    };
    let fixtures = fixtures::all().unwrap();
    assert!(fixtures.iter().filter(|fixture| readable(fixture)).count() > 10);
    for fixture in fixtures.iter().filter(|fixture| readable(fixture)) {
        for strategy in [ReadStrategy::Mapped, ReadStrategy::Pread] {
            let copy = fixture.copy().unwrap();
            if !copy.index().exists() {
                fs::write(copy.index(), [0xa5; 40_000]).unwrap();
            }
            protect(copy.folder());
            let before = FolderState::of(copy.folder()).unwrap();
            let options = read_only(Duration::ZERO).read_strategy(strategy);
            let database = open(&copy.database(), &options).unwrap();
            let contents = Contents::of(&database).unwrap();
            database.close().unwrap();
            let name = &fixture.facts.name;
            assert_eq!(contents.pages, fixture.facts.pages, "{name}, {strategy:?}");
            let after = FolderState::of(copy.folder()).unwrap();
            assert_eq!(before.changes(&after), [""; 0], "{name}");
        }
    }
}

#[test]
fn a_writer_that_comes_later_cannot_change_what_a_lone_reader_sees() {
    for kind in StockKind::available() {
        let (_folder, path) = abandoned(kind);
        let database = open_patient(&path);
        assert_eq!(held(&path, read_0()), None);
        let first = database.begin_read().unwrap();
        let pages = seen(&database, &first);
        assert_eq!(pages, truth(&path, 4096));
        assert_eq!(held(&path, read_0()), Some(LockMode::Shared));
        assert_eq!(held(&path, shm_bytes::DMS), None, "nobody is misled");

        let file = fs::read(&path).unwrap();
        let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
        run(
            &mut peer,
            "PRAGMA wal_autocheckpoint=0; DELETE FROM t; VACUUM",
        );
        insert(&mut peer, 30);
        assert!(checkpoint_is_busy(&mut peer), "{kind}");
        insert(&mut peer, 30);
        assert_eq!(
            fs::read(&path).unwrap(),
            file,
            "the database is not written"
        );
        assert_eq!(seen(&database, &first), pages, "{kind}");

        let second = database.begin_read().unwrap();
        assert_eq!(seen(&database, &second), truth(&path, 4096), "{kind}");
        assert_eq!(seen(&database, &first), pages, "{kind}");
        drop((first, second));
        assert_eq!(held(&path, read_0()), None, "no lock is left");
        assert!(!checkpoint_is_busy(&mut peer), "{kind}");
        insert(&mut peer, 3);
        assert_newest_is_the_truth(&database, &path, "beside the writer");
        peer.close().unwrap();
        assert_newest_is_the_truth(&database, &path, "alone again");
    }
}

#[test]
fn a_reader_that_is_left_alone_keeps_the_shared_index_for_the_next_writer() {
    for kind in StockKind::available() {
        let (_folder, path, peer) = database_of(kind);
        let database = open_patient(&path);
        let before = database.begin_read().unwrap();
        let pages = seen(&database, &before);
        peer.kill().unwrap();
        assert_eq!(held(&path, shm_bytes::DMS), Some(LockMode::Shared));
        let mut next = StockSqlite::spawn(kind, &path, None).unwrap();
        insert(&mut next, 20);
        assert_eq!(seen(&database, &before), pages, "{kind}");
        assert_newest_is_the_truth(&database, &path, &format!("{kind}"));
    }
}

/// Whoever comes and goes between two transactions leaves a changed log, and
/// no other trace.
#[test]
fn what_a_writer_left_is_seen_though_it_came_and_went() {
    let steps = [
        "INSERT INTO t VALUES (1)",
        "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES (2)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        // The log is as empty as before, and the database has another size.
        "INSERT INTO t VALUES (zeroblob(100000)); PRAGMA wal_checkpoint(TRUNCATE)",
        "DELETE FROM t; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
        "INSERT INTO t VALUES (3)",
        "DELETE FROM t; VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (4)",
    ];
    for kind in StockKind::available() {
        let (_folder, path) = abandoned(kind);
        let database = open_patient(&path);
        assert_newest_is_the_truth(&database, &path, "as it was left");
        for sql in steps {
            let seen = *database.begin_read().unwrap().snapshot();
            let mut peer = StockSqlite::spawn(kind, &path, None).unwrap();
            run(&mut peer, sql);
            peer.close().unwrap();
            assert_eq!(held(&path, shm_bytes::DMS), None);
            let when = format!("{kind}, after {sql}");
            assert!(database.changed_since(&seen).unwrap(), "{when}");
            assert_newest_is_the_truth(&database, &path, &when);
        }
        // Once a moment has passed, nothing changes any more.
        let deadline = Instant::now() + PATIENT;
        let seen = || *database.begin_read().unwrap().snapshot();
        while database.changed_since(&seen()).unwrap() {
            assert!(Instant::now() < deadline, "it changes all the time");
        }
    }
}

#[test]
fn a_commit_is_seen_by_a_second_lone_reader_while_the_first_goes_on() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    let database = open_patient(&path);
    let first = database.begin_read().unwrap();
    let pages = seen(&database, &first);
    let mut peer = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
    insert(&mut peer, 100);
    peer.kill().unwrap();
    let second = database.begin_read().unwrap();
    assert_eq!(seen(&database, &second), truth(&path, 4096));
    assert_eq!(seen(&database, &first), pages);
    drop(first);
    assert_eq!(held(&path, read_0()), Some(LockMode::Shared));
    drop(second);
    assert_eq!(held(&path, read_0()), None);
}

#[test]
fn a_reader_and_a_later_writer_of_one_process_do_not_share_an_attachment() {
    let (_folder, path) = abandoned(StockKind::Bundled);
    if !Need::Root.is_met("a reader without rights and a writer in one process") {
        return;
    }
    let database = open_patient(&path);
    let before = database.begin_read().unwrap();
    let pages = seen(&database, &before);
    let writer = Options::new().auto_checkpoint(0).open_shm(&path).unwrap();
    let mut write = writer.begin_write().unwrap();
    let added = write.allocate().unwrap();
    write.page_mut(added).unwrap()[0] = 7;
    write.commit().unwrap();
    let report = writer.checkpoint(CheckpointMode::Passive).unwrap();
    assert!(!report.is_complete(), "{report:?}");
    assert_eq!(seen(&database, &before), pages);
    assert_eq!(newest(&database), newest(&writer));
    drop(before);
    let report = writer.checkpoint(CheckpointMode::Passive).unwrap();
    assert!(report.is_complete(), "{report:?}");
}

#[test]
fn what_a_lone_reader_holds_is_read_again_whoever_has_come() {
    for stays in [false, true] {
        let (_folder, path) = abandoned(StockKind::Bundled);
        let database = open_patient(&path);
        let read = database.begin_read().unwrap();
        let pages = seen(&database, &read);
        assert!(!read.is_stale().unwrap());
        let held = read.try_clone().unwrap().hold(PATIENT).unwrap();
        let mut peer = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
        insert(&mut peer, 1);
        let peer = match stays {
            true => Some(peer),
            false => {
                peer.close().unwrap();
                None
            }
        };
        assert_eq!(seen(&database, &held.begin_read().unwrap()), pages);
        assert_eq!(seen(&database, &read.try_clone().unwrap()), pages);
        assert!(read.is_stale().unwrap());
        // What begins now begins where the writer is.
        let state = *database.tail().unwrap().state().snapshot();
        assert!(!state.is_same_state(read.snapshot()));
        let opened = database.open_snapshot(&state.save()).unwrap();
        assert_eq!(seen(&database, &opened), newest(&database));
        drop(peer);
        assert_eq!(seen(&database, &held.begin_read().unwrap()), pages);
    }
}

#[test]
fn classic_locks_read_beside_a_live_writer_and_not_alone() {
    let (_folder, path, peer) = database_of(StockKind::Bundled);
    let classic = read_only(IMPATIENT).lock_kind(LockKind::Classic);
    let database = open(&path, &classic).unwrap();
    assert_newest_is_the_truth(&database, &path, "with classic locks");
    drop(database);
    peer.kill().unwrap();
    let error = open(&path, &classic).unwrap_err();
    assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
    assert!(
        error.to_string().contains("open-file-description"),
        "{error}"
    );
}
