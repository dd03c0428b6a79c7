//! SQL writers and page writers wait for `WRITE` in one queue, in processes of their own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use wal::{PageNo, Synchronous};
use wal_libsql::{Connection, Value, ffi};

use super::{alone, new_database, open};

/// How long writers compete.
const RUN: Duration = Duration::from_secs(3);
/// How long each waits for `WRITE` at most.
const TIMEOUT: Duration = Duration::from_secs(5);
const THREADS: usize = 2;

/// What a writer has done.
#[derive(Clone, Copy, Debug)]
struct Work {
    commits: u32,
    longest: Duration,
}

/// Commits again and again for [`RUN`].
fn compete(mut commit: impl FnMut()) -> Work {
    let (began, mut work) = (
        Instant::now(),
        Work {
            commits: 0,
            longest: Duration::ZERO,
        },
    );
    while began.elapsed() < RUN {
        let at = Instant::now();
        commit();
        work.longest = work.longest.max(at.elapsed());
        work.commits += 1;
    }
    work
}

fn path() -> PathBuf {
    PathBuf::from(std::env::var_os("QUEUE").unwrap())
}

/// Prints that this process is ready, and waits until all are.
fn wait_for_start() {
    println!("ready");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .unwrap();
}

fn report(work: Work) {
    println!("done {} {}", work.commits, work.longest.as_micros());
}

/// A process of its own: one connection.
#[test]
#[ignore = "a part of another test"]
fn member_with_sql() {
    let db = open(&path(), TIMEOUT);
    let pragmas = std::env::var("QUEUE_PRAGMAS").unwrap();
    db.execute(&pragmas).unwrap();
    wait_for_start();
    report(compete(|| match pragmas.contains(BY_DRIVER) {
        true => execute_by_driver(&db, TRANSFER),
        false => db.execute(TRANSFER).unwrap(),
    }));
}

const TRANSFER: &str = "BEGIN IMMEDIATE; UPDATE t SET n = n + 1; COMMIT";
/// A comment that lets a process run its transactions below the wrapper.
const BY_DRIVER: &str = "-- by a driver";

/// Runs `sql` as a driver does that was given the connection.
fn execute_by_driver(db: &Connection, sql: &str) {
    let sql = std::ffi::CString::new(sql).unwrap();
    let none = std::ptr::null_mut();
    // SAFETY: the connection is open, the text ends with a zero.
    let code =
        unsafe { ffi::sqlite3_exec(db.as_raw().as_ptr(), sql.as_ptr(), None, none, none.cast()) };
    assert_eq!(code, ffi::SQLITE_OK);
}

/// The same: threads that change pages, without a pause.
#[test]
#[ignore = "a part of another test"]
fn member_with_pages() {
    let db = wal::Options::new()
        .synchronous(Synchronous::Full)
        .busy_timeout(TIMEOUT)
        .open(path())
        .unwrap();
    wait_for_start();
    let page = PageNo::new(1).unwrap();
    let work = |db: &wal::Database| {
        compete(|| {
            let mut write = db.begin_write().unwrap();
            let _same = write.page_mut(page).unwrap();
            write.commit().unwrap();
        })
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(&db))).collect();
        for thread in threads {
            report(thread.join().unwrap());
        }
    });
}

