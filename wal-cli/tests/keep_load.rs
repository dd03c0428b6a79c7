//! `walctl keep` beside four writers and four readers in Python, against the same load without
//! it.
//!
//! The load is paced, so that a machine that is loaded slows the writers down as much as `keep`:
//! the log has room for what they commit in most of a second. The time that writers were kept
//! waiting is measured by `keep` itself. Throughput and the longest wait of a writer are printed
//! in pairs.
//!
//! `WALCTL_KEEP_SECONDS=60 cargo test --release -p wal-cli --test keep_load -- --nocapture
//! --test-threads 1` runs each load for a minute, as fast as it goes, with the default limit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout)] // Figures are for people.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use integration::needs::Need;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const WRITERS: usize = 4;
const READERS: usize = 4;
const MAX_BLOCK: Duration = Duration::from_millis(20);
/// What the last step of a checkpoint may take beyond the bound on a machine that is loaded: two
/// syncs of a few pages, and a processor that is waited for.
const SLACK: Duration = Duration::from_secs(1);

/// Commits rows, or reads, when its input says so, until its time or its work is done. It prints
/// how often, for how long, and the longest time from BEGIN to the end of COMMIT.
const PROGRAM: &str = r#"
import os, sqlite3, sys, time
path, role, synchronous, automatic, row, commits, seconds, pause = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None, timeout=60)
db.execute('PRAGMA synchronous=' + synchronous)
if automatic == 'off':
    db.execute('PRAGMA wal_autocheckpoint=0')
row = os.urandom(int(row))
count, longest = 0, 0.0
db.execute('SELECT count(*) FROM t').fetchone()
print('ready', flush=True)
sys.stdin.readline()
began = time.monotonic()
def goes_on():
    if float(seconds):
        return time.monotonic() - began < float(seconds)
    return count < int(commits)
if role == 'writer':
    while goes_on():
        at = time.monotonic()
        db.execute('BEGIN IMMEDIATE')
        # A table of bounded size: only the log could grow.
        db.execute('REPLACE INTO t VALUES (?, ?)', (os.getpid() * 64 + count % 64, row))
        db.execute('COMMIT')
        longest = max(longest, time.monotonic() - at)
        count += 1
        time.sleep(float(pause))
else:
    os.set_blocking(0, False)
    # Until the test closes its input.
    while sys.stdin.buffer.read() != b'':
        at = time.monotonic()
        db.execute('SELECT id, length(x) FROM t WHERE id % 7 = ?', (count % 7,)).fetchall()
        longest = max(longest, time.monotonic() - at)
        count += 1
print(count, time.monotonic() - began, longest, flush=True)
"#;

