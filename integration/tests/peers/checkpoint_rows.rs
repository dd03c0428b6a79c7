//! `PRAGMA wal_checkpoint(X)` of stock SQLite and a checkpoint of ours give
//! the same row in the same state: busy, frames in the log, frames in the
//! database file.
//!
//! Each state is made anew for each of the two, by connections of stock SQLite
//! that keep what they hold while the checkpoint runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use wal::{CheckpointMode, CheckpointOptions, Database, Error, Lock, Options};
use wal_core::storage::beside;

/// What the pragma answers.
type Row = (bool, i64, i64);

const MODES: [(&str, CheckpointMode); 4] = [
    ("PASSIVE", CheckpointMode::Passive),
    ("FULL", CheckpointMode::Full),
    ("RESTART", CheckpointMode::Restart),
    ("TRUNCATE", CheckpointMode::Truncate),
];

/// The connections that make a state, and stay while it is looked at.
type Peers = Vec<Connection>;

/// How a state is made, with a connection that has the database open.
type Make = fn(&Path, &Connection) -> Peers;

const STATES: [(&str, Make); 12] = [
    ("an empty log", |_, _| Vec::new()),
    ("a log that nobody reads", |_, peer| {
        commits(peer, 3);
        Vec::new()
    }),
    ("a reader of the newest state", |path, peer| {
        commits(peer, 3);
        vec![reader(path)]
    }),
    ("a reader of an older state", |path, peer| {
        commits(peer, 2);
        let old = reader(path);
        commits(peer, 2);
        vec![old]
    }),
    ("readers of two states", |path, peer| {
        commits(peer, 1);
        let old = reader(path);
        commits(peer, 1);
        let newer = reader(path);
        commits(peer, 1);
        vec![old, newer]
    }),
    ("a reader of the database file", |path, peer| {
        commits(peer, 2);
        checkpoint(peer);
        let bypassing = reader(path);
        commits(peer, 1);
        vec![bypassing]
    }),
    ("a reader of a log that is backfilled", |path, peer| {
        commits(peer, 2);
        let reads_the_log = reader(path);
        checkpoint(peer);
        vec![reads_the_log]
    }),
    ("a writer at work", |path, peer| {
        commits(peer, 2);
        vec![writer(path)]
    }),
    ("a writer at work and an old reader", |path, peer| {
        commits(peer, 2);
        let old = reader(path);
        commits(peer, 1);
        vec![old, writer(path)]
    }),
    ("a partial backfill that goes on", |path, peer| {
        commits(peer, 2);
        let old = reader(path);
        commits(peer, 2);
        checkpoint(peer);
        drop(old);
        Vec::new()
    }),
    (
        "a partial backfill that is still held back",
        |path, peer| {
            commits(peer, 2);
            let old = reader(path);
            commits(peer, 2);
            checkpoint(peer);
            vec![old]
        },
    ),
    ("a log that was restarted", |_, peer| {
        commits(peer, 5);
        checkpoint(peer);
        commits(peer, 2);
        Vec::new()
    }),
];

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    let settings = "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; PRAGMA cache_size=50";
    connection.execute_batch(settings).unwrap();
    connection
}

fn commits(peer: &Connection, count: u32) {
    for _ in 0..count {
        let sql = "INSERT INTO t VALUES(randomblob(3000))";
        peer.execute_batch(sql).unwrap();
    }
}

fn reader(path: &Path) -> Connection {
    let connection = connect(path);
    let begin = "BEGIN; SELECT count(*) FROM t";
    connection.execute_batch(begin).unwrap();
    connection
}

fn writer(path: &Path) -> Connection {
    let connection = connect(path);
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

fn checkpoint(peer: &Connection) -> Row {
    pragma(peer, "PASSIVE")
}

fn pragma(peer: &Connection, mode: &str) -> Row {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    peer.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
}

/// What `PRAGMA wal_checkpoint` would say of a checkpoint of ours.
fn ours(database: &Database, mode: CheckpointMode) -> Row {
    match database.checkpoint_with(CheckpointOptions::new(mode)) {
        Ok(report) => {
            // A passive checkpoint that is held back is not busy to SQLite.
            let busy = report.held_back_by.is_some() && mode != CheckpointMode::Passive;
            (busy, report.log_frames.into(), report.backfilled.into())
        }
        Err(Error::Busy { .. }) => (true, -1, -1),
        Err(e) => panic!("{e}"),
    }
}

/// A database in a directory, in the state that `make` makes.
struct Scene {
    peers: Peers,
    first: Connection,
    path: PathBuf,
    _directory: TempDir,
}

impl Scene {
    fn new(make: Make) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let first = connect(&path);
        let create = "PRAGMA journal_mode=WAL; CREATE TABLE t(a)";
        first.execute_batch(create).unwrap();
        pragma(&first, "TRUNCATE");
        Scene {
            peers: make(&path, &first),
            first,
            path,
            _directory: directory,
        }
    }

    fn sizes(&self) -> (u64, u64) {
        let len = |path: &Path| path.metadata().unwrap().len();
        (len(&self.path), len(&beside(&self.path, "-wal")))
    }
}

#[test]
fn a_checkpoint_of_each_mode_gives_the_row_of_stock_sqlite() {
    for (state, make) in STATES {
        for (name, mode) in MODES {
            let (stock, our) = (Scene::new(make), Scene::new(make));
            let database = Options::new().open(&our.path).unwrap();
            let expected = pragma(&connect(&stock.path), name);
            assert_eq!(ours(&database, mode), expected, "{name} of {state}");
            assert_eq!(our.sizes(), stock.sizes(), "{name} of {state}: the files");
            // The next checkpoint finds what this one left.
            let again = pragma(&stock.first, name);
            assert_eq!(pragma(&our.first, name), again, "{name} of {state}, again");
            // Everybody goes on, and stock SQLite finds nothing wrong.
            drop((stock.peers, our.peers));
            commits(&our.first, 1);
            let check = |sql| -> String { our.first.query_row(sql, [], |r| r.get(0)).unwrap() };
            assert_eq!(check("PRAGMA integrity_check"), "ok", "{name} of {state}");
        }
    }
}

/// Stock SQLite's locks belong to processes, and the system tells whose.
#[test]
fn who_holds_a_checkpoint_back_is_named() {
    let scene = Scene::new(|path, peer| {
        commits(peer, 2);
        let old = reader(path);
        commits(peer, 1);
        vec![old]
    });
    let database = Options::new().open(&scene.path).unwrap();
    let report = database.checkpoint_with(CheckpointOptions::new(CheckpointMode::Full));
    let held = report.unwrap().held_back_by.unwrap();
    assert!(matches!(held.lock, Lock::Read(_)), "{held:?}");
    assert!(held.mark.is_some_and(|mark| mark > 0), "{held:?}");
    assert_eq!(held.holders, [std::process::id()], "{held:?}");
}
