//! A bank that many processes share: SQL on our log, programs of the crate
//! `wal`, and stock SQLite, with SIGKILLs. Transfers keep the sum, and none
//! that was acknowledged is lost.
#![cfg(feature = "shm")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use needs::Need;
use wal::{CheckpointMode, PageNo};
use wal_libsql::{BackendKind, Connection, OpenOptions, SqlError, Value};

#[allow(dead_code, unreachable_pub)] // A library of all tests of the repository.
#[path = "../../integration/src/needs.rs"]
mod needs;

const ACCOUNTS: u64 = 200;
const SUM: i64 = 200_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// SQL on our log, pages by the crate `wal`, stock SQLite.
const KINDS: usize = 3;
/// So often each kind commits at least, however slow the machine is.
const COMMITS: u64 = 10;

/// How long the processes run and are killed.
fn seconds() -> u64 {
    std::env::var("WAL_TEST_SECONDS").map_or(5, |seconds| seconds.parse().unwrap())
}

fn transfer(id: &str, random: &mut fastrand::Rng) -> String {
    let (from, to) = (random.u64(0..ACCOUNTS), random.u64(0..ACCOUNTS));
    let amount = random.u64(1..50);
    format!(
        "BEGIN IMMEDIATE; UPDATE account SET balance = balance - {amount} WHERE id = {from}; \
         UPDATE account SET balance = balance + {amount} WHERE id = {to}; \
         INSERT INTO done VALUES ('{id}', hex(randomblob({}))); COMMIT;",
        random.u64(0..2000)
    )
}

/// Runs as a process of its own, when `the_sum_stays` starts it: transfers on
/// our log, and tells each that is committed.
#[test]
#[ignore = "a part of another test"]
fn member_with_sql() {
    let path = PathBuf::from(std::env::var_os("BANK").unwrap());
    let name = std::env::var("BANK_MEMBER").unwrap();
    let mut random = fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
    let db = OpenOptions::new(BackendKind::Shared)
        .busy_timeout(PATIENCE)
        .open(&path)
        .unwrap();
    db.execute("PRAGMA cache_size = 20").unwrap();
    for turn in 0_u64.. {
        let id = format!("{name}-{turn}");
        match turn % 10 {
            3 => drop(db.execute("PRAGMA wal_checkpoint(PASSIVE)")),
            7 => assert_eq!(sum(&db), SUM),
            _ => {}
        }
        if turn % 4 == 1 {
            let lost = "BEGIN IMMEDIATE; UPDATE account SET balance = balance + 1; ROLLBACK";
            db.execute(lost).unwrap();
        }
        db.execute(&transfer(&id, &mut random)).unwrap();
        println!("done {id}");
    }
}

/// As above: reads, commits pages as they are, and checkpoints.
#[test]
#[ignore = "a part of another test"]
fn member_with_pages() {
    let path = PathBuf::from(std::env::var_os("BANK").unwrap());
    let name = std::env::var("BANK_MEMBER").unwrap();
    let mut random = fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
    let db = wal::Options::new()
        .busy_timeout(PATIENCE)
        .open(&path)
        .unwrap();
    for turn in 0_u64.. {
        let mut write = db.begin_write().unwrap();
        for _ in 0..random.u32(1..8) {
            let page = PageNo::new(random.u32(1..=write.page_count())).unwrap();
            // It is written to the log, with what it holds.
            let _same = write.page_mut(page).unwrap();
        }
        write.commit().unwrap();
        let modes = [
            CheckpointMode::Passive,
            CheckpointMode::Full,
            CheckpointMode::Restart,
        ];
        // Another one may be running.
        let _ = db.checkpoint(modes[random.usize(0..3)]);
        println!("done {name}-{turn}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn sum(db: &Connection) -> i64 {
    match db.query("SELECT sum(balance) FROM account").unwrap()[0][0] {
        Value::Integer(sum) => sum,
        ref other => panic!("{other:?}"),
    }
}

/// A process of the bank, killed when it is dropped.
struct Member {
    process: Child,
    feeder: Option<std::thread::JoinHandle<()>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// What members have told.
#[derive(Default, Debug)]
struct Told {
    transfers: Mutex<Vec<String>>,
    /// How often a member of each kind has committed.
    commits: [AtomicU64; KINDS],
    wrong: Mutex<Vec<String>>,
}

impl Told {
    fn fewest_commits(&self) -> u64 {
        let commits = self.commits.iter();
        let commits = commits.map(|commits| commits.load(Ordering::Relaxed));
        commits.min().unwrap()
    }
}

impl Member {
    fn start(kind: usize, name: &str, path: &Path, told: &Arc<Told>) -> Self {
        let mut command = match kind {
            0 => test("member_with_sql"),
            1 => test("member_with_pages"),
            _ => stock(path),
        };
        command.env("BANK", path).env("BANK_MEMBER", name);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        let feeder = (kind > 1).then(|| {
            let name = name.to_owned();
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
                for turn in 0_u64.. {
                    let id = format!("{name}-{turn}");
                    let script = format!("{}\n.print done {id}\n", transfer(&id, &mut random));
                    // It was killed.
                    if input.write_all(script.as_bytes()).is_err() {
                        return;
                    }
                }
            })
        });
        let (output, errors) = (
            process.stdout.take().unwrap(),
            process.stderr.take().unwrap(),
        );
        let told = told.clone();
        let is_sql = kind != 1;
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, id)) = line.split_once("done ") {
                    told.commits[kind].fetch_add(1, Ordering::Relaxed);
                    if is_sql {
                        told.transfers.lock().unwrap().push(id.to_owned());
                    }
                }
            }
            let wrong = BufReader::new(errors).lines().map_while(Result::ok);
            told.wrong.lock().unwrap().extend(wrong);
        });
        Member {
            process,
            feeder,
            reader: Some(reader),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for thread in [self.feeder.take(), self.reader.take()]
            .into_iter()
            .flatten()
        {
            let _ = thread.join();
        }
    }
}

