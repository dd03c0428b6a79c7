//! What the tests of commands share: running `walctl`, and peers that hold a database in a
//! known state.

#![allow(dead_code)] // Each test program uses a part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// `walctl` with `arguments`, not started.
pub(crate) fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walctl"));
    command.args(arguments).env_remove("NO_COLOR");
    command
}

/// Runs `walctl COMMAND DATABASE ARGUMENTS` to its end.
pub(crate) fn walctl(name: &str, database: &Path, arguments: &[&str]) -> Output {
    let mut command = command([name]);
    command.arg(database).args(arguments);
    command.output().expect("walctl starts")
}

/// What it printed.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The reports that it printed with `--json`, each of which has to be of the schema.
pub(crate) fn reports(output: &Output) -> Vec<Value> {
    let text = text(output);
    let lines = text.lines().map(serde_json::from_str);
    let parsed: Result<Vec<Value>, _> = lines.collect();
    let reports =
        parsed.unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    for report in &reports {
        check(report);
    }
    reports
}

/// Fails unless `report` is of the schema that `walctl generate schema` prints.
pub(crate) fn check(report: &Value) {
    static SCHEMA: OnceLock<jsonschema::Validator> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let printed = command(["generate", "schema"])
            .output()
            .expect("walctl starts");
        let schema: Value = serde_json::from_slice(&printed.stdout).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    });
    let faults: Vec<String> = schema.iter_errors(report).map(|e| e.to_string()).collect();
    assert!(
        faults.is_empty(),
        "{report} is not of the schema: {faults:#?}"
    );
}

/// A Python process with a connection `db` to a database, which executes one line at a time.
pub(crate) struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Reads a line of Python, executes it, and answers with what it printed, in one line.
const LOOP: &str = r#"
import io, contextlib, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
names = dict(db=db, sqlite3=sqlite3)
for line in sys.stdin:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(line, names)
        answer = 'ok ' + out.getvalue()
    except Exception as e:
        answer = 'failed ' + repr(e)
    print(answer.replace('\n', ' ').strip(), flush=True)
"#;

impl Python {
    /// Starts the program `python3` with a connection to `database`.
    pub(crate) fn connect(database: &Path) -> Self {
        Self::connect_with(database, &[])
    }

    /// The same, with options for `python3`.
    pub(crate) fn connect_with(database: &Path, options: &[&str]) -> Self {
        let mut child = Command::new("python3")
            .args(options)
            // A short command line, as reports show it.
            .args(["-c", "import os; exec(os.environ['LOOP'])"])
            .arg(database)
            .env("LOOP", LOOP)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Python {
            child,
            input,
            output,
        }
    }

    /// Executes a line, which has to succeed; what it printed.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let answer = self.try_run(line);
        let printed = answer.strip_prefix("ok");
        let printed = printed.unwrap_or_else(|| panic!("{line}: {answer}"));
        printed.trim().to_owned()
    }

    /// Executes a line; `ok` or `failed`, and what it printed.
    pub(crate) fn try_run(&mut self, line: &str) -> String {
        assert!(!line.contains('\n'), "one line at a time");
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
