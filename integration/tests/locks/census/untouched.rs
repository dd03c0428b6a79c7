//! A look leaves the files and the locks on them as they are.

use super::*;

/// Each file as it is, without its being read.
fn states(scene: &Scene) -> Vec<(u64, u64, i64, i64, i64, i64)> {
    let states = DatabaseFile::ALL.iter().map(|file| {
        let state = fs::metadata(file.path(&scene.path)).unwrap();
        let (changed, read) = (
            (state.mtime(), state.mtime_nsec()),
            (state.atime(), state.atime_nsec()),
        );
        (
            state.ino(),
            state.len(),
            changed.0,
            changed.1,
            read.0,
            read.1,
        )
    });
    states.collect()
}

fn bytes_of(scene: &Scene) -> Vec<Vec<u8>> {
    let paths = DatabaseFile::ALL.iter().map(|file| file.path(&scene.path));
    paths.map(|path| fs::read(path).unwrap()).collect()
}

/// The system's list of locks on the files, as `OFDLCK READ 128 128`.
fn lock_table(scene: &Scene) -> Vec<String> {
    let inodes: Vec<String> = states(scene)
        .iter()
        .map(|state| format!(":{} ", state.0))
        .collect();
    let list = fs::read_to_string("/proc/locks").unwrap();
    let of_files = |line: &&str| inodes.iter().any(|inode| line.contains(inode.as_str()));
    let shown = list.lines().filter(of_files).map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        [words[1], words[3], words[6], words[7]].join(" ")
    });
    let mut locks: Vec<String> = shown.collect();
    locks.sort();
    locks
}

/// One read of a long list may have a line twice or not at all.
fn expect_lock_table(scene: &Scene, expected: [&str; 4]) {
    let deadline = std::time::Instant::now() + WATCHDOG;
    while lock_table(scene) != expected {
        assert!(std::time::Instant::now() < deadline, "{expected:#?}");
    }
}

#[test]
fn look_acquires_no_lock_and_leaves_each_file_as_it_is() {
    let mut scene = Scene::new();
    let mut ours = scene.worker();
    scene.commit(&mut ours);
    ours.begin_read("held").unwrap();
    // A read access would be newer than these.
    for file in DatabaseFile::ALL {
        let file = fs::File::options()
            .write(true)
            .open(file.path(&scene.path))
            .unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_times(fs::FileTimes::new().set_accessed(long_ago))
            .unwrap();
    }
    let before = states(&scene);
    let locks = [
        "OFDLCK READ 1048576 1048576",
        "OFDLCK READ 1073741826 1073742335",
        "OFDLCK READ 124 124",
        "OFDLCK READ 128 128",
    ];
    expect_lock_table(&scene, locks);
    for _ in 0..3 {
        let (census, index) = (scene.census(), scene.index());
        assert_eq!(
            census
                .slots(&index)
                .iter()
                .filter(|slot| slot.mode.is_some())
                .count(),
            1
        );
        assert!(SideView::of(&scene.path).unwrap().is_some());
        expect_lock_table(&scene, locks);
    }
    assert_eq!(states(&scene), before);
    let bytes = bytes_of(&scene);
    scene.census();
    assert_eq!(bytes_of(&scene), bytes);
}

#[test]
fn look_makes_no_file_beside_a_database_without_users() {
    let scene = Scene::new();
    let census = scene.census();
    assert!(census.locks.is_empty() && census.processes.is_empty());
    assert!(SideView::of(&scene.path).unwrap().is_none());
    let entries = fs::read_dir(scene.directory.path()).unwrap();
    assert_eq!(entries.count(), 1, "the database alone");
}
