//! The processes of a run: which language each writer is in, and where its program is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::order::Order;

/// What a writer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Stock SQLite, as rusqlite bundles it.
    Rust,
    /// The SQLite of Python.
    Python,
    /// better-sqlite3.
    Node,
    /// Page transactions of this library.
    Wal,
    /// SQL on the log of this library.
    WalLibsql,
}

impl Peer {
    /// The command that runs `order`.
    pub(crate) fn command(self, order: &Order) -> Result<Command> {
        let mut command = match self {
            Peer::Rust | Peer::Wal => Command::new(env::current_exe()?),
            Peer::Python => Command::new(python().context("no Python")?),
            Peer::Node => Command::new("node"),
            Peer::WalLibsql => Command::new(bench_sql()?),
        };
        match self {
            Peer::Rust => command.arg("queue-writer"),
            Peer::Wal => command.arg("queue-page-writer"),
            Peer::Python => command.arg(script("writer.py")),
            Peer::Node => command.arg(script("writer.cjs")),
            Peer::WalLibsql => command.arg("queue-writer"),
        };
        if self == Peer::Node {
            command.env("NODE_PATH", node_modules());
            if order.group_commit {
                command.env("WALQUEUE_GROUP", "1");
            }
        }
        command.arg(serde_json::to_string(order)?);
        Ok(command)
    }

    /// Why it cannot run on this machine, if it cannot.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let is_there = match self {
            Peer::Rust | Peer::Wal => true,
            Peer::Python => python().is_some(),
            Peer::Node => answers(
                Command::new("node")
                    .args(["-e", "require('better-sqlite3')"])
                    .env("NODE_PATH", node_modules()),
            ),
            Peer::WalLibsql => bench_sql().is_ok_and(|program| program.is_file()),
        };
        let why = match self {
            Peer::Python => {
                "no python3 loads extensions of SQLite; install Debian's package python3"
            }
            Peer::Node => "Node has no better-sqlite3; run `make tools`",
            _ => "bench-sql is not built; run `make bench-queue`",
        };
        (!is_there).then_some(why)
    }
}

/// The first Python whose SQLite loads extensions: a Python on PATH may be built without.
fn python() -> Option<&'static str> {
    let loads = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)";
    let candidates = ["python3", "/usr/bin/python3"];
    candidates
        .into_iter()
        .find(|python| answers(Command::new(python).args(["-c", loads])))
}

/// Where `make tools` installs the driver for Node, unless the environment names another folder.
fn node_modules() -> PathBuf {
    let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node/node_modules");
    env::var_os("NODE_PATH").map_or_else(installed, PathBuf::from)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("queue")
        .join(name)
}

/// The program that links libSQL, beside this one: libSQL and SQLite cannot be linked into one.
fn bench_sql() -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("bench-sql"))
}

fn answers(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The library `wal-queue`: what `WAL_QUEUE_LIBRARY` names, else the one that Cargo builds as a
/// dependency of this program.
pub(crate) fn library() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WAL_QUEUE_LIBRARY") {
        return Ok(path.into());
    }
    let program = env::current_exe()?;
    let path = program.with_file_name("deps").join("libwal_queue.so");
    ensure!(path.is_file(), "{}: no such file", path.display());
    Ok(path)
}

/// Whether `library` knows the parameter of group commit.
pub(crate) fn has_group_commit(library: &Path) -> Result<bool> {
    let bytes = fs::read(library)?;
    let parameter = b"walqueue_group";
    Ok(bytes
        .windows(parameter.len())
        .any(|window| window == parameter))
}
