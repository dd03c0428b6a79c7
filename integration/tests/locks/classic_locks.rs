//! Two uses of one database in one process, at least one of them by classic locks, which do
//! not conflict within a process: the second one is refused, whatever either of them is.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use integration::worker::{HeldByte, Settings, WATCHDOG, Worker};
use tempfile::TempDir;
use wal::{DatabaseKind, Error, Options, PageNo};
use wal_core::storage::{ByteLocks, LockKind, OpenMode, OsFile, beside, database_bytes, shm_bytes};
use wal_core::{Lock, LockMode, Result, WalCoordination};
use wal_inproc::{InProcessOptions, InProcessWalCoordination};
use wal_shm::{Access, DatabaseOwner, ShmOptions, ShmWalCoordination};

use LockKind::{Classic, OpenFileDescription};

const CLASSIC: ByteLocks = ByteLocks::new(Classic);
/// The length of one block of the wal-index.
const BLOCK: u64 = 32768;

/// How a database is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Shared,
    ReadOnly,
    Engine,
    InProcess,
}

/// A page store of one page, and another process that looks at its locks.
struct Scene {
    path: PathBuf,
    /// By which an engine locks the database file; not closed before the end.
    engine: Arc<File>,
    onlooker: Mutex<Worker>,
    directory: TempDir,
}

#[derive(Debug)]
struct Engine(Arc<File>);

impl DatabaseOwner for Engine {
    fn try_lock_exclusive(&self) -> Result<bool> {
        let bytes = database_bytes::SHARED;
        Ok(CLASSIC
            .try_lock(&self.0, bytes, LockMode::Exclusive)
            .unwrap())
    }
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("pages");
        fs::write(&path, [0; 4096]).unwrap();
        // For a reader, which may not make it.
        fs::write(beside(&path, "-shm"), []).unwrap();
        let engine = File::options().read(true).write(true).open(&path).unwrap();
        Scene {
            path,
            engine: Arc::new(engine),
            onlooker: Mutex::new(Worker::spawn().unwrap()),
            directory,
        }
    }

    fn open(&self, how: Use, kind: LockKind) -> Result<Opened> {
        if how == Use::Engine {
            // As any SQLite does before it opens its log.
            let bytes = database_bytes::SHARED;
            let locked = CLASSIC.try_lock(&self.engine, bytes, LockMode::Shared);
            if !locked.unwrap() {
                let path = self.path.clone();
                return Err(Error::Locked { path });
            }
        }
        self.attach(how, kind, &self.path)
    }

    fn attach(&self, how: Use, kind: LockKind, path: &Path) -> Result<Opened> {
        let mut options = ShmOptions::default();
        options.lock_kind = kind;
        options.allow_other_names = true;
        if how == Use::ReadOnly {
            options.access = Access::ReadOnly;
        }
        Ok(match how {
            Use::Shared | Use::ReadOnly => {
                let look = |_: &OsFile| Ok(());
                let shm = ShmWalCoordination::open(path, OpenMode::Existing, options, look)?;
                Opened::Shm(shm.0)
            }
            Use::Engine => {
                let engine = Engine(self.engine.clone());
                Opened::Shm(ShmWalCoordination::attach(path, options, engine)?)
            }
            Use::InProcess => {
                let mut options = InProcessOptions::default();
                options.lock_kind = kind;
                options.allow_other_names = true;
                let owned = InProcessWalCoordination::open(path, OpenMode::Existing, options)?;
                Opened::InProcess {
                    _owned: Box::new(owned.0),
                }
            }
        })
    }

    fn held(&self, file: &Path, byte: u64) -> Option<HeldByte> {
        self.onlooker.lock().unwrap().probe(file, byte).unwrap()
    }

    /// `opened`, which has begun to write, still has its index and its locks.
    fn expect_intact(&self, opened: &Opened, what: &str) {
        let on_database = self.held(&self.path, database_bytes::SHARED.start);
        match opened {
            Opened::InProcess { .. } => {
                assert_eq!(on_database, Some(HeldByte::Exclusive), "EXCLUSIVE, {what}");
            }
            Opened::Shm(_) => {
                let index = beside(&self.path, "-shm");
                // Not looked at by opening it, which would drop classic locks.
                assert_eq!(fs::metadata(&index).unwrap().len(), BLOCK, "{what}");
                assert_eq!(on_database, Some(HeldByte::Shared), "SHARED, {what}");
                let held = |byte| self.held(&index, byte);
                let (write, dms) = (shm_bytes::of(Lock::Write), shm_bytes::DMS);
                assert_eq!(held(write.start), Some(HeldByte::Exclusive), "{what}");
                assert_eq!(held(dms.start), Some(HeldByte::Shared), "DMS, {what}");
            }
        }
    }
}

/// Dropped, it is closed.
enum Opened {
    Shm(ShmWalCoordination),
    InProcess {
        _owned: Box<InProcessWalCoordination>,
    },
}

impl Opened {
    /// Begins to write, so that a reset of the index shows.
    fn begin(&self) {
        if let Opened::Shm(shm) = self {
            assert!(shm.try_lock(Lock::Write, LockMode::Exclusive).unwrap());
            shm.grow(0).unwrap();
        }
    }
}