/// An application that works.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Worker {
    fn start(database: &Path, role: &str, load: &Load) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM])
            .arg(database)
            .args([role, load.synchronous, load.automatic])
            .args([load.row.to_string(), load.commits.to_string()])
            .args([load.seconds.to_string(), load.pause.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Worker {
            child,
            input,
            lines,
        };
        assert_eq!(worker.line(), "ready");
        worker
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go(&mut self) {
        writeln!(self.input.as_ref().unwrap(), "go").unwrap();
    }

    /// How often it worked in a second, and the longest time for one.
    fn finish(mut self) -> (f64, f64) {
        let line = self.line();
        let figures: Vec<f64> = line
            .split(' ')
            .map(|figure| figure.parse().unwrap_or_else(|e| panic!("{e}: {line:?}")))
            .collect();
        assert!(self.child.wait().unwrap().success());
        (figures[0] / figures[1], figures[2])
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the applications do.
struct Load {
    synchronous: &'static str,
    /// `off`: they never checkpoint.
    automatic: &'static str,
    /// The bytes that a commit inserts.
    row: u32,
    /// How many commits each writer does, if no time is set.
    commits: u32,
    /// 0: a number of commits instead.
    seconds: f64,
    /// How many seconds a writer sleeps after a commit.
    pause: f64,
    /// The limit of the log in mebibytes.
    max_log: u64,
}

impl Load {
    fn new(synchronous: &'static str, automatic: &'static str) -> Self {
        let seconds = env::var("WALCTL_KEEP_SECONDS").ok();
        let paced = Load {
            synchronous,
            automatic,
            row: 10_000,
            commits: 500,
            seconds: 0.0,
            pause: 0.004,
            max_log: 16,
        };
        match seconds {
            None => paced,
            Some(seconds) => Load {
                row: 1000,
                seconds: seconds.parse().unwrap(),
                pause: 0.0,
                max_log: 64,
                ..paced
            },
        }
    }
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    /// The longest that the log file was, as seen from outside.
    longest_log: u64,
    commits_per_s: f64,
    reads_per_s: f64,
    longest_commit: Duration,
    /// The last event of `keep`.
    stopped: Option<Value>,
}

fn log_of(database: &Path) -> PathBuf {
    database.with_extension("db-wal")
}

/// Runs the load on a new database, beside `keep` if that is wanted.
fn run(load: &Load, with_keep: bool) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut setup = common::Python::connect(&database);
    setup.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
    setup.run("db.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, x)')");
    let start = |role| Worker::start(&database, role, load);
    let mut writers: Vec<Worker> = (0..WRITERS).map(|_| start("writer")).collect();
    let mut readers: Vec<Worker> = (0..READERS).map(|_| start("reader")).collect();
    let mut keep = with_keep.then(|| Keep::start(&database, load.max_log));
    readers.iter_mut().for_each(Worker::go);
    writers.iter_mut().for_each(Worker::go);
    let (done, is_done) = channel::<()>();
    let (writers, longest_log) = thread::scope(|scope| {
        let watched = log_of(&database);
        let longest = scope.spawn(move || {
            let mut longest = 0;
            let pause = Duration::from_millis(2);
            while is_done.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                longest = longest.max(fs::metadata(&watched).map_or(0, |log| log.len()));
            }
            longest
        });
        let figures: Vec<_> = writers.into_iter().map(Worker::finish).collect();
        drop(done);
        (figures, longest.join().unwrap())
    });
    // Closing its input ends a reader.
    readers
        .iter_mut()
        .for_each(|reader| drop(reader.input.take()));
    let readers: Vec<_> = readers.into_iter().map(Worker::finish).collect();
    let stopped = keep.as_mut().map(Keep::stop);
    assert_eq!(
        setup.run("print(db.execute('PRAGMA integrity_check').fetchone())"),
        "('ok',)"
    );
    let sum = |figures: &[(f64, f64)]| figures.iter().map(|(rate, _)| rate).sum();
    let longest = writers.iter().map(|(_, longest)| *longest);
    Outcome {
        longest_log,
        commits_per_s: sum(&writers),
        reads_per_s: sum(&readers),
        longest_commit: Duration::from_secs_f64(longest.fold(0.0, f64::max)),
        stopped,
    }
}

/// `walctl keep`, which prints events.
struct Keep {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Keep {
    fn start(database: &Path, max_log: u64) -> Self {
        let mut child = common::command(["keep", "--json"])
            .args(["--max-log", &format!("{max_log}MiB")])
            .args(["--max-block", &format!("{}ms", MAX_BLOCK.as_millis())])
            .arg(database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("\"watching\""), "{line}");
        Keep { child, lines }
    }

    /// Asks it to end, as systemd does; its last event.
    fn stop(&mut self) -> Value {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let asked = Instant::now();
        let events = (&mut self.lines).lines();
        let last = events.map(Result::unwrap).last().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(10), "{asked:?}");
        let last: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(last["event"], "stopped", "{last}");
        last
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(synchronous: &'static str, automatic: &'static str) {
    let unchecked = "keep beside writers and readers in Python";
    if !Need::Python.is_met(unchecked) {
        return;
    }
    let load = Load::new(synchronous, automatic);
    let without = run(&load, false);
    let with = run(&load, true);
    let stopped = with.stopped.as_ref().unwrap();
    let totals = &stopped["totals"];
    println!(
        "{synchronous}, wal_autocheckpoint {automatic}: log {} -> {} KiB, commits/s {:.0} -> {:.0} \
         ({:.2}), reads/s {:.0} -> {:.0}, longest commit {:.1?} -> {:.1?}; {totals}",
        without.longest_log >> 10,
        with.longest_log >> 10,
        without.commits_per_s,
        with.commits_per_s,
        with.commits_per_s / without.commits_per_s,
        without.reads_per_s,
        with.reads_per_s,
        without.longest_commit,
        with.longest_commit,
    );
    let limit = load.max_log << 20;
    let block = Duration::from_secs_f64(totals["longest_block_s"].as_f64().unwrap());
    assert!(block <= MAX_BLOCK + SLACK, "{with:?}");
    // Automatic checkpoints of the applications keep `CKPT` from `keep`, by chance.
    if automatic == "off" {
        assert!(with.longest_log <= limit, "{with:?}");
        assert!(totals["restarts"].as_u64() > Some(0), "{with:?}");
        assert!(without.longest_log > limit, "{without:?}");
    }
}

#[test]
fn log_beside_writers_that_sync_seldom_stays_below_its_limit() {
    check("NORMAL", "off");
}

#[test]
fn log_beside_writers_that_sync_each_commit_stays_below_its_limit() {
    check("FULL", "off");
}

#[test]
fn writers_that_checkpoint_wait_for_keep_no_longer_than_told() {
    check("NORMAL", "on");
}
