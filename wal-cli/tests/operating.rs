//! The recipes of docs/operating.md: each is run where its situation is real, and prints what the
//! guide shows.
//!
//! A recipe is a block of shell behind `<!-- run: NAME -->`. The block of text that follows it is
//! what it prints: numbers, times and process numbers may differ, `…` stands for any text, and a
//! line of it for any lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use integration::needs::{Need, litestream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;
use rusqlite::Connection;
use tempfile::TempDir;

/// How long a test waits for what another process does.
const PATIENCE: Duration = Duration::from_secs(60);

/// The recipes, each of which has a test below.
const RECIPES: &[&str] = &[
    "first-look",
    "pinned-log",
    "log-after-reader",
    "stopped-reader",
    "keep",
    "write-lock",
    "lost-locks",
    "deleted-log",
    "backup",
    "restore",
    "litestream",
    "bench",
    "json",
    "exit-code",
];

struct Recipe {
    name: String,
    shell: String,
    /// What it prints, as the guide shows it.
    shown: String,
}

/// The blocks of code of the guide: the line before them, their language and their text.
fn blocks() -> Vec<(String, String, String)> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let guide = fs::read_to_string(guide).unwrap();
    let mut blocks = Vec::new();
    let mut before = String::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((before.clone(), language.to_owned(), text.join("\n")));
        }
        if !line.is_empty() {
            before = line.to_owned();
        }
    }
    blocks
}

fn recipes() -> Vec<Recipe> {
    let blocks = blocks();
    let after = blocks.iter().skip(1).map(Some).chain([None]);
    let all = blocks.iter().zip(after);
    let shell = all.filter(|((_, language, _), _)| language == "sh");
    shell
        .map(|((before, _, shell), after)| {
            let name = before.strip_prefix("<!-- run: ");
            let name = name.and_then(|name| name.strip_suffix(" -->"));
            let shown = after.filter(|(_, language, _)| language == "text");
            Recipe {
                name: name
                    .unwrap_or_else(|| panic!("no name: {shell}"))
                    .to_owned(),
                shell: shell.clone(),
                shown: shown.map(|(_, _, text)| text.clone()).unwrap_or_default(),
            }
        })
        .collect()
}

fn recipe(name: &str) -> Recipe {
    assert!(RECIPES.contains(&name), "{name} is listed");
    let found = recipes().into_iter().find(|recipe| recipe.name == name);
    found.unwrap_or_else(|| panic!("the guide has no recipe {name}"))
}

/// A folder with the database `app.db`, which has no user.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stock = Connection::open(folder.path().join("app.db")).unwrap();
        let setup = "PRAGMA journal_mode = wal; CREATE TABLE orders (id INTEGER PRIMARY KEY, body)";
        stock.execute_batch(setup).unwrap();
        stock.close().unwrap();
        Folder(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn database(&self) -> PathBuf {
        self.path().join("app.db")
    }

    /// A shell in the folder, with `walctl` and Litestream on its path.
    fn shell(&self, script: &str) -> Command {
        let mut paths = vec![
            Path::new(env!("CARGO_BIN_EXE_walctl"))
                .parent()
                .unwrap()
                .to_owned(),
            litestream().parent().unwrap().to_owned(),
        ];
        paths.extend(env::split_paths(&env::var_os("PATH").unwrap()));
        let mut shell = Command::new("bash");
        shell
            .args(["-c", script])
            .current_dir(self.path())
            .env("PATH", env::join_paths(paths).unwrap())
            .stdin(Stdio::null());
        shell
    }

    /// Runs a recipe, which has to end with `code` and print what the guide shows.
    fn run(&self, name: &str, code: i32) {
        self.run_with(name, code, &[]);
    }

    fn run_with(&self, name: &str, code: i32, variables: &[(&str, &str)]) {
        let recipe = recipe(name);
        let mut shell = self.shell(&recipe.shell);
        let output = shell.envs(variables.iter().copied()).output().unwrap();
        let printed = common::text(&output);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name}: {printed}{errors}"
        );
        self.compare(name, &printed, &recipe.shown);
    }

    /// Fails unless `printed` is what the guide shows.
    fn compare(&self, name: &str, printed: &str, shown: &str) {
        let printed = printed.replace(&*self.path().to_string_lossy(), "/data");
        let (form, expected) = (form(&printed), form(shown));
        let (expected, form) = (in_order(&expected), in_order(&form));
        assert!(
            lines_match(&expected, &form),
            "{name} prints\n{printed}\nand the guide shows\n{shown}\nwhich are, compared,\n{form:#?}\n\
             {expected:#?}"
        );
    }
}

