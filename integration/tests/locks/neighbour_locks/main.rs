//! A stock SQLite opens a database on one thread of a process while ours opens, uses and
//! closes the same files on others. Its locks belong to the process and go with any close
//! of a file, so none of our descriptors may be closed; another process looks.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![cfg(target_os = "linux")]

mod neighbour;
mod system;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use integration::worker::{HeldByte, Settings, WATCHDOG, Worker};
use neighbour::{Kind, Neighbour};
use tempfile::TempDir;
use wal::{Error, Lock, Options, PageNo, Synchronous};
use wal_core::storage::{OpenMode, beside, database_bytes, shm_bytes};
use wal_shm::{ShmOptions, ShmWalCoordination};

/// How often the neighbour opens the database beside each use of ours.
const ROUNDS: u64 = 60;
/// How many threads of ours there are.
const THREADS: usize = 2;
/// How often each of them opens and closes the database in a round.
const OPENS: usize = 3;
/// Descriptors of other files, which make anything slow that looks at all of them.
const OTHERS: usize = 400;
/// The lock bytes of all read slots.
const READS: Range<u64> = 123..shm_bytes::DMS.start;

/// A database of stock SQLite, and another process that looks at its locks.
struct Scene {
    kind: Kind,
    path: PathBuf,
    onlooker: Worker,
    _others: Vec<File>,
    _directory: TempDir,
}

impl Scene {
    fn new(kind: Kind, journal_mode: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let neighbour = kind.open(&path);
        neighbour.run(&format!("PRAGMA journal_mode={journal_mode}"));
        neighbour.run("CREATE TABLE t(a)");
        let other = |_| File::open("/dev/null").unwrap();
        Scene {
            kind,
            path,
            onlooker: Worker::spawn().unwrap(),
            _others: (0..OTHERS).map(other).collect(),
            _directory: directory,
        }
    }

    /// Runs `ours` on its threads while the neighbour opens the database and begins to
    /// write, again and again, and calls `look` whenever ours has closed all it opened and
    /// the neighbour has not ended its transaction.
    fn race(mut self, ours: impl Fn(&Path) + Sync, look: impl Fn(&mut Self, u64)) {
        let seed = fastrand::u64(..);
        println!("{}, seed {seed}", self.kind);
        let path = self.path.clone();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (go, gone) = mpsc::channel::<()>();
                    let (done, ended) = mpsc::channel();
                    let (ours, path) = (&ours, &path);
                    scope.spawn(move || {
                        let mut rng = fastrand::Rng::with_seed(seed + thread as u64);
                        while gone.recv().is_ok() {
                            for _ in 0..OPENS {
                                spin(&mut rng);
                                ours(path);
                            }
                            done.send(()).unwrap();
                        }
                    });
                    (go, ended)
                })
                .collect();
            let mut rng = fastrand::Rng::with_seed(!seed);
            for round in 0..ROUNDS {
                threads.iter().for_each(|(go, _)| go.send(()).unwrap());
                spin(&mut rng);
                let neighbour = self.begin(round);
                for (_, ended) in &threads {
                    ended.recv_timeout(WATCHDOG).unwrap();
                }
                look(&mut self, round);
                neighbour.run("COMMIT");
            }
        });
        self.expect_rows(ROUNDS);
    }

    fn begin(&self, round: u64) -> Neighbour {
        let neighbour = self.kind.open(&self.path);
        neighbour.run("PRAGMA synchronous=OFF");
        neighbour.run("BEGIN IMMEDIATE");
        neighbour.run(&format!("INSERT INTO t VALUES({round})"));
        neighbour
    }

    fn held(&mut self, file: &Path, byte: u64) -> Option<HeldByte> {
        self.onlooker.probe(file, byte).unwrap()
    }

    /// The neighbour holds what a writer of a log holds.
    fn expect_writer(&mut self, round: u64) {
        let (path, shm) = (self.path.clone(), beside(&self.path, "-shm"));
        let shared = Some(HeldByte::Shared);
        let write = shm_bytes::of(Lock::Write).start;
        assert_eq!(
            self.held(&shm, write),
            Some(HeldByte::Exclusive),
            "WRITE is lost in round {round}"
        );
        assert_eq!(
            self.held(&shm, shm_bytes::DMS.start),
            shared,
            "DMS is lost in round {round}"
        );
        assert!(
            READS
                .into_iter()
                .any(|byte| self.held(&shm, byte) == shared),
            "the read mark is lost in round {round}"
        );
        assert_eq!(
            self.held(&path, database_bytes::SHARED.start),
            shared,
            "SHARED is lost in round {round}"
        );
    }

    /// The neighbour holds what a writer of a rollback journal holds.
    fn expect_reserved(&mut self, round: u64) {
        let path = self.path.clone();
        assert_eq!(
            self.held(&path, database_bytes::RESERVED.start),
            Some(HeldByte::Exclusive),
            "RESERVED is lost in round {round}"
        );
    }

    fn expect_rows(&self, rows: u64) {
        let neighbour = self.kind.open(&self.path);
        // Fails unless each round has left its row.
        neighbour.run("CREATE TABLE count(rows CHECK(rows = 1))");
        neighbour.run(&format!(
            "INSERT INTO count SELECT count(*) = {rows} FROM t"
        ));
    }
}

