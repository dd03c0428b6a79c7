//! The demo as a stranger runs it: it must end well, and must notice a bank
//! that is broken.

// Helpers of tests, which only the functions marked as tests may do unasked.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs the demo in a directory of its own, and gives its output with the
/// directory. The program bounds its own time: a process that is silent for
/// `patience` seconds hangs.
fn bank_with(patience: &str, dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bank"))
        .args(["--patience", patience])
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .unwrap()
}

/// As [`bank_with`], with patience for a machine that is busy with much else.
fn bank(dir: &Path, arguments: &[&str]) -> Output {
    bank_with("60", dir, arguments)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The number before the first `words`.
fn number_before(words: &str, text: &str) -> u64 {
    let (before, _) = text
        .split_once(words)
        .unwrap_or_else(|| panic!("no {words:?} in:\n{text}"));
    let number = before.split_whitespace().next_back().unwrap();
    number.replace(',', "").parse().unwrap()
}

#[track_caller]
fn assert_ends_well(output: &Output) -> String {
    let text = text(output);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("Nothing is missing.\n"), "{text}");
    text
}

/// Runs the demo in `dir`, longer each time, until its output shows that all that
/// was to happen did; a machine that is busy with much else needs longer.
fn bank_until(dir: &Path, arguments: &[&str], shows: impl Fn(&str) -> bool) {
    for seconds in ["2", "8", "60"] {
        for name in ["bank.db", "bank-queue.db"] {
            let _ = fs::remove_file(dir.join(name));
        }
        let output = bank(dir, &[&["--seconds", seconds], arguments].concat());
        let text = assert_ends_well(&output);
        if shows(&text) {
            return;
        }
        println!("too little has happened:\n{text}");
    }
    panic!("too little has happened, see above");
}

#[test]
fn processes_that_are_killed_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--kill-every", "0.3", "--seed", "7"];
    bank_until(dir.path(), &arguments, |text| {
        number_before(" times SIGKILL", text) >= 5
            && number_before(" transfers were", text) > 0
            && number_before(" of them by stock SQLite", text) > 0
    });
    let left: Vec<PathBuf> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [dir.path().join("bank.db")]);
}

/// Beside writers of ours, stock SQLite may get no turn in a run this short; so
/// here ours only read and checkpoint.
#[test]
fn writers_over_stock_sqlite_that_are_killed_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = vec!["--kill-every", "0.3", "--seed", "8"];
    arguments.extend(["--writers", "0", "--stock-writers", "3"]);
    bank_until(dir.path(), &arguments, |text| {
        let (_, by_stock) = text.split_once("\nstock SQLite ").unwrap();
        number_before(" of them, ", by_stock) > 0
    });
}

/// What a row of the comparison has at its end, without the extension and with it.
fn compared(row: &str, text: &str) -> [f64; 2] {
    let line = text.lines().find(|line| line.starts_with(row));
    let line = line.unwrap_or_else(|| panic!("no {row:?} in:\n{text}"));
    let numbers = line[row.len()..].replace(',', "");
    let mut numbers = numbers
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().unwrap_or_else(|| panic!("{line}"));
    [next(), next()]
}

#[test]
fn stock_writers_in_the_queue_get_their_share() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--compare", "--kill-every", "0.5", "--seed", "9"];
    bank_until(dir.path(), &arguments, |text| {
        let [_, fairness] = compared("slowest writer : fastest, of all", text);
        let [_, share] = compared("share of stock SQLite", text);
        fairness > 0.3 && (30.0..70.0).contains(&share)
    });
}

#[test]
fn comparison_without_stock_writers_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = bank(dir.path(), &["--compare", "--stock-writers", "0"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("nothing to compare"));
}

#[test]
fn stock_sqlite_cannot_join_threads_of_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let output = bank(dir.path(), &["--backend", "inproc", "--stock-readers", "1"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("cannot join"), "{}", text(&output));
    assert!(!dir.path().join("bank.db").exists());
}

#[test]
fn threads_of_one_process_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    bank_until(dir.path(), &["--backend", "inproc"], |text| {
        assert!(text.contains("nobody is killed"), "{text}");
        number_before(" transfers were", text) > 0
    });
}

/// Runs the demo with a bank that is broken on the way, and expects it to fail
/// with these words, and to keep the bank.
#[track_caller]
fn assert_noticed(sabotage: &str, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    // A process that hangs is reported after this time, and no other sooner.
    let patience = if sabotage == "hang" { "4" } else { "60" };
    // What is noticed while they work ends the run, however long it would take.
    let seconds = if sabotage == "unbalance-meanwhile" {
        "60"
    } else {
        "1"
    };
    let mut arguments = vec!["--seconds", seconds, "--sabotage", sabotage];
    // A kill could end what the sabotage has done to a process.
    arguments.extend(["--kill-every", "0"]);
    let output = bank_with(patience, dir.path(), &arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let failed = text.lines().rfind(|line| line.starts_with("FAILED: "));
    assert!(failed.is_some_and(|line| line.contains(words)), "{text}");
    assert!(!text.contains("Nothing is missing"), "{text}");
    assert!(dir.path().join("bank.db").exists());
}

#[test]
fn a_transfer_that_is_lost_is_noticed() {
    assert_noticed("lose-transfer", "1 acknowledged transfers are missing");
}

#[test]
fn money_from_nowhere_is_noticed() {
    assert_noticed("unbalance", "money is not conserved");
}

#[test]
fn money_from_nowhere_is_noticed_by_a_reader_at_once() {
    assert_noticed("unbalance-meanwhile", "a snapshot holds 1000001 in all");
}

#[test]
fn a_file_that_is_damaged_is_noticed_by_stock_sqlite() {
    assert_noticed("damage", "PRAGMA integrity_check");
}

#[test]
fn a_process_that_hangs_is_reported_and_not_waited_for() {
    assert_noticed("hang", "hangs: it has said nothing for 4.0 s");
}

/// The processes that `parent` has started.
fn children(parent: u32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let listed = fs::read_to_string(path).unwrap_or_default();
    listed
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// False for a process that is gone, or dead and not waited for.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have any character, so the state stands behind the last parenthesis.
    let (_, state) = stat.rsplit_once(") ").unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// True if the process `pid` has a file called `name` open.
fn has_open(pid: i32, name: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = descriptors.into_iter().flatten().flatten();
    let mut files = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    files.any(|file| file.file_name().is_some_and(|of| of == name))
}

/// Waits until `has_come`, for a minute at most.
fn until(what: &str, mut has_come: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !has_come() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn processes_die_with_a_supervisor_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut supervisor = Command::new(env!("CARGO_BIN_EXE_bank"))
        .args(["--patience", "60", "--seconds", "300", "--kill-every", "0"])
        .args(["--stock-writers", "0", "--stock-readers", "0"])
        .arg("--dir")
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut members = Vec::new();
    until("all processes have the bank open", || {
        members = children(supervisor.id());
        members.len() == 5 && members.iter().all(|&member| has_open(member, "bank.db"))
    });
    // The end of its orders, which ends the others, does not reach this one.
    kill(Pid::from_raw(members[0]), Signal::SIGSTOP).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    until("all processes are dead", || {
        !members.iter().copied().any(lives)
    });
}