/// `text` without what differs from one run to another.
fn form(text: &str) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let user = user.unwrap().map(|user| user.name).unwrap_or_default();
    let rules = [
        (r"[^\s(]*/python3[.0-9]*".to_owned(), "python3"),
        (r"[^\s(]*/litestream ".to_owned(), "litestream "),
        (format!(r"\b({user}|app) ( *)"), "USER $2"),
        (r"\d{4}-\d\d-\d\dT[0-9:]+Z".to_owned(), "TIME"),
        (r"\b[0-9a-f]{16}\b".to_owned(), "GENERATION"),
        (
            r"\b\d[\d.,]*[ ]?(h|m|s|ms|us|ns)\b( \d+(m|s|ms|us|ns)\b)?".to_owned(),
            "DURATION",
        ),
        (r"\b\d[\d.]* [kMG]?B/s".to_owned(), "SPEED"),
        (r"\b\d[\d.,]* (B|KiB|MiB|GiB)".to_owned(), "SIZE"),
        (r"\d[\d,]*".to_owned(), "N"),
        (r"(?m)^warning: .*\n".to_owned(), ""),
        (r"(?m)^/data: .* free$".to_owned(), "/data: FREE"),
        (r" +".to_owned(), " "),
        (r" \n".to_owned(), "\n"),
    ];
    let mut text = text.trim_end().to_owned() + "\n";
    for (pattern, form) in rules {
        text = Regex::new(&pattern)
            .unwrap()
            .replace_all(&text, form)
            .into_owned();
    }
    text
}

/// The lines of `text`, with those of processes in the order of their commands: the system begins
/// to count processes again.
fn in_order(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    let is_process = |line: &&str| line.starts_with(" N USER TIME ");
    for processes in lines.chunk_by_mut(|one, next| is_process(one) && is_process(next)) {
        processes.sort_unstable();
    }
    lines
}

/// Whether the lines of `text` are those of `shown`, where a line `…` is any number of lines.
fn lines_match(shown: &[&str], text: &[&str]) -> bool {
    match shown {
        [] => text.is_empty(),
        [any, rest @ ..] if any.trim() == "…" => {
            (0..=text.len()).any(|skipped| lines_match(rest, &text[skipped..]))
        }
        [line, rest @ ..] => match text {
            [first, left @ ..] => line_matches(line, first) && lines_match(rest, left),
            [] => false,
        },
    }
}

/// Whether `text` is `shown`, where `…` is any text.
fn line_matches(shown: &str, text: &str) -> bool {
    let parts: Vec<String> = shown.split('…').map(regex::escape).collect();
    Regex::new(&format!("^{}$", parts.join(".*")))
        .unwrap()
        .is_match(text)
}

/// A Python program of the application with a connection `db`, which executes one line at a time.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

const PROGRAM: &str = "
import os, sqlite3, sys
db = sqlite3.connect('app.db', isolation_level=None, timeout=30)
names = dict(db=db, os=os, sqlite3=sqlite3)
for line in sys.stdin:
    exec(line, names)
    print('done', flush=True)
";

impl Program {
    /// Starts `python3 NAME` in the folder.
    fn start(folder: &Folder, name: &str) -> Self {
        fs::write(folder.path().join(name), PROGRAM).unwrap();
        let mut child = Command::new("python3")
            .arg(name)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut program = Program {
            child,
            input,
            output,
        };
        program.run("db.execute('SELECT count(*) FROM orders').fetchone()");
        program
    }

    fn run(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{line}");
    }

