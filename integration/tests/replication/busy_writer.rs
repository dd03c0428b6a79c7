//! A tail beside stock SQLite, in Python, that commits at full speed and checkpoints by
//! itself: the replica follows, and the log stays short.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{fs, thread};

use integration::needs::Need;
use tempfile::TempDir;
use wal::{
    CheckpointMode, Database, DrainOptions, Drained, Options, PageNo, ReadTx, Tail, TailPosition,
};

const LONG: Duration = Duration::from_secs(60);
/// How long writers are kept waiting at most for a restart, beside a sync.
const HOLD: Duration = Duration::from_millis(200);
/// The log is drained when it has this many frames.
const FRAMES: u32 = 2000;
/// How long the log may become: many times what is drained at once, and a small part of
/// what is written.
const MOST_LOG_BYTES: u64 = 300 << 20;
/// How many commits Python makes; each has ten frames, 800 MiB of log in all.
const COMMITS: u32 = 20_000;

const WRITER: &str = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute('PRAGMA journal_mode=WAL')
db.execute('PRAGMA synchronous=OFF')
db.execute('CREATE TABLE IF NOT EXISTS rows(n INTEGER PRIMARY KEY, data)')
print('ready', flush=True)
sys.stdin.readline()
longest = 0
for n in range(int(sys.argv[2])):
    began = time.monotonic()
    db.execute('INSERT OR REPLACE INTO rows VALUES(?, randomblob(20000))', (n % 300,))
    longest = max(longest, time.monotonic() - began)
print(longest, flush=True)
sys.stdin.readline()
";

/// A Python process that writes, and is ended with this.
struct Python {
    child: Child,
    lines: Receiver<String>,
}

impl Python {
    fn spawn(script: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", script]).args(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = channel();
        thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                let _ = line.send(text);
            }
        });
        Python { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LONG).unwrap()
    }

    fn go_on(&mut self) {
        use std::io::Write;
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the log's life to itself, as far as stock SQLite lets it.
fn options() -> Options {
    Options::new().auto_checkpoint(0).auto_restart(false)
}

struct Replicator {
    source: Database,
    tail: Tail,
    replica: Database,
    /// Where the generation before ended, if a new one has begun.
    ended: Option<TailPosition>,
    generations: u32,
    tries: u32,
    longest_log: u64,
    log: PathBuf,
}

impl Replicator {
    fn new(path: &Path, copy: &Path) -> Self {
        let source = options().open(path).unwrap();
        let mut tail = source.tail().unwrap();
        source.backup(copy, |_| Ok(())).unwrap();
        let replica = options().persistent_log(true).open(copy).unwrap();
        tail.advance().unwrap();
        let mut apply = replica.begin_apply().unwrap();
        apply.apply_frames(tail.log_so_far(), None).unwrap();
        apply.commit().unwrap();
        let log = PathBuf::from(format!("{}-wal", path.display()));
        Replicator {
            source,
            tail,
            replica,
            ended: None,
            generations: 1,
            tries: 0,
            longest_log: 0,
            log,
        }
    }

    fn follow(&mut self) {
        let mut apply = self.replica.begin_apply().unwrap();
        let frames = self.tail.advance().unwrap();
        apply.apply_frames(frames, self.ended).unwrap();
        apply.commit().unwrap();
        self.longest_log = self.longest_log.max(fs::metadata(&self.log).unwrap().len());
        if self.tail.position().frame >= FRAMES {
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.tries += 1;
        let Replicator {
            tail,
            replica,
            ended,
            ..
        } = self;
        // The receiver of a debug build is slower than Python, so writers wait for it.
        let options = DrainOptions::new()
            .busy(LONG)
            .hold(HOLD)
            .most_frames(u32::MAX);
        let drained = tail.drain_log(&options, |frames| {
            let mut apply = replica.begin_apply()?;
            apply.apply_frames(frames, *ended)?;
            apply.commit().map(drop)
        });
        if let Drained::Restarted { end } = drained.unwrap() {
            let report = self.replica.checkpoint(CheckpointMode::Passive).unwrap();
            assert!(report.is_complete(), "{report:?}");
            self.ended = Some(end);
            self.generations += 1;
        }
    }
}

fn assert_same_pages(source: &ReadTx, replica: &ReadTx) {
    assert_eq!(source.page_count(), replica.page_count());
    for number in 1..=source.page_count() {
        let page = PageNo::new(number).unwrap();
        let same = *source.page(page).unwrap() == *replica.page(page).unwrap();
        assert!(same, "page {number} of the replica is another one");
    }
}

#[test]
fn tail_beside_python_keeps_its_log_short() {
    if !Need::Python.is_met("a tail beside Python") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (path, copy) = (
        directory.path().join("app.db"),
        directory.path().join("copy.db"),
    );
    let commits = COMMITS.to_string();
    let mut python = Python::spawn(WRITER, &[path.to_str().unwrap(), &commits]);
    assert_eq!(python.line(), "ready");
    let mut replicator = Replicator::new(&path, &copy);
    python.go_on();
    let longest_commit = loop {
        replicator.follow();
        if let Ok(line) = python.lines.try_recv() {
            break line;
        }
    };
    replicator.follow();
    println!(
        "{} generations of {} tries, at most {} MiB of log, the longest commit {longest_commit} s",
        replicator.generations,
        replicator.tries,
        replicator.longest_log >> 20
    );
    assert!(
        replicator.longest_log < MOST_LOG_BYTES,
        "{} bytes",
        replicator.longest_log
    );
    assert!(
        replicator.generations > 3,
        "{} generations",
        replicator.generations
    );
    assert_same_pages(
        &replicator.source.begin_read().unwrap(),
        &replicator.replica.begin_read().unwrap(),
    );
}