/// A process that is killed when it is dropped.
struct Member {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Member {
    fn start(name: &str, path: &Path, pragmas: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                &format!("shares::{name}"),
                "--nocapture",
            ])
            .env("QUEUE", path)
            .env("QUEUE_PRAGMAS", pragmas)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Member { process, output }
    }

    /// Waits for the line that has `word`, and returns what follows it.
    fn line(&mut self, word: &str) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("a process ended before it printed {word:?}");
    }

    fn go(&mut self) {
        writeln!(self.process.stdin.as_mut().unwrap()).unwrap();
    }

    fn work(&mut self) -> Work {
        let line = self.line("done ");
        let (commits, longest) = line.split_once(' ').unwrap();
        Work {
            commits: commits.parse().unwrap(),
            longest: Duration::from_micros(longest.parse().unwrap()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(count: usize, name: &str, path: &Path, pragmas: &str) -> Vec<Member> {
    let start = |_| {
        let mut member = Member::start(name, path, pragmas);
        member.line("ready");
        member
    };
    (0..count).map(start).collect()
}

/// Lets `sql` processes and `pages` processes compete; returns what each SQL process and
/// each thread of the page processes has done.
fn competition(sql: usize, pages: usize, pragmas: &str) -> (Vec<Work>, Vec<Work>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = new_database(&path);
    let mut with_sql = start(sql, "member_with_sql", &path, pragmas);
    let mut with_pages = start(pages, "member_with_pages", &path, pragmas);
    with_sql
        .iter_mut()
        .chain(&mut with_pages)
        .for_each(Member::go);
    let of_sql: Vec<Work> = with_sql.iter_mut().map(Member::work).collect();
    let of_pages = with_pages
        .iter_mut()
        .flat_map(|member| (0..THREADS).map(|_| member.work()).collect::<Vec<_>>())
        .collect();
    let commits: u32 = of_sql.iter().map(|work| work.commits).sum();
    let rows = db.query("SELECT n FROM t").unwrap();
    assert_eq!(rows, [[Value::Integer(i64::from(commits))]]);
    println!("{of_sql:?}\n{of_pages:?}");
    (of_sql, of_pages)
}

fn fewest(work: &[Work]) -> u32 {
    work.iter().map(|work| work.commits).min().unwrap()
}

/// Where a writer starves the factor is some hundreds, and on a machine that has time it is one.
const STARVES: u32 = 8;

fn most(work: &[Work]) -> u32 {
    work.iter().map(|work| work.commits).max().unwrap()
}

#[test]
fn sql_writers_beside_page_writers_get_their_share() {
    let _alone = alone();
    for pragmas in [
        "PRAGMA synchronous = FULL",
        // The engine's own handler does not stay.
        "PRAGMA synchronous = FULL; PRAGMA Busy_Timeout = 5000",
        &format!("PRAGMA synchronous = FULL; {BY_DRIVER}"),
    ] {
        let (sql, pages) = competition(2, 2, pragmas);
        assert!(fewest(&sql) * STARVES > most(&sql), "{sql:?}");
        assert!(fewest(&sql) * STARVES > most(&pages), "{sql:?} {pages:?}");
    }
}

#[test]
fn sql_writers_alone_get_equal_shares() {
    let _alone = alone();
    for level in ["FULL", "NORMAL"] {
        let (sql, _) = competition(4, 0, &format!("PRAGMA synchronous = {level}"));
        assert!(fewest(&sql) * STARVES > most(&sql), "{level}: {sql:?}");
    }
}

#[test]
fn sql_threads_of_a_process_get_equal_shares() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    drop(new_database(&path));
    let work: Vec<Work> = thread::scope(|scope| {
        let work = || {
            let db = open(&path, TIMEOUT);
            compete(|| db.execute(TRANSFER).unwrap())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(fewest(&work) * STARVES > most(&work), "{work:?}");
}

/// A process that waits for `WRITE` until it is killed.
#[test]
#[ignore = "a part of another test"]
fn member_that_waits() {
    let db = open(&path(), Duration::from_secs(600));
    println!("thread {}", nix::unistd::gettid());
    println!("ready");
    db.execute("BEGIN IMMEDIATE").unwrap();
}

/// Waits until a thread is in `state`.
fn wait_until_it_is(state: &str, process: u32, thread: &str) {
    let began = Instant::now();
    let path = format!("/proc/{process}/task/{thread}/status");
    let state = format!("State:\t{state}");
    let is_in_state = || std::fs::read_to_string(&path).unwrap().contains(&state);
    while !(is_in_state() && {
        thread::sleep(Duration::from_millis(1));
        is_in_state()
    }) {
        assert!(began.elapsed() < TIMEOUT, "it never is");
    }
}

/// Waits until a thread sleeps, which it does in the queue only.
fn wait_until_it_sleeps(process: u32, thread: &str) {
    wait_until_it_is("S", process, thread);
}

/// A process that waits for `WRITE`, which `holder` acquires first.
fn waiter_behind(holder: &Connection, path: &Path) -> Member {
    holder
        .execute("BEGIN IMMEDIATE; UPDATE t SET n = n + 1")
        .unwrap();
    let mut waiter = Member::start("member_that_waits", path, "");
    let thread = waiter.line("thread ");
    waiter.line("ready");
    wait_until_it_sleeps(waiter.process.id(), &thread);
    waiter
}

/// Those behind it wait a moment longer, at most.
#[test]
fn waiter_that_is_killed_does_not_keep_its_place() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    let mut times = Vec::new();
    while times.iter().all(|time| *time > Duration::from_millis(60)) {
        assert!(times.len() < 10, "{times:?}");
        let first = waiter_behind(&holder, &path);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let db = open(&path, TIMEOUT);
                db.execute("BEGIN IMMEDIATE").unwrap();
                let acquired = Instant::now();
                db.execute("COMMIT").unwrap();
                acquired
            });
            drop(first);
            let released = Instant::now();
            holder.execute("COMMIT").unwrap();
            let acquired = second.join().unwrap();
            times.push(acquired.saturating_duration_since(released));
        });
    }
    println!("{times:?}");
}