    /// Commits this number of orders.
    fn order(&mut self, orders: u32) {
        let insert = "db.execute('INSERT INTO orders (body) VALUES (randomblob(3000))')";
        self.run(&format!("for _ in range({orders}): {insert}"));
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The report reads a state that is older than the last orders.
fn pinned(folder: &Folder) -> (Program, Program) {
    let mut orders = Program::start(folder, "orders.py");
    orders.run("db.execute('PRAGMA wal_autocheckpoint = 0')");
    orders.order(100);
    let mut report = Program::start(folder, "report.py");
    report.run("db.execute('BEGIN')");
    report.run("db.execute('SELECT count(*) FROM orders').fetchone()");
    orders.order(50);
    (orders, report)
}

fn is_met(name: &str, needs: &[Need]) -> bool {
    let unchecked = format!("the recipe {name} of docs/operating.md");
    needs.iter().all(|need| need.is_met(&unchecked))
}

#[test]
fn each_recipe_of_the_guide_is_run() {
    let names: Vec<String> = recipes().into_iter().map(|recipe| recipe.name).collect();
    assert_eq!(names, RECIPES);
}

#[test]
fn text_is_compared_but_for_its_figures() {
    let same = |shown: &str, text: &str| {
        let (shown, text) = (form(shown), form(text));
        let (shown, text): (Vec<_>, Vec<_>) = (shown.lines().collect(), text.lines().collect());
        lines_match(&shown, &text)
    };
    assert!(same(
        "copied 309 pages, in 14ms 300us",
        "copied 1,309 pages, in 1s"
    ));
    assert!(!same("copied 309 pages", "copied 309 frames"));
    assert!(same("a\n…\nz", "a\nb\nc\nz"));
    assert!(!same("a\n…\nz", "a\nb"));
    assert!(same(
        "READ(1) … python3 a.py",
        "READ(2)   7  /usr/bin/python3.11 a.py"
    ));
    assert!(!same("a", "a\nb"));
    let processes = " N USER TIME python3 b.py\n N USER TIME python3 a.py\nz";
    let sorted = [
        " N USER TIME python3 a.py",
        " N USER TIME python3 b.py",
        "z",
    ];
    assert_eq!(in_order(processes), sorted);
}

#[test]
fn first_look_shows_a_reader_and_what_it_holds_back() {
    let needs = [Need::Python];
    if is_met("first-look", &needs) {
        let folder = Folder::new();
        let _programs = pinned(&folder);
        folder.run("first-look", 0);
    }
}

#[test]
fn process_that_pins_the_log_is_named() {
    if is_met("pinned-log", &[Need::Python]) {
        let folder = Folder::new();
        let (_orders, mut report) = pinned(&folder);
        folder.run("pinned-log", 3);
        report.run("db.execute('COMMIT')");
        folder.run("log-after-reader", 0);
        assert_eq!(
            fs::metadata(folder.path().join("app.db-wal"))
                .unwrap()
                .len(),
            0
        );
    }
}

#[test]
fn stopped_process_is_found() {
    if is_met("stopped-reader", &[Need::Python]) {
        let folder = Folder::new();
        let (_orders, report) = pinned(&folder);
        let reader = Pid::from_raw(report.child.id().cast_signed());
        kill(reader, Signal::SIGSTOP).unwrap();
        // Stopped once its parent can wait for that.
        let stopped = nix::sys::wait::WaitPidFlag::WUNTRACED;
        nix::sys::wait::waitpid(reader, Some(stopped)).unwrap();
        folder.run("stopped-reader", 4);
    }
}

#[test]
fn log_is_kept_short_as_the_guide_shows() {
    if !is_met("keep", &[Need::Python]) {
        return;
    }
    let folder = Folder::new();
    let mut orders = Program::start(&folder, "orders.py");
    orders.run("db.execute('PRAGMA wal_autocheckpoint = 0')");
    let recipe = recipe("keep");
    let script = format!("exec {}", recipe.shell);
    let mut keep = folder
        .shell(&script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(keep.stdout.take().unwrap());
    let mut printed = String::new();
    lines.read_line(&mut printed).unwrap();
    assert!(printed.contains("watching"), "{printed}");
    let started = Instant::now();
    let log = folder.path().join("app.db-wal");
    // 40 MB of commits.
    for _ in 0..20 {
        orders.order(500);
        assert!(started.elapsed() < PATIENCE, "orders take too long");
    }
    let len = fs::metadata(log).unwrap().len();
    kill(Pid::from_raw(keep.id().cast_signed()), Signal::SIGTERM).unwrap();
    lines.read_to_string(&mut printed).unwrap();
    keep.wait().unwrap();
    assert!(len < 16 << 20, "the log has {len} bytes: {printed}");
    folder.compare("keep", &printed, &recipe.shown);
}

#[test]
fn holder_of_the_write_lock_is_named() {
    if is_met("write-lock", &[Need::Python]) {
        let folder = Folder::new();
        let mut orders = Program::start(&folder, "orders.py");
        orders.run("db.execute('BEGIN IMMEDIATE')");
        folder.run("write-lock", 0);
    }
}

#[test]
fn process_that_lost_its_locks_is_found() {
    if is_met("lost-locks", &[Need::Python]) {
        let folder = Folder::new();
        let mut orders = Program::start(&folder, "orders.py");
        orders.run("open('app.db', 'rb').close()");
        folder.run("lost-locks", 5);
    }
}

#[test]
fn log_without_a_name_is_rescued() {
    if is_met("deleted-log", &[Need::Python, Need::Shell]) {
        let folder = Folder::new();
        let mut orders = Program::start(&folder, "orders.py");
        orders.order(30);
        fs::remove_file(folder.path().join("app.db-wal")).unwrap();
        fs::remove_file(folder.path().join("app.db-shm")).unwrap();
        folder.run_with("deleted-log", 0, &[("PID", &orders.pid())]);
        let rescued = Connection::open(folder.path().join("rescued.db")).unwrap();
        assert_eq!(count(&rescued), 30);
    }
}

fn count(database: &Connection) -> u32 {
    let sql = "SELECT count(*) FROM orders";
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn backup_is_made_and_restored() {
    if is_met("backup", &[Need::Python, Need::Shell]) {
        let folder = Folder::new();
        let mut orders = Program::start(&folder, "orders.py");
        orders.order(100);
        folder.run("backup", 0);
        orders.order(7);
        drop(orders);
        folder.run("restore", 0);
        assert_eq!(count(&Connection::open(folder.database()).unwrap()), 100);
        assert!(
            folder.path().join("before/app.db-wal").exists(),
            "the log went aside, too"
        );
    }
}

#[test]
fn litestream_is_shown_and_restores() {
    if !is_met("litestream", &[Need::Python, Need::Shell, Need::Litestream]) {
        return;
    }
    let folder = Folder::new();
    let config = "socket: {enabled: true, path: litestream.sock}\n\
        dbs:\n  - path: app.db\n    monitor-interval: 50ms\n    \
        replica: {type: file, path: replica, sync-interval: 50ms}\n";
    fs::write(folder.path().join("litestream.yml"), config).unwrap();
    let mut orders = Program::start(&folder, "orders.py");
    orders.order(20);
    let replicate = "exec litestream replicate -config litestream.yml >litestream.log 2>&1";
    let child = folder.shell(replicate).spawn().unwrap();
    struct Killed(Child);
    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let _replicate = Killed(child);
    let started = Instant::now();
    let sync = "litestream sync -wait -timeout 30 -socket litestream.sock app.db";
    while !folder.shell(sync).output().unwrap().status.success() {
        assert!(started.elapsed() < PATIENCE, "Litestream does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    folder.run("litestream", 0);
    assert_eq!(
        count(&Connection::open(folder.path().join("restored.db")).unwrap()),
        20
    );
    // What the guide says of `keep` beside it: restarts of the log cost no commit.
    for _ in 0..5 {
        orders.order(1);
        let truncate = "walctl checkpoint app.db --mode truncate --timeout 100ms";
        let truncated = folder.shell(truncate).output().unwrap();
        assert!(
            matches!(truncated.status.code(), Some(0 | 3)),
            "{truncated:?}"
        );
    }
    let again = format!("{sync} && litestream restore -config litestream.yml -o again.db app.db");
    let output = folder.shell(&again).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        count(&Connection::open(folder.path().join("again.db")).unwrap()),
        25
    );
}

#[test]
fn disk_is_judged_as_the_guide_shows() {
    Folder::new().run("bench", 0);
}

#[test]
fn scripts_of_the_guide_work() {
    let met = is_met("json", &[Need::Python]);
    let jq = Command::new("jq").arg("--version").output().is_ok();
    if met {
        let folder = Folder::new();
        let (_orders, _report) = pinned(&folder);
        if jq {
            folder.run("json", 0);
        }
        folder.run("exit-code", 0);
    }
}
