//! Files that were replaced, and locks that were lost, are found by what processes have open.

use super::*;

/// Which files `pid` has open, as `-shm current`.
fn files_of(scene: &Scene, pid: u32) -> Vec<String> {
    let open = OpenFiles::find(&scene.path, WATCHDOG).unwrap();
    let of_process = open.files.iter().filter(|open| open.pid == pid);
    let shown = of_process.map(|open| {
        let state = if open.is_current {
            "current"
        } else {
            "replaced"
        };
        format!("{} {state}", open.file.suffix())
    });
    shown.collect()
}

#[test]
fn file_that_was_replaced_is_told_from_the_current_one() {
    let mut scene = Scene::new();
    let mut ours = scene.worker();
    scene.commit(&mut ours);
    let all = [" current", "-wal current", "-shm current", "-coord current"];
    assert_eq!(files_of(&scene, ours.pid()), all);
    let log = beside(&scene.path, "-wal");
    fs::remove_file(&log).unwrap();
    fs::write(&log, b"another one").unwrap();
    let replaced = [
        " current",
        "-wal replaced",
        "-shm current",
        "-coord current",
    ];
    assert_eq!(files_of(&scene, ours.pid()), replaced);
    // A database of the same name elsewhere is none of its files.
    let other = Scene::new();
    let theirs = other.worker();
    assert!(files_of(&scene, theirs.pid()).is_empty());
}

/// Any close of the file in the process drops its POSIX locks.
#[test]
fn process_that_lost_its_locks_has_the_file_open_without_shared() {
    let scene = Scene::new();
    let own = std::process::id();
    let connection = rusqlite::Connection::open(&scene.path).unwrap();
    let rows = |connection: &rusqlite::Connection| {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
    };
    assert_eq!(rows(&connection), Ok(0));
    let holds_shared = || {
        let census = scene.census();
        let mut held = census.held().filter(|lock| lock.pid == Some(own));
        held.any(|lock| lock.byte == LockByte::Shared)
    };
    let open = || files_of(&scene, own);
    for _ in 0..2 {
        assert!(holds_shared(), "a look drops no lock");
        assert!(open().contains(&" current".to_owned()));
        assert!(SideView::of(&scene.path).unwrap().is_none());
    }
    drop(fs::File::open(&scene.path).unwrap());
    assert!(!holds_shared());
    assert!(open().contains(&" current".to_owned()));
}

/// A process goes on with a file whose name was removed, and its descriptor leads there.
#[test]
fn removed_files_of_a_process_are_reached_by_its_descriptors() {
    let mut scene = Scene::new();
    let mut ours = scene.worker();
    scene.commit(&mut ours);
    let log = beside(&scene.path, "-wal");
    let contents = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(files_of(&scene, ours.pid()).contains(&"-wal replaced".to_owned()));
    fs::remove_file(&scene.path).unwrap();
    let open = OpenFiles::find(&scene.path, WATCHDOG).unwrap();
    let is_ours = |open: &&wal_shm::inspect::OpenFile| open.pid == ours.pid() && !open.is_current;
    assert_eq!(open.files.iter().filter(is_ours).count(), 2);
    let open = OpenFiles::of_process(&scene.path, ours.pid(), WATCHDOG).unwrap();
    assert_eq!(open.unseen, []);
    let removed = open.files.iter().filter(|open| !open.is_current);
    let removed: Vec<_> = removed.map(|open| open.file).collect();
    assert_eq!(removed, [DatabaseFile::Database, DatabaseFile::Log]);
    let of_log = |open: &&wal_shm::inspect::OpenFile| open.file == DatabaseFile::Log;
    let link = open.files.iter().find(of_log).unwrap().link();
    let file = OsFile::open(&link, OpenMode::ObservedByLink).unwrap();
    let mut read = vec![0; contents.len()];
    assert_eq!(file.read_at(&mut read, 0).unwrap(), contents.len());
    assert!(read == contents);
}