/// How many rounds are run.
const ROUNDS: usize = 40;
/// In how many rounds a waiter may lose its slot: the machine did not run it in time to show that
/// it is alive.
const EXCUSED: usize = ROUNDS / 2;

/// A writer whose time slice is over does not overtake a waiting writer, which takes longer to
/// wake up than the first writer to begin again.
#[test]
fn sql_writer_queues_behind_a_waiting_page_writer() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let sql = new_database(&path);
    let pages = wal::Options::new()
        .busy_timeout(TIMEOUT)
        .open(&path)
        .unwrap();
    // Prepared, so that no time is lost between the two.
    let mut commit = sql.prepare("COMMIT").unwrap();
    let mut begin = sql.prepare("BEGIN IMMEDIATE").unwrap();
    let mut overtaken = 0;
    for _ in 0..ROUNDS {
        sql.execute("BEGIN IMMEDIATE; UPDATE t SET n = n + 1")
            .unwrap();
        let had_write = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(nix::unistd::gettid()).unwrap();
                let write = pages.begin_write().unwrap();
                had_write.store(true, Ordering::SeqCst);
                drop(write);
            });
            let thread = receiver.recv().unwrap().to_string();
            wait_until_it_sleeps(std::process::id(), &thread);
            // Longer than a time slice.
            thread::sleep(Duration::from_millis(2));
            commit.step().unwrap();
            begin.step().unwrap();
            overtaken += usize::from(!had_write.load(Ordering::SeqCst));
            begin.reset();
            commit.reset();
            sql.execute("COMMIT").unwrap();
        });
    }
    println!("overtaken in {overtaken} rounds");
    assert!(overtaken <= EXCUSED, "{overtaken}");
}

/// What cannot wait is not refused because a waiter is to come first: a read transaction that
/// becomes a write transaction, and a connection without a timeout.
#[test]
fn writer_that_cannot_wait_tries_beside_a_waiter() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    let patient = open(&path, TIMEOUT);
    let hasty = open(&path, Duration::ZERO);
    // A waiter that is stopped has its slot, and does not acquire `WRITE`.
    let waiter = waiter_behind(&holder, &path);
    let process = nix::unistd::Pid::from_raw(waiter.process.id().try_into().unwrap());
    kill(process, Signal::SIGSTOP).unwrap();
    let number = process.to_string();
    wait_until_it_is("T", waiter.process.id(), &number);
    holder.execute("COMMIT").unwrap();
    hasty.execute("UPDATE t SET n = n + 1").unwrap();
    for db in [&patient, &hasty] {
        // The pages are in the cache of the engine after that.
        db.query("SELECT n FROM t").unwrap();
        db.execute("BEGIN; SELECT n FROM t; UPDATE t SET n = n + 1; COMMIT")
            .unwrap();
    }
    patient.busy_timeout(Duration::ZERO).unwrap();
    patient.execute("UPDATE t SET n = n + 1").unwrap();
}

/// A checkpoint that needs `WRITE` waits in the same queue.
#[test]
fn checkpoint_precedes_a_page_writer_that_came_later() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let holder = new_database(&path);
    let pages = wal::Options::new()
        .busy_timeout(TIMEOUT)
        .open(&path)
        .unwrap();
    let overtaken = AtomicUsize::new(0);
    for _ in 0..ROUNDS {
        holder
            .execute("BEGIN IMMEDIATE; UPDATE t SET n = n + 1")
            .unwrap();
        let (sender, receiver) = mpsc::channel();
        let started = |sender: &mpsc::Sender<_>| sender.send(nix::unistd::gettid()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let db = open(&path, TIMEOUT);
                started(&sender);
                let row = db.query("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
                assert_eq!(row[0][0], Value::Integer(0), "{row:?}");
            });
            wait_until_it_sleeps(std::process::id(), &receiver.recv().unwrap().to_string());
            scope.spawn(|| {
                started(&sender);
                let _write = pages.begin_write().unwrap();
                let log = std::fs::metadata(dir.path().join("db-wal")).unwrap();
                overtaken.fetch_add(usize::from(log.len() > 0), Ordering::SeqCst);
            });
            wait_until_it_sleeps(std::process::id(), &receiver.recv().unwrap().to_string());
            holder.execute("COMMIT").unwrap();
        });
    }
    println!("overtaken in {overtaken:?} rounds");
    assert!(overtaken.into_inner() <= EXCUSED);
}
