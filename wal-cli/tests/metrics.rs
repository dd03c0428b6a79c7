//! `walctl metrics` beside stock SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Python, command, text, walctl};
use integration::needs::Need;
use rusqlite::Connection;

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The metrics of an exposition: type, help, and the value of each name with labels.
#[derive(Debug, Default)]
struct Parsed {
    families: BTreeMap<String, (String, String)>,
    values: BTreeMap<String, f64>,
}

/// Parses `text` by the grammar of OpenMetrics, as far as counters and gauges need it.
fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let lines = text.strip_suffix("# EOF\n").expect("ends with EOF").lines();
    let mut family = String::new();
    let mut help = String::new();
    for line in lines {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap();
            (family, help) = (name.to_owned(), text.to_owned());
            assert!(!parsed.families.contains_key(name), "{name} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "TYPE follows HELP of the same family");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert!(!name.ends_with("_total"), "{line}");
            let known = (kind.to_owned(), help.clone());
            parsed.families.insert(family.clone(), known);
        } else {
            let (name, rest) = line.split_once('{').expect("all have labels");
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            let is_counter = parsed.families[&family].0 == "counter";
            let suffix = if is_counter { "_total" } else { "" };
            assert_eq!(name, format!("{family}{suffix}"), "{line}");
            check_labels(labels);
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && (!is_counter || value >= 0.0), "{line}");
            let key = format!("{name}{{{labels}}}");
            assert!(
                parsed.values.insert(key, value).is_none(),
                "{line} is there twice"
            );
        }
    }
    parsed
}