/// Lets up to a third of a millisecond pass, so that rounds differ.
fn spin(rng: &mut fastrand::Rng) {
    let until = std::time::Instant::now() + Duration::from_micros(rng.u64(0..300));
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn options() -> Options {
    Options::new()
        .create(false)
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::from_secs(10))
}

fn read(database: &wal::Database) {
    let read = database.begin_read().unwrap();
    assert!(!read.page(PageNo::ONE).unwrap().is_empty());
}

fn beside_each_neighbour(ours: impl Fn(&Path) + Sync + Copy) {
    for kind in Kind::available() {
        Scene::new(kind, "wal").race(ours, Scene::expect_writer);
    }
}

/// A peer process keeps the files, so that no close of ours is a last one, which SQLite
/// would wait for.
#[test]
fn sqlite_opening_beside_our_close_keeps_its_locks() {
    for kind in Kind::available() {
        let scene = Scene::new(kind, "wal");
        let peer = Worker::open(&Settings::new(&scene.path)).unwrap();
        let ours = |path: &Path| {
            let database = options().open(path).unwrap();
            read(&database);
            database.close().unwrap();
        };
        scene.race(ours, Scene::expect_writer);
        peer.end().unwrap();
    }
}

#[test]
fn sqlite_opening_beside_our_last_close_keeps_its_locks() {
    beside_each_neighbour(|path| {
        let database = options().open(path).unwrap();
        read(&database);
        database.close().unwrap();
    });
}

#[test]
fn sqlite_opening_beside_a_reader_of_ours_keeps_its_locks() {
    beside_each_neighbour(|path| {
        // Refused as long as nobody has made `-shm`.
        if let Ok(database) = options().read_only(true).open(path) {
            read(&database);
            database.close().unwrap();
        }
    });
}

#[test]
fn sqlite_opening_beside_an_immutable_handle_keeps_its_locks() {
    beside_each_neighbour(|path| {
        let database = options().immutable(true).open(path).unwrap();
        database.close().unwrap();
    });
}

#[test]
fn sqlite_opening_beside_an_owner_of_ours_keeps_its_locks() {
    beside_each_neighbour(|path| {
        let options = options().busy_timeout(Duration::ZERO);
        match options.open_inproc(path) {
            Ok(database) => database.close().unwrap(),
            Err(error) => assert!(matches!(error, Error::Locked { .. }), "{error}"),
        }
    });
}

#[test]
fn sqlite_opening_beside_a_refused_attach_keeps_its_locks() {
    beside_each_neighbour(|path| {
        let look = |_: &_| Err::<(), _>(Error::InvalidPageNo);
        let attached =
            ShmWalCoordination::open(path, OpenMode::Existing, ShmOptions::default(), look);
        let error = attached.unwrap_err();
        assert!(
            matches!(error, Error::InvalidPageNo | Error::Locked { .. }),
            "{error}"
        );
    });
}

#[test]
fn sqlite_with_a_journal_keeps_reserved_beside_a_refused_open() {
    for kind in Kind::available() {
        let ours = |path: &Path| {
            let options = options().busy_timeout(Duration::ZERO);
            for error in [
                options.open(path).unwrap_err(),
                options.open_inproc(path).unwrap_err(),
            ] {
                assert!(
                    matches!(
                        error,
                        Error::NotWalMode { .. } | Error::Locked { .. } | Error::HotJournal { .. }
                    ),
                    "{error}"
                );
            }
        };
        Scene::new(kind, "delete").race(ours, Scene::expect_reserved);
    }
}
