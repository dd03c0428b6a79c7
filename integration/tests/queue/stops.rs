//! A process of the queue is stopped, or killed, at each point that its SQLite passes beneath the
//! extension, while peers write.
//!
//! A recording lists the points of a scripted life: the first read, a commit, a wait behind a
//! holder, the win, a checkpoint, the close. Each point is then a cell of its own. A stopped
//! process delays its peers only while it has a lock that excludes them.
//!
//! A program of its own: its processes would delay those of the tests that measure time.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

#[allow(dead_code)] // Most of it serves the other tests.
mod scene;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use integration::queue;
use integration::stock::{Control, StockKind, StockSqlite};
use integration::worker::WATCHDOG;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use wal_core::storage::beside;

use scene::Scene;

/// Within this time a peer commits unless a lock excludes it. A slot of a stopped waiter delays
/// the peers by 20 ms; the rest is for a machine that has other work.
const PROMPT: Duration = Duration::from_secs(2);
/// How often the process and its control are asked which of the two has news.
const POLL: Duration = Duration::from_millis(2);
/// The byte of `WRITE` in `-shm`.
const WRITE_BYTE: Range<u64> = 120..121;
/// The lock bytes of a database file.
const DATABASE_BYTES: Range<u64> = 0x4000_0000..0x4000_0200;

const INCREMENT: &str = "UPDATE t SET n = n + 1 WHERE id = 1";

/// What the process does in one step of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Read,
    Commit,
    /// A commit while a peer has `WRITE`, until the process was refused twice: at its own try,
    /// and at the first probe out of the queue.
    Refused,
    /// The rest of that commit, once the peer has released `WRITE`.
    Win,
    Checkpoint,
    Close,
}

const LIFE: [Step; 6] = [
    Step::Read,
    Step::Commit,
    Step::Refused,
    Step::Win,
    Step::Checkpoint,
    Step::Close,
];

/// A pass of a point, counted from the beginning of a step.
#[derive(Clone, Debug)]
struct Stop {
    step: Step,
    point: String,
    pass: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Continued,
    Killed,
}

/// How a step has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    TheEnd,
    TheStop,
}

/// A process that lives its life beside peers.
struct Life {
    scene: Scene,
    control: Control,
    process: Option<StockSqlite>,
    /// Has `WRITE` in the steps in which the process waits.
    holder: StockSqlite,
    /// A peer in the queue, and a peer outside it; each has a row of its own.
    peers: [StockSqlite; 2],
    /// How many commits were acknowledged to the process and to each peer.
    commits: [u64; 3],
    /// How often the process was refused `WRITE` before this step.
    refusals: usize,
}

impl Life {
    fn new(kind: StockKind) -> Self {
        let scene = Scene::new(3);
        let control = Control::with_trace().unwrap();
        let peers = [
            scene.stock(StockKind::Bundled),
            StockSqlite::spawn(kind, &scene.database, None).unwrap(),
        ];
        let mut holder = scene.stock(StockKind::Bundled);
        // A peer that has given up is in the queue for a moment.
        holder.set_busy_timeout(PROMPT).unwrap();
        let library = queue::library().unwrap();
        let mut process =
            StockSqlite::spawn_over(kind, &scene.database, &library, &control).unwrap();
        process.set_busy_timeout(WATCHDOG).unwrap();
        Life {
            scene,
            control,
            process: Some(process),
            holder,
            peers,
            commits: [0; 3],
            refusals: 0,
        }
    }

    fn process(&mut self) -> &mut StockSqlite {
        self.process.as_mut().unwrap()
    }

    /// How often the process was refused `WRITE`.
    fn count_refusals(&self) -> usize {
        let trace = self.control.trace().unwrap();
        let refused = |line: &&String| line.as_str() == "after shm:lock:EXCLUSIVE:WRITE rc=5";
        trace.iter().filter(refused).count()
    }

    fn begin(&mut self, step: Step) {
        self.refusals = self.count_refusals();
        match step {
            Step::Read => self.process().send("SELECT n FROM t").unwrap(),
            Step::Commit => self.process().send(INCREMENT).unwrap(),
            Step::Refused => {
                self.holder.run("BEGIN IMMEDIATE").unwrap().unwrap();
                self.process().send(INCREMENT).unwrap();
            }
            Step::Win => {
                self.holder.run("COMMIT").unwrap().unwrap();
            }
            Step::Checkpoint => {
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                self.process().send(checkpoint).unwrap();
            }
            Step::Close => self.process().hang_up(),
        }
    }

