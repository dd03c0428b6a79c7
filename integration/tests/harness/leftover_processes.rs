//! A test that is killed leaves no process behind, whatever its processes were
//! at.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use integration::stock::{Control, StockKind, StockSqlite};
use integration::worker::{Command, Load, Role, Settings, WATCHDOG, Worker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The test that starts processes and is killed; it removes nothing, so its
/// files are in a directory that is given to it.
const VICTIM: &str = "starts_processes_and_waits";
const DIRECTORY: &str = "LEFTOVER_DIRECTORY";

/// Runs as a process of its own, when the test below starts it.
#[test]
#[ignore = "a part of another test"]
fn starts_processes_and_waits() {
    let path = env::var_os(DIRECTORY).unwrap();
    let path = std::path::Path::new(&path).join("pages");
    let open = || Worker::open(&Settings::new(&path)).unwrap();
    // On a thread that ends: these processes must outlive it.
    let start = || (open(), open(), Worker::spawn().unwrap());
    let (mut busy, mut stopped, idle) = thread::scope(|scope| scope.spawn(start).join().unwrap());
    let load = Load {
        threads: 1,
        role: Role::BusyWriter { id: 1 },
        pages: 1..2,
        seed: 0,
        duration: 100 * WATCHDOG,
    };
    busy.send(&Command::Load(load)).unwrap();
    kill(pid(stopped.pid()), Signal::SIGSTOP).unwrap();
    stopped.send(&Command::BeginWrite).unwrap();
    let control = Control::new().unwrap();
    let kind = StockKind::Bundled;
    let other = path.with_extension("db");
    let mut paused = StockSqlite::spawn(kind, &other, Some(&control)).unwrap();
    control.arm("before db:lock:SHARED", 1).unwrap();
    paused.send("SELECT count(*) FROM sqlite_schema").unwrap();
    control.wait_stopped(WATCHDOG).unwrap();
    let pids = [busy.pid(), stopped.pid(), idle.pid(), paused.pid()];
    println!("started {pids:?}");
    busy.finish::<serde_json::Value>(100 * WATCHDOG).unwrap();
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// False once the process has ended, also if its new parent has not reaped it.
fn is_running(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    // The state follows the name, which is in parentheses.
    status.is_ok_and(|status| {
        let (_, state) = status.rsplit_once(") ").unwrap();
        !state.starts_with(['Z', 'X'])
    })
}

/// A process; dropped, it is killed.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn test_killed_leaves_no_process_behind() {
    let directory = TempDir::new().unwrap();
    let child = Process::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", VICTIM, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn();
    let mut victim = Victim(child.unwrap());
    let output = BufReader::new(victim.0.stdout.take().unwrap());
    let started = output.lines().map(Result::unwrap).find_map(|line| {
        let (_, pids) = line.split_once("started [")?;
        let pids = pids.trim_end_matches(']').split(", ");
        Some(pids.map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
    });
    let started = started.unwrap();
    assert!(started.iter().all(|&one| is_running(one)));
    drop(victim);
    let deadline = Instant::now() + WATCHDOG;
    for one in started {
        while is_running(one) {
            assert!(Instant::now() < deadline, "process {one} was left behind");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
