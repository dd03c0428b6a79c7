//! Litestream replicates a database that processes of ours and of stock SQLite
//! write, and what it restores is the database.
//!
//! `make tools` installs the program.

use integration::stamped;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use integration::needs::{Need, litestream};
use integration::spawn::spawn;
use integration::stock::{StockKind, StockSqlite, WATCHDOG};
use integration::worker::{Settings, Stamp, Worker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use wal::{CheckpointMode, Database, Options, PageNo};

const PAGES: u32 = 64;
/// Enough commits for several generations of the log; `WAL_LITESTREAM_ROUNDS` asks
/// for more.
const ROUNDS: u64 = 200;
/// How long Litestream may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `litestream replicate`; dropped, it is killed.
struct Litestream {
    program: PathBuf,
    child: Child,
    socket: PathBuf,
    database: PathBuf,
    replica: PathBuf,
}

impl Litestream {
    fn start(program: &Path, directory: &Path, database: &Path) -> Self {
        let socket = directory.join("litestream.sock");
        let replica = directory.join("replica");
        let config = directory.join("litestream.yml");
        let settings = format!(
            "socket: {{enabled: true, path: {}}}\n\
             dbs:\n  - path: {}\n    monitor-interval: 50ms\n    checkpoint-interval: 1s\n    \
             min-checkpoint-page-count: 50\n    \
             replica: {{type: file, path: {}, sync-interval: 50ms}}\n",
            socket.display(),
            database.display(),
            replica.display()
        );
        fs::write(&config, settings).unwrap();
        let log = fs::File::create(directory.join("litestream.log")).unwrap();
        let mut replicate = Process::new(program);
        replicate
            .args(["replicate", "-config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = spawn(replicate).unwrap();
        let litestream = Litestream {
            program: program.to_owned(),
            child,
            socket,
            database: database.to_owned(),
            replica,
        };
        let deadline = Instant::now() + PATIENCE;
        while !litestream.sync() {
            assert!(Instant::now() < deadline, "litestream does not start");
            thread::sleep(Duration::from_millis(50));
        }
        litestream
    }

    /// True once all that was committed is in the replica.
    fn sync(&self) -> bool {
        let mut sync = Process::new(&self.program);
        sync.args(["sync", "-wait", "-timeout", "30", "-socket"]);
        let sync = sync.arg(&self.socket).arg(&self.database);
        sync.output().unwrap().status.success()
    }

    fn stop(mut self) -> PathBuf {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "litestream does not end");
            thread::sleep(Duration::from_millis(20));
        }
        self.replica.clone()
    }
}

impl Drop for Litestream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn restore(program: &Path, replica: &Path, to: &Path) {
    let restored = Process::new(program)
        .arg("restore")
        .arg("-o")
        .arg(to)
        .arg(format!("file://{}", replica.display()))
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
}

fn rounds() -> u64 {
    env::var("WAL_LITESTREAM_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// Commits of ours and of stock SQLite in turn, with checkpoints of ours, and
/// a process of ours killed now and then: `rounds` of them, and more until the log was
/// restarted, which depends on when Litestream checkpoints. Gives the generations of the log.
fn write_for_a_while(path: &Path, pages: &Range<u32>, rounds: u64) -> usize {
    let settings = Settings::new(path);
    let mut worker = Worker::open(&settings).unwrap();
    let mut stock = StockSqlite::spawn(StockKind::Bundled, path, None).unwrap();
    stock.set_busy_timeout(WATCHDOG).unwrap();
    let observer = Database::open(path).unwrap();
    let mut generations = Vec::new();
    let deadline = Instant::now() + WATCHDOG;
    let mut round = 0;
    while round < rounds || (generations.len() < 2 && Instant::now() < deadline) {
        round += 1;
        let stamp = Stamp {
            writer: 1,
            sequence: round,
        };
        worker.commit(pages.clone(), stamp).unwrap();
        let insert = format!("INSERT INTO life VALUES({round})");
        stock.run(&insert).unwrap().unwrap();
        let salts = observer.begin_read().unwrap().snapshot().salts();
        if generations.last() != Some(&salts) {
            generations.push(salts);
        }
        if round % 50 == 0 {
            // Litestream may be at a checkpoint of its own.
            let _ = observer.checkpoint(CheckpointMode::Passive);
        }
        if round % 130 == 0 {
            worker.kill().unwrap();
            worker = Worker::open(&settings).unwrap();
        }
    }
    worker.end().unwrap();
    stock.close().unwrap();
    observer.close().unwrap();
    generations.len()
}

/// The pages of a database, in one snapshot.
fn pages_of(path: &Path) -> Vec<Vec<u8>> {
    let database = Options::new().create(false).open(path).unwrap();
    let read = database.begin_read().unwrap();
    let page = |number| read.page(PageNo::new(number).unwrap()).unwrap().to_vec();
    (1..=read.page_count()).map(page).collect()
}

#[test]
fn litestream_restores_what_ours_and_stock_sqlite_wrote() {
    if !Need::Litestream.is_met("that Litestream replicates what ours write") {
        return;
    }
    let program = litestream();
    let rounds = rounds();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.db");
    let copy = directory.path().join("copy.db");
    let table = "CREATE TABLE life(number INTEGER PRIMARY KEY)";
    let pages = stamped::create(&path, 1024, PAGES, table).unwrap();
    let replicating = Litestream::start(&program, directory.path(), &path);
    let generations = write_for_a_while(&path, &pages, rounds);
    assert!(generations > 1, "the log never began anew");
    assert!(replicating.sync(), "litestream does not catch up");
    restore(&program, &replicating.stop(), &copy);

    let (ours, restored) = (pages_of(&path), pages_of(&copy));
    assert_eq!(ours.len(), restored.len());
    for (number, (ours, restored)) in (1..).zip(ours.iter().zip(&restored)) {
        assert!(ours == restored, "page {number} differs");
    }
    let mut stock = StockSqlite::spawn(StockKind::Bundled, &copy, None).unwrap();
    let sound = stock.run("PRAGMA integrity_check").unwrap().unwrap();
    assert_eq!(sound.text().unwrap(), "ok");
    let rows = stock.run("SELECT count(*) FROM life").unwrap().unwrap();
    assert_eq!(rows.integer().unwrap(), i64::try_from(rounds).unwrap());
    stock.close().unwrap();
}