    /// Waits until `step` has ended, or the process has stopped if it `may_stop`.
    fn finish(&mut self, step: Step, may_stop: bool) -> Reached {
        let deadline = Instant::now() + WATCHDOG;
        loop {
            assert!(Instant::now() < deadline, "{step:?} has no end");
            if may_stop && self.control.wait_stopped(POLL).is_ok() {
                return Reached::TheStop;
            }
            match step {
                Step::Refused if self.count_refusals() >= self.refusals + 2 => {
                    return Reached::TheEnd;
                }
                Step::Refused => thread::sleep(POLL),
                Step::Close if self.has_ended() => return Reached::TheEnd,
                Step::Close => thread::sleep(POLL),
                _ => {
                    if let Ok(answer) = self.process().finish(POLL) {
                        answer.unwrap();
                        self.commits[0] += u64::from(matches!(step, Step::Commit | Step::Win));
                        return Reached::TheEnd;
                    }
                }
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let stat = format!("/proc/{}/stat", self.process().pid());
        // Not reaped yet: a zombie has no locks.
        fs::read_to_string(stat).is_ok_and(|stat| stat.contains(") Z "))
    }

    /// Lets each peer commit.
    fn peers_commit(&mut self, what: &str) {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            peer.set_busy_timeout(WATCHDOG).unwrap();
            let since = Instant::now();
            let row = at + 2;
            let update = format!("UPDATE t SET n = n + 1 WHERE id = {row}");
            let answer = peer.run(&update);
            answer
                .unwrap_or_else(|error| panic!("{what}: {error}"))
                .unwrap();
            let wait = since.elapsed();
            assert!(wait < PROMPT, "{what}: {peer} waited for {wait:?}");
            self.commits[at + 1] += 1;
        }
    }

    /// Checks that each peer is refused, and in time.
    fn peers_are_refused(&mut self, what: &str) {
        for peer in &mut self.peers {
            peer.set_busy_timeout(Duration::from_millis(50)).unwrap();
            let since = Instant::now();
            let error = peer.run("BEGIN IMMEDIATE").unwrap().unwrap_err();
            assert!(error.is_busy(), "{what}: {error}");
            let wait = since.elapsed();
            assert!(wait < PROMPT, "{what}: {peer} waited for {wait:?}");
        }
    }

    /// True if the process has a lock that keeps its peers from a commit.
    fn excludes_peers(&mut self) -> bool {
        let process = self.process().pid();
        let database = self.scene.database.clone();
        has_exclusive(process, &beside(&database, "-shm"), WRITE_BYTE)
            || has_exclusive(process, &database, DATABASE_BYTES)
    }

    /// Checks what is left, with up to `uncertain` commits of the process that were not
    /// acknowledged.
    fn check(mut self, what: &str, uncertain: u64) {
        // The next opener works.
        let mut next = self.scene.stock(StockKind::Bundled);
        next.set_busy_timeout(WATCHDOG).unwrap();
        let update = "UPDATE t SET n = n + 1 WHERE id = 3";
        next.run(update).unwrap().unwrap();
        self.commits[2] += 1;
        next.close().unwrap();
        drop(self.process.take());
        let counts = self.scene.counts();
        for peer in self.peers {
            peer.close().unwrap();
        }
        self.holder.close().unwrap();
        assert_eq!(self.scene.counts(), counts, "{what}: after the last close");
        let acknowledged = self.commits;
        assert!(
            (acknowledged[0]..=acknowledged[0] + uncertain).contains(&counts[0]),
            "{what}: the process has committed {counts:?}, not {acknowledged:?}"
        );
        assert_eq!(counts[1..], acknowledged[1..], "{what}: peers");
    }
}

/// True if `process` has one of `bytes` of `file` locked for itself.
fn has_exclusive(process: u32, file: &Path, bytes: Range<u64>) -> bool {
    let Ok(file) = File::open(file) else {
        return false;
    };
    let signed = |place: u64| libc::off_t::try_from(place).unwrap();
    let short = |constant: i32| libc::c_short::try_from(constant).unwrap();
    let mut lock = libc::flock {
        l_type: short(libc::F_RDLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: signed(bytes.start),
        l_len: signed(bytes.end - bytes.start),
        l_pid: 0,
    };
    // The lock that a reader of the bytes would wait for. No SQLite of this process has the file
    // open, so closing it drops no lock.
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).unwrap();
    lock.l_type != short(libc::F_UNLCK) && u32::try_from(lock.l_pid) == Ok(process)
}

/// The stops of a life.
fn record(kind: StockKind) -> Vec<Stop> {
    let mut life = Life::new(kind);
    let mut stops = Vec::new();
    for step in LIFE {
        let earlier = life.control.trace().unwrap().len();
        life.begin(step);
        assert_eq!(life.finish(step, false), Reached::TheEnd);
        let mut passes: BTreeMap<String, u32> = BTreeMap::new();
        for line in &life.control.trace().unwrap()[earlier..] {
            let point = line.split(" rc=").next().unwrap_or(line).to_owned();
            let pass = passes.entry(point.clone()).or_insert(0);
            *pass += 1;
            let pass = *pass;
            stops.push(Stop { step, point, pass });
        }
    }
    // Reads change nothing that a peer sees. How often a waiter probes is a matter of time.
    stops.retain(|stop| {
        let is_read = [":read", ":fetch", ":barrier"];
        let is_seen = !is_read.iter().any(|read| stop.point.ends_with(read));
        is_seen && stop.pass <= 2
    });
    life.check("the recording", 0);
    stops
}

/// Runs the life with one stop. True if the stop was reached.
fn run(kind: StockKind, stop: &Stop, end: End) -> bool {
    let what = format!("{kind} at {stop:?}, then {end:?}");
    let mut life = Life::new(kind);
    for step in LIFE {
        if step == stop.step {
            life.control.arm(&stop.point, stop.pass).unwrap();
        }
        life.begin(step);
        let reached = life.finish(step, step == stop.step);
        if reached == Reached::TheStop {
            return match end {
                End::Continued => finish_continued(life, step, &what),
                End::Killed => finish_killed(life, step, &what),
            };
        }
        if step == stop.step {
            eprintln!("{what}: not reached");
            break;
        }
    }
    false
}

/// Releases `WRITE` if the process was stopped while the holder has it.
fn release_holder(life: &mut Life, step: Step) {
    if step == Step::Refused {
        life.holder.run("COMMIT").unwrap().unwrap();
    }
}

fn finish_continued(mut life: Life, stopped: Step, what: &str) -> bool {
    release_holder(&mut life, stopped);
    match life.excludes_peers() {
        // Behind locks of readers that are not released SQLite gives up by itself, after ten
        // seconds.
        true if matches!(stopped, Step::Read | Step::Checkpoint) => {}
        true => life.peers_are_refused(what),
        false => life.peers_commit(what),
    }
    life.control.go().unwrap();
    let rest = LIFE.iter().skip_while(|step| **step != stopped);
    for &step in rest {
        match step {
            // The holder has released `WRITE` already.
            Step::Refused if step == stopped => continue,
            Step::Win if stopped == Step::Refused => {}
            _ if step == stopped => {}
            _ => life.begin(step),
        }
        assert_eq!(life.finish(step, false), Reached::TheEnd, "{what}");
    }
    life.peers_commit(what);
    life.check(what, 0);
    true
}

fn finish_killed(mut life: Life, stopped: Step, what: &str) -> bool {
    life.process.take().unwrap().kill().unwrap();
    release_holder(&mut life, stopped);
    life.peers_commit(what);
    // Killed between its commit and the answer.
    life.check(what, 1);
    true
}

/// Runs all cells of one end.
fn check_stops(end: End) {
    for kind in StockKind::available() {
        let stops = record(kind);
        let reached = stops.iter().filter(|stop| run(kind, stop, end)).count();
        let all = stops.len();
        eprintln!("{kind}: {reached} of {all} stops, {end:?}");
        // The time decides what a waiter passes; everything else is passed each time.
        assert!(
            reached * 10 >= all * 9,
            "{reached} of {all} stops by {kind}"
        );
        for point in [
            "shm:lock:EXCLUSIVE:WRITE",
            "shm:unmap",
            "shm:map",
            "db:lock:SHARED",
        ] {
            let before = format!("before {point}");
            assert!(stops.iter().any(|stop| stop.point == before), "no {point}");
        }
    }
}

#[test]
fn process_stopped_at_each_point_delays_no_free_peer() {
    check_stops(End::Continued);
}

#[test]
fn process_killed_at_each_point_leaves_the_database_whole() {
    check_stops(End::Killed);
}