fn test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name, "--nocapture"]);
    command
}

/// The shell tells each line at once, and stops at the first error.
fn stock(path: &Path) -> Command {
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", "sqlite3", "-batch", "-bail", "-init", "/dev/null"])
        .args(["-cmd", &format!(".timeout {}", PATIENCE.as_millis())])
        .arg(path);
    command
}

#[test]
fn the_sum_stays_whoever_is_killed() {
    if !Need::Shell.is_met("a bank of SQL on our log and of stock SQLite") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bank.db");
    let db = Connection::open(&path).unwrap();
    db.execute(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER);
         CREATE TABLE done(id TEXT PRIMARY KEY, filling TEXT);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS} - 1)
         INSERT INTO account SELECT i, {SUM} / {ACCOUNTS} FROM n"
    ))
    .unwrap();
    drop(db);
    let seed =
        std::env::var("WAL_TEST_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("WAL_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let told = Arc::new(Told::default());
    let kinds = [0, 0, 1, 2, 2];
    let start = |number: usize, seat: usize| {
        let name = format!("m{seat}-{number}");
        Member::start(kinds[seat], &name, &path, &told)
    };
    let mut members: Vec<Member> = (0..kinds.len()).map(|seat| start(0, seat)).collect();
    let end = Instant::now() + Duration::from_secs(seconds());
    let mut kills = [0; KINDS];
    while Instant::now() < end || told.fewest_commits() < COMMITS || kills.contains(&0) {
        let late = Instant::now() >= end + PATIENCE;
        assert!(!late, "{kills:?} kills: {told:?}");
        // The moment of a kill is what is random here; nothing waits for it.
        std::thread::sleep(Duration::from_millis(random.u64(20..300)));
        let seat = random.usize(0..members.len());
        // Who ended by itself has failed.
        let ended = members[seat].process.try_wait().unwrap();
        kills[kinds[seat]] += 1;
        members[seat] = start(kills.iter().sum(), seat);
        assert_eq!(ended, None, "{:?}", told.wrong.lock().unwrap());
    }
    drop(members);
    let transfers = told.transfers.lock().unwrap();
    println!("{kills:?} kills, {:?} commits", told.commits);
    judge(&path, &transfers).unwrap();
    let said = Command::new("sqlite3")
        .arg(&path)
        .arg("PRAGMA integrity_check; SELECT sum(balance) FROM account;")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(said.stdout).unwrap(),
        format!("ok\n{SUM}\n")
    );
}

fn judge(path: &Path, transfers: &[String]) -> Result<(), SqlError> {
    let db = Connection::open(path)?;
    assert_eq!(
        db.query("PRAGMA integrity_check")?,
        [[Value::Text("ok".to_owned())]]
    );
    assert_eq!(sum(&db), SUM);
    let mut find = db.prepare("SELECT 1 FROM done WHERE id = ?")?;
    for id in transfers {
        find.bind(1, &Value::Text(id.clone()))?;
        assert!(find.step()?, "{id} was told to be done, and is lost");
        find.reset();
    }
    Ok(())
}
