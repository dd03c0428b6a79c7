use super::*;
use crate::sync::Unpoison;
use crate::types::LockMode;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// There is one table for all tests of a process, and each park checks files of other tests.
/// So each test parks what it opens: a file that seems to be in use is never closed, also if
/// its inode is that of another test's file by then.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Scene {
    directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Self {
        Scene {
            _alone: ONE_AT_A_TIME.lock().unpoison(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn open(path: &Path) -> Parkable {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    adopt(options.open(path).unwrap(), Reach::Writes).unwrap()
}

fn id_of(path: &Path) -> FileId {
    FileId::of(&std::fs::symlink_metadata(path).unwrap())
}

fn open_to_read(path: &Path) -> Parkable {
    adopt(File::open(path).unwrap(), Reach::Reads).unwrap()
}

/// Removes the name of the file at `path`, and keeps its inode, which else might be that of
/// a new file of another test once the last descriptor is closed.
fn unlink(path: &Path) -> File {
    let pin = File::open(path).unwrap();
    std::fs::remove_file(path).unwrap();
    pin
}

/// How many descriptors of the file `id` are parked.
fn parked(id: FileId) -> usize {
    table().files.get(&id).map_or(0, |known| known.parked.len())
}

#[test]
fn a_parked_descriptor_is_reused_for_the_same_file_only() {
    let scene = Scene::new();
    let (path, other) = (scene.path("a"), scene.path("b"));
    let file = open(&path);
    let number = file.file().as_raw_fd();
    park(file, false);
    std::fs::write(&other, "").unwrap();
    assert!(reuse(id_of(&other), Reach::Writes).is_none());
    let reused = reuse(id_of(&path), Reach::Writes).unwrap();
    assert_eq!(reused.file().as_raw_fd(), number);
    assert!(reuse(id_of(&path), Reach::Writes).is_none());
    park(reused, false);
}

#[test]
fn a_descriptor_that_cannot_write_is_reused_to_read_only() {
    let scene = Scene::new();
    let path = scene.path("a");
    std::fs::write(&path, "").unwrap();
    let id = id_of(&path);
    park(open_to_read(&path), false);
    assert!(reuse(id_of(&path), Reach::Writes).is_none());
    park(open(&path), false);
    // The other one stays for a writer.
    let reader = reuse(id_of(&path), Reach::Reads).unwrap();
    assert_eq!(reader.reach, Reach::Reads);
    let writer = reuse(id_of(&path), Reach::Reads).unwrap();
    assert_eq!(writer.reach, Reach::Writes);
    park(reader, false);
    park(writer, false);
    assert_eq!(parked(id), 2);
}

#[test]
fn a_symbolic_link_is_not_the_file_that_it_leads_to() {
    let scene = Scene::new();
    let (path, link) = (scene.path("a"), scene.path("link"));
    park(open(&path), false);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(reuse(id_of(&link), Reach::Writes).is_none());
}

#[test]
fn a_parked_descriptor_holds_no_lock() {
    let scene = Scene::new();
    let path = scene.path("a");
    let (file, onlooker) = (open(&path), open(&path));
    for byte in [1..2, 7..8, u64::MAX / 2 - 1..u64::MAX / 2] {
        let locked = LOCKS.try_lock(file.file(), byte, LockMode::Exclusive);
        assert!(locked.unwrap());
    }
    park(file, false);
    let held = LOCKS.conflict(onlooker.file(), 0..u64::MAX / 2).unwrap();
    assert_eq!(held.is_some(), !LOCKS.belong_to_description());
    park(onlooker, false);
}

/// Closing any descriptor of the file drops the classic lock that is held by another one.
#[test]
fn a_parked_descriptor_costs_no_classic_lock() {
    let scene = Scene::new();
    let path = scene.path("a");
    let (neighbour, onlooker) = (open(&path), open(&path));
    let classic = ByteLocks::new(LockKind::Classic);
    let locked = classic.try_lock(neighbour.file(), 1..2, LockMode::Exclusive);
    assert!(locked.unwrap());
    park(open(&path), false);
    // Nor by a promise, while this library has the file in use.
    park(open(&path), true);
    let held = LOCKS.conflict(onlooker.file(), 1..2).unwrap();
    assert!(held.is_some() || !LOCKS.belong_to_description());
    assert_eq!(parked(neighbour.id()), 2);
    park(neighbour, false);
    park(onlooker, false);
}

#[test]
fn a_descriptor_that_may_close_is_closed_after_the_last_use() {
    let scene = Scene::new();
    let path = scene.path("a");
    let (one, two, keeps) = (open(&path), open(&path), open(&path));
    let id = one.id();
    park(one, true);
    park(keeps, false);
    assert_eq!(parked(id), 2, "the file is in use");
    park(two, true);
    assert_eq!(parked(id), 1, "one came without a promise");
    let reused = reuse(id_of(&path), Reach::Writes).unwrap();
    park(reused, true);
    assert_eq!(parked(id), 0);
    assert!(!table().files.contains_key(&id));
}

#[test]
fn descriptors_of_unlinked_files_are_closed_by_later_parks() {
    const FILES: usize = 40;
    let scene = Scene::new();
    let path = |number: usize| scene.path(&number.to_string());
    let files: Vec<_> = (0..FILES).map(|number| open(&path(number))).collect();
    let last = open(&scene.path("last"));
    let ids: Vec<_> = files.iter().map(Parkable::id).collect();
    files.into_iter().for_each(|file| park(file, false));
    assert!(ids.iter().all(|id| parked(*id) == 1));
    let _pins: Vec<_> = (0..FILES).map(|number| unlink(&path(number))).collect();
    // Each park checks some, those of other tests included.
    park(last, false);
    let files = table().files.len();
    for _ in 0..files {
        park(
            reuse(id_of(&scene.path("last")), Reach::Writes).unwrap(),
            false,
        );
    }
    assert!(ids.iter().all(|id| parked(*id) == 0));
}

#[test]
fn a_descriptor_of_an_unlinked_file_is_closed_when_it_is_parked() {
    let scene = Scene::new();
    let path = scene.path("a");
    let (one, two) = (open(&path), open(&path));
    let id = one.id();
    let _pin = unlink(&path);
    park(one, false);
    assert_eq!(parked(id), 1, "the file is in use");
    park(two, false);
    assert_eq!(parked(id), 0);
}

#[test]
fn an_open_without_room_closes_unlinked_files_and_tells_of_others() {
    let scene = Scene::new();
    let (path, other) = (scene.path("a"), scene.path("b"));
    let file = open(&path);
    let id = file.id();
    park(file, false);
    park(open(&other), false);
    let _pin = unlink(&path);
    let error = open_with_room(MayCarry::Locks, || Err(Errno::EMFILE.into())).unwrap_err();
    assert_eq!(parked(id), 0);
    let message = error.to_string();
    for said in ["this process keeps", "RLIMIT_NOFILE", "`close_descriptors`"] {
        assert!(message.contains(said), "{message}");
    }
    let another = open_with_room(MayCarry::Locks, || Err(Errno::ENOENT.into())).unwrap_err();
    assert_eq!(another.raw_os_error(), Some(Errno::ENOENT as i32));
}