fn expect_refused(opened: Result<Opened>, what: &str) {
    match opened {
        Err(Error::Locked { .. } | Error::CannotOpen { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what}: it was opened"),
    }
}

#[test]
fn second_use_beside_classic_locks_is_refused() {
    let uses = [Use::Shared, Use::Engine, Use::InProcess];
    let kinds = [
        (Classic, Classic),
        (Classic, OpenFileDescription),
        (OpenFileDescription, Classic),
    ];
    for (first, second) in uses.iter().flat_map(|one| uses.map(|two| (*one, two))) {
        for (kind, other) in kinds {
            let what = format!("{second:?} with {other:?} beside {first:?} with {kind:?}");
            let joins = first == second && kind == other && first != Use::InProcess;
            // What an engine locks before it asks takes the place of the process's own lock.
            let is_overrun = (first, second, kind) == (Use::InProcess, Use::Engine, Classic);
            if joins || is_overrun {
                continue;
            }
            let scene = Scene::new();
            let opened = scene.open(first, kind).unwrap();
            opened.begin();
            expect_refused(scene.open(second, other), &what);
            scene.expect_intact(&opened, &what);
            drop(opened);
            CLASSIC
                .unlock(&scene.engine, database_bytes::SHARED)
                .unwrap();
            scene.open(second, other).unwrap().begin();
        }
    }
}

#[test]
fn reader_with_classic_locks_joins_its_writer_alone() {
    let scene = Scene::new();
    let writer = scene.open(Use::Shared, Classic).unwrap();
    writer.begin();
    let reader = scene.open(Use::ReadOnly, Classic).unwrap();
    expect_refused(
        scene.open(Use::ReadOnly, OpenFileDescription),
        "a reader with locks of the other kind",
    );
    drop(reader);
    scene.expect_intact(&writer, "a reader left");
    drop(writer);
    // Alone, it has an index of its own.
    let reader = scene.open(Use::ReadOnly, OpenFileDescription).unwrap();
    expect_refused(scene.open(Use::Shared, Classic), "a writer");
    drop(reader);
    scene.open(Use::Shared, Classic).unwrap().begin();
}

#[test]
fn writer_with_classic_locks_waits_for_a_reader_of_its_process() {
    let scene = Scene::new();
    let peer = Worker::open(&Settings::new(&scene.path)).unwrap();
    let reader = scene.open(Use::ReadOnly, Classic).unwrap();
    for how in [Use::Shared, Use::Engine] {
        expect_refused(scene.open(how, Classic), "a writer");
    }
    drop(reader);
    scene.open(Use::Shared, Classic).unwrap().begin();
    peer.end().unwrap();
}

/// Threads that open one database at the same moment, each in its own way.
#[test]
fn racing_uses_by_classic_locks_exclude_each_other() {
    const ROUNDS: usize = 40;
    let scene = Scene::new();
    let inside = AtomicUsize::new(0);
    let use_it = |how| {
        let deadline = Instant::now() + 3 * WATCHDOG;
        let mut rounds = 0;
        while rounds < ROUNDS {
            assert!(Instant::now() < deadline, "{how:?} after {rounds} rounds");
            // An engine's own lock is left out: it would take the place of EXCLUSIVE.
            let opened = match scene.attach(how, Classic, &scene.path) {
                Ok(opened) => opened,
                Err(Error::Locked { .. }) => {
                    thread::yield_now();
                    continue;
                }
                Err(other) => panic!("{how:?}: {other}"),
            };
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "{how:?}");
            opened.begin();
            if how != Use::Engine {
                scene.expect_intact(&opened, "in a race");
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(opened);
            rounds += 1;
        }
    };
    thread::scope(|scope| {
        for how in [Use::Shared, Use::Engine, Use::InProcess] {
            scope.spawn(move || use_it(how));
        }
    });
}

#[test]
fn second_name_of_a_database_shares_it_or_is_refused() {
    let scene = Scene::new();
    let link = scene.directory.path().join("link");
    fs::hard_link(&scene.path, &link).unwrap();
    let options = Options::new().kind(DatabaseKind::RawPages).create(false);
    let options = options.allow_other_names(true);
    let by_name = options.open(&scene.path).unwrap();
    let by_link = options.open(&link).unwrap();
    let mut write = by_link.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[0] = 7;
    write.commit().unwrap();
    assert_eq!(
        by_name.begin_read().unwrap().page(PageNo::ONE).unwrap()[0],
        7
    );
    for how in [Use::Engine, Use::InProcess] {
        expect_refused(scene.attach(how, OpenFileDescription, &link), "by the link");
    }
    drop((by_name, by_link));
    for suffix in ["-wal", "-shm", "-coord"] {
        assert!(!beside(&link, suffix).exists(), "link{suffix}");
    }
    // A reader alone has an index of its own, which a writer does not join.
    fs::write(beside(&scene.path, "-shm"), []).unwrap();
    let reader = scene.open(Use::ReadOnly, OpenFileDescription).unwrap();
    let refused = scene.attach(Use::Shared, OpenFileDescription, &link);
    assert!(matches!(refused, Err(Error::CannotOpen { .. })));
    drop(reader);
    let engine = scene.open(Use::Engine, OpenFileDescription).unwrap();
    let refused = scene.attach(Use::Engine, OpenFileDescription, &link);
    assert!(matches!(refused, Err(Error::CannotOpen { .. })));
    drop(engine);
}