/// Fails unless `labels` is a list of `name="value"`, each name once, with escaped values.
fn check_labels(labels: &str) {
    let mut names = BTreeSet::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{labels}"
        );
        assert!(names.insert(name), "{labels}");
        let mut end = None;
        let mut is_escaped = false;
        for (at, c) in value.char_indices() {
            match c {
                _ if is_escaped => {
                    assert!(['\\', 'n', '"'].contains(&c), "{labels}");
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        rest = &value[end.expect("a closed value") + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

impl Parsed {
    fn get(&self, name: &str, database: &Path, labels: &str) -> f64 {
        let database = database.display();
        let key = format!("{name}{{database=\"{database}\"{labels}}}");
        let value = self.values.get(&key);
        *value.unwrap_or_else(|| panic!("{key} is in {:#?}", self.values))
    }
}

fn connect(database: &Path) -> Connection {
    let stock = Connection::open(database).unwrap();
    let setup = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE IF NOT EXISTS t (x)";
    stock.execute_batch(setup).unwrap();
    stock
}

fn once(database: &Path) -> Parsed {
    let output = walctl("metrics", database, &["--once"]);
    assert!(output.status.success(), "{output:?}");
    parse(&text(&output))
}

#[test]
fn metrics_are_those_of_the_table_in_the_docs() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("a \"quoted\" name\\.db");
    let _stock = connect(&database);
    let parsed = once(&database);
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let docs = fs::read_to_string(docs).unwrap();
    let rows = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `walctl_"));
    let documented: BTreeMap<String, (String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
            let [name, kind, _labels, help] = cells[..] else {
                panic!("four cells: {row}")
            };
            let name = name.trim_end_matches('`').trim_end_matches("_total");
            (format!("walctl_{name}"), (kind.into(), format!("{help}.")))
        })
        .collect();
    assert_eq!(parsed.families, documented);
}

#[test]
fn figures_agree_with_the_pragmas_of_python() {
    if !Need::Python.is_met("the figures of metrics beside Python") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let mut writer = Python::connect(&database);
    writer.run("db.execute('PRAGMA journal_mode=wal')");
    writer.run("db.execute('PRAGMA wal_autocheckpoint=0'); db.execute('CREATE TABLE t(x)')");
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT * FROM t').fetchall())");
    let before = once(&database);
    writer.run("[db.execute('INSERT INTO t VALUES (randomblob(9000))') for _ in range(7)]");
    let parsed = once(&database);
    let printed = writer.run("print(*db.execute('PRAGMA wal_checkpoint').fetchone())");
    let [_, frames, backfilled] = figures(&printed)[..] else {
        panic!("three figures: {printed}")
    };
    let pages = writer.run("print(*db.execute('PRAGMA page_count').fetchone())");
    let get = |name: &str, labels: &str| parsed.get(name, &database, labels);
    assert_eq!(get("walctl_up", ""), 1.0);
    assert_eq!(get("walctl_log_frames", ""), frames);
    assert_eq!(get("walctl_database_pages", ""), figures(&pages)[0]);
    let commits = get("walctl_commits_total", "");
    assert_eq!(
        commits - before.get("walctl_commits_total", &database, ""),
        7.0
    );
    let pinned = get("walctl_read_mark_frame", ",slot=\"1\"");
    assert_eq!(pinned, backfilled, "a checkpoint copies up to the mark");
    assert_eq!(get("walctl_read_slot_holders", ",slot=\"1\""), 1.0);
    assert_eq!(get("walctl_oldest_reader_lag_frames", ""), frames - pinned);
    let labels = ",mode=\"full\",lock=\"READ(1)\"";
    assert_eq!(get("walctl_checkpoint_blocked", labels), 1.0);
    let after = once(&database);
    assert_eq!(
        after.get("walctl_log_backfilled_frames", &database, ""),
        backfilled
    );
}

fn figures(printed: &str) -> Vec<f64> {
    let words = printed.split_ascii_whitespace();
    words.map(|word| word.parse().unwrap()).collect()
}

/// A `walctl metrics --listen` with the address that it printed.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(database: &Path) -> Self {
        let mut command = command(["metrics", "--listen", "127.0.0.1:0"]);
        let mut child = command
            .arg(database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening at http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        Server { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The head and the body of the answer.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = self.connect();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Sends SIGTERM, and fails unless the process ends soon.
    fn end(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return;
            }
            assert!(Instant::now() < until, "SIGTERM ends it");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn server_answers_get_and_head_of_metrics_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let _stock = connect(&database);
    let server = Server::start(&database);
    let (head, body) = server.ask("GET /metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(kind), "{head}");
    assert_eq!(parse(&body).get("walctl_up", &database, ""), 1.0);
    let (head, body) = server.ask("HEAD /metrics");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && body.is_empty(),
        "{head}{body}"
    );
    assert!(server.ask("GET /").0.starts_with("HTTP/1.1 404 "));
    assert!(server.ask("POST /metrics").0.starts_with("HTTP/1.1 405 "));
    server.end();
}

#[test]
fn slow_clients_block_neither_scrapes_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let _stock = connect(&database);
    let server = Server::start(&database);
    let half = |_| {
        let mut stream = server.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost").unwrap();
        stream
    };
    let slow: Vec<TcpStream> = (0..3).map(half).collect();
    std::thread::scope(|scope| {
        let scrapes = [(); 8].map(|()| scope.spawn(|| server.ask("GET /metrics").1));
        for scrape in scrapes {
            let parsed = parse(&scrape.join().unwrap());
            assert_eq!(parsed.get("walctl_up", &database, ""), 1.0);
        }
    });
    server.end();
    drop(slow);
}

#[test]
fn database_that_is_missing_is_down_until_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let server = Server::start(&database);
    let up = || parse(&server.ask("GET /metrics").1).get("walctl_up", &database, "");
    assert_eq!(up(), 0.0);
    let stock = connect(&database);
    assert_eq!(up(), 1.0);
    drop(stock);
    fs::remove_file(&database).unwrap();
    assert_eq!(up(), 0.0);
}

#[test]
fn counters_never_fall_beside_restarts_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let stock = connect(&database);
    let server = Server::start(&database);
    let scrape = || {
        let parsed = parse(&server.ask("GET /metrics").1);
        ["commits", "committed_frames", "log_restarts"]
            .map(|name| parsed.get(&format!("walctl_{name}_total"), &database, ""))
    };
    let [commits, frames, restarts] = scrape();
    let mut before = [commits, frames, restarts];
    for round in 1..=3 {
        stock
            .execute_batch("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(RESTART)")
            .unwrap();
        stock.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        let now = scrape();
        assert_eq!(now[0], commits + 2.0 * f64::from(round));
        assert_eq!(now[2], restarts + f64::from(round));
        assert!(now[1] > before[1], "{now:?} after {before:?}");
        before = now;
    }
}

#[test]
fn textfile_is_whole_and_alone_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let _stock = connect(&database);
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("walctl.prom");
    fs::write(&file, "old").unwrap();
    let arguments = ["--once", "--textfile", file.to_str().unwrap()];
    let output = walctl("metrics", &database, &arguments);
    assert!(output.status.success(), "{output:?}");
    let parsed = parse(&fs::read_to_string(&file).unwrap());
    assert_eq!(parsed.get("walctl_up", &database, ""), 1.0);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);

    let missing = target.path().join("missing/walctl.prom");
    let arguments = ["--once", "--textfile", missing.to_str().unwrap()];
    let output = walctl("metrics", &database, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cannot write the metrics"), "{error}");
}
