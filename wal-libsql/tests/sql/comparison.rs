//! Runs a script on both, and compares.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use wal_libsql::{BackendKind, Value};

use crate::needs::Need;
use crate::shell::Shell;

/// What a script gave: its rows, and its errors.
#[derive(PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    rows: Vec<String>,
    errors: Vec<String>,
}

/// Runs `script`, a statement or a command of the shell a line, on our log
/// and on stock SQLite, each in a directory of its own with the database
/// `main.db`.
pub(crate) fn same_on_both(script: &str) -> Outcome {
    same_as_stock(BackendKind::Shared, script)
}

/// As [`same_on_both`], for a script with one connection, on each backend.
pub(crate) fn same_on_each_backend(script: &str) -> Outcome {
    #[cfg(feature = "inproc")]
    same_as_stock(BackendKind::InProcess, script);
    same_on_both(script)
}

fn same_as_stock(backend: BackendKind, script: &str) -> Outcome {
    let (ours_dir, stock_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours_path = ours_dir.path().join("main.db");
    let stock_path = stock_dir.path().join("main.db");
    let ours = ours_on(backend, &ours_path, script);
    if !Need::Shell.is_met("SQL on our log beside stock SQLite") {
        return ours;
    }
    let stock = stock(&stock_path, script);
    assert_same(&ours, &stock, &format!("{backend:?} and stock"));
    let contents = format!("PRAGMA integrity_check;\n{}", dump(&ours_path));
    let here = self::ours(&ours_path, &contents);
    assert!(here.errors.is_empty(), "{:?}", here.errors);
    assert_eq!(here.rows.first().map(String::as_str), Some("'ok'"));
    assert_same(
        &here,
        &self::ours(&stock_path, &contents),
        "stock's file by ours",
    );
    assert_same(
        &here,
        &self::stock(&ours_path, &contents),
        "our file by stock",
    );
    assert_same(
        &here,
        &self::stock(&stock_path, &contents),
        "stock's file by stock",
    );
    ours
}

/// Shows the first difference only: outcomes are long.
fn assert_same(left: &Outcome, right: &Outcome, what: &str) {
    assert_eq!(left.errors, right.errors, "{what}: errors");
    for (left, right) in left.rows.iter().zip(&right.rows) {
        assert_eq!(left, right, "{what}");
    }
    assert_eq!(
        left.rows.len(),
        right.rows.len(),
        "{what}: the number of rows"
    );
}

impl Outcome {
    pub(crate) fn rows(&self) -> &[String] {
        &self.rows
    }

    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }
}

/// Statements that show all tables of the database but statistics, which the
/// engines keep in different ones.
fn dump(path: &Path) -> String {
    let mut db = Shell::open(BackendKind::Shared, path);
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' \
        AND name NOT LIKE 'sqlite_stat%' ORDER BY name";
    let mut dump = "SELECT type, name, sql FROM sqlite_schema \
        WHERE name NOT LIKE 'sqlite_stat%' ORDER BY name;\n"
        .to_owned();
    for row in db.run(tables).unwrap() {
        let [Value::Text(name)] = &row[..] else {
            panic!("{row:?}")
        };
        writeln!(dump, "SELECT * FROM \"{name}\" ORDER BY rowid;").unwrap();
    }
    dump
}

pub(crate) fn ours(path: &Path, script: &str) -> Outcome {
    ours_on(BackendKind::Shared, path, script)
}

fn ours_on(backend: BackendKind, path: &Path, script: &str) -> Outcome {
    let mut shell = Shell::open(backend, path);
    let mut outcome = Outcome::default();
    let here = path.parent().unwrap().display().to_string();
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        match shell.run(&line.replace("{dir}", &here)) {
            Ok(rows) => outcome.rows.extend(rows.iter().map(|row| shown(row))),
            Err(error) => outcome.errors.push(error.message),
        }
    }
    outcome
}

/// A row as the shell shows it in its mode `quote`.
fn shown(row: &[Value]) -> String {
    let value = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(blob) => {
            blob.iter().fold("X'".to_owned(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            }) + "'"
        }
    };
    row.iter().map(value).collect::<Vec<_>>().join(",")
}

pub(crate) fn stock(path: &Path, script: &str) -> Outcome {
    let mut shell = Command::new("sqlite3")
        .args(["-batch", "-init", "/dev/null", "-cmd", ".mode quote"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the shell of stock SQLite is needed: sqlite3");
    let here = path.parent().unwrap().display().to_string();
    let script = script.replace("{dir}", &here);
    let mut input = shell.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()).unwrap());
    let output = shell.wait_with_output().unwrap();
    writer.join().unwrap();
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    Outcome {
        rows: lines(&output.stdout),
        errors: lines(&output.stderr)
            .iter()
            .filter_map(|line| message(line))
            .collect(),
    }
}

/// The engine's message in what the shell says: "Runtime error near line 3:
/// UNIQUE constraint failed: t.a (19)". Not all have a code.
fn message(line: &str) -> Option<String> {
    let (_, said) = line.split_once(" near line ")?;
    let (_, message) = said.split_once(": ")?;
    let without_code = message.rsplit_once(" (").filter(|(_, code)| {
        let digits = code.strip_suffix(')');
        digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
    });
    Some(
        without_code
            .map_or(message, |(message, _)| message)
            .to_owned(),
    )
}
