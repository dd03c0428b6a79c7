//! Opening or leaving one database may wait, for another process or for the disk. Other
//! databases of the process are opened and left meanwhile.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use integration::worker::{WATCHDOG, Worker};
use tempfile::TempDir;
use wal::{DatabaseKind, Options, Synchronous};
use wal_core::storage::{ByteLocks, LockKind, OpenMode, OsFile, beside, database_bytes, shm_bytes};
use wal_core::{Error, LockMode, Result, WalCoordination};
use wal_shm::{DatabaseOwner, ShmOptions, ShmWalCoordination};

const CLASSIC: ByteLocks = ByteLocks::new(LockKind::Classic);
const OF_FILE: ByteLocks = ByteLocks::new(LockKind::OpenFileDescription);
/// The byte by which the first opener of a side file is found.
const FIRST_OPENER: std::ops::Range<u64> = (1 << 20)..(1 << 20) + 1;

/// Two page stores of one page.
struct Scene {
    one: PathBuf,
    other: PathBuf,
    _directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = |name| {
            let path = directory.path().join(name);
            fs::write(&path, [0; 4096]).unwrap();
            path
        };
        Scene {
            one: store("one"),
            other: store("other"),
            _directory: directory,
        }
    }

    /// Opens and closes the other store; false if that is not done before the watchdog.
    fn other_opens_and_closes(&self) -> bool {
        let (done, is_done) = mpsc::channel();
        let other = self.other.clone();
        thread::spawn(move || {
            options().open(&other).unwrap().close().unwrap();
            let _ = done.send(());
        });
        is_done.recv_timeout(WATCHDOG).is_ok()
    }
}

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .create(false)
        .synchronous(Synchronous::Off)
}

fn open(path: &Path, look: impl FnOnce(&OsFile) -> Result<()>) -> Result<(ShmWalCoordination, ())> {
    let mut options = ShmOptions::default();
    options.allow_other_names = true;
    ShmWalCoordination::open(path, OpenMode::Existing, options, look)
}

/// Where a thread stops until it is told to go on.
fn stop() -> (impl Fn() + Send + 'static, Receiver<()>, Sender<()>) {
    let (stopped, is_stopped) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let stop = move || {
        stopped.send(()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
    };
    (stop, is_stopped, go)
}

#[test]
fn other_database_opens_while_one_is_looked_at() {
    let scene = Scene::new();
    let (stop, is_stopped, go) = stop();
    thread::scope(|scope| {
        scope.spawn(|| {
            open(&scene.one, |_| {
                stop();
                Ok(())
            })
            .unwrap();
        });
        is_stopped.recv_timeout(WATCHDOG).unwrap();
        let opened = scene.other_opens_and_closes();
        go.send(()).unwrap();
        assert!(opened);
    });
}

/// An engine that takes its time to lock the database alone.
struct SlowOwner(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for SlowOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowOwner")
    }
}

impl DatabaseOwner for SlowOwner {
    fn try_lock_exclusive(&self) -> Result<bool> {
        (self.0)();
        Ok(false)
    }
}

#[test]
fn other_database_opens_while_one_is_left() {
    let scene = Scene::new();
    let engine = File::options()
        .read(true)
        .write(true)
        .open(&scene.one)
        .unwrap();
    let shared = CLASSIC.try_lock(&engine, database_bytes::SHARED, LockMode::Shared);
    assert!(shared.unwrap());
    let (stop, is_stopped, go) = stop();
    let owner = SlowOwner(Box::new(stop));
    let attached = ShmWalCoordination::attach(&scene.one, ShmOptions::default(), owner).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| assert!(!attached.detach().unwrap()));
        is_stopped.recv_timeout(WATCHDOG).unwrap();
        let opened = scene.other_opens_and_closes();
        go.send(()).unwrap();
        assert!(opened);
    });
}

/// A stopped process that opens the side file first is waited for half a second. To open
/// another database takes longer only if this process does nothing else.
#[test]
fn other_database_opens_beside_a_stopped_first_opener() {
    const TRIES: usize = 10;
    let mut onlooker = Worker::spawn().unwrap();
    let overtakes = (0..TRIES).any(|_| {
        let scene = Scene::new();
        let side = File::create(beside(&scene.one, "-coord")).unwrap();
        let first = OF_FILE.try_lock(&side, FIRST_OPENER, LockMode::Exclusive);
        assert!(first.unwrap());
        let is_open = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                open(&scene.one, |_| Ok(())).unwrap();
                is_open.store(true, Ordering::SeqCst);
            });
            // It goes on to the side file once it has `-shm`.
            let deadline = Instant::now() + WATCHDOG;
            let shm = beside(&scene.one, "-shm");
            while !shm.exists()
                || onlooker
                    .probe(&shm, shm_bytes::DMS.start)
                    .unwrap()
                    .is_none()
            {
                assert!(Instant::now() < deadline, "it does not open `-shm`");
            }
            assert!(scene.other_opens_and_closes());
            !is_open.load(Ordering::SeqCst)
        })
    });
    assert!(
        overtakes,
        "the other database waited in each of {TRIES} tries"
    );
    onlooker.end().unwrap();
}

/// Users of one database that come while it is opened wait, and share what is opened.
#[test]
fn users_that_come_while_it_is_opened_share_the_attachment() {
    const USERS: usize = 4;
    let scene = Scene::new();
    let (stop, is_stopped, go) = stop();
    let looked = Arc::new(Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            open(&scene.one, |_| {
                stop();
                looked.lock().unwrap().push(0);
                Ok(())
            })
        });
        is_stopped.recv_timeout(WATCHDOG).unwrap();
        let users: Vec<_> = (1..=USERS)
            .map(|user| {
                let (scene, looked) = (&scene, looked.clone());
                scope.spawn(move || {
                    open(&scene.one, |_| {
                        looked.lock().unwrap().push(user);
                        Ok(())
                    })
                })
            })
            .collect();
        // Not for what is tested, but so that some have come by then.
        thread::sleep(Duration::from_millis(20));
        go.send(()).unwrap();
        let (first, ()) = first.join().unwrap().unwrap();
        for user in users {
            let (user, ()) = user.join().unwrap().unwrap();
            let (one, two) = (first.database().unwrap(), user.database().unwrap());
            assert!(Arc::ptr_eq(one, two));
        }
    });
    assert_eq!(looked.lock().unwrap()[0], 0);
    assert_eq!(looked.lock().unwrap().len(), USERS + 1);
}

/// A file that is put at the path in the middle of an open is the one that is opened.
#[test]
fn open_beside_renames_to_its_path_finds_one_of_the_files() {
    const OPENS: usize = 2000;
    let scene = Scene::new();
    let directory = scene.one.parent().unwrap();
    let (path, new) = (directory.join("path"), directory.join("new"));
    fs::hard_link(&scene.one, &path).unwrap();
    let is_over = AtomicBool::new(false);
    let rename = || {
        for file in [&scene.other, &scene.one].into_iter().cycle() {
            if is_over.load(Ordering::SeqCst) {
                break;
            }
            fs::hard_link(file, &new).unwrap();
            fs::rename(&new, &path).unwrap();
        }
    };
    let refused = thread::scope(|scope| {
        scope.spawn(rename);
        let refused: Vec<_> = (0..OPENS)
            .filter_map(|_| open(&path, |_| Err(Error::InvalidPageNo)).err())
            .collect();
        is_over.store(true, Ordering::SeqCst);
        refused
    });
    assert_eq!(refused.len(), OPENS);
    for error in refused {
        assert!(matches!(error, Error::InvalidPageNo), "{error}");
    }
}
