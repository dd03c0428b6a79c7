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
