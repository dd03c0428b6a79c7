//! What tests need beyond Rust and a C compiler.
//!
//! On a developer's machine a test whose need is not met says on stderr what it
//! leaves out, and adds a line to the file that `WAL_UNCHECKED` names, which
//! `make test` shows at its end. In CI (`CI=true`), or with `WAL_REQUIRE_ALL=1`,
//! it fails instead and names what to install.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Something that is not on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The shell of stock SQLite, on `PATH`.
    Shell,
    /// The program of Litestream, where `WAL_LITESTREAM` or `make tools` puts it.
    Litestream,
    /// The rights of root.
    Root,
}

impl Need {
    /// True if it is met; otherwise tells that `unchecked` is left out.
    ///
    /// # Panics
    ///
    /// If it is not met where everything is required.
    #[must_use]
    pub fn is_met(self, unchecked: &str) -> bool {
        let met = match self {
            Need::Shell => answers("sqlite3", "-version"),
            Need::Litestream => litestream().is_file(),
            Need::Root => nix::unistd::geteuid().is_root(),
        };
        if !met {
            leave_out(unchecked, self.remedy());
        }
        met
    }

    fn remedy(self) -> &'static str {
        match self {
            Need::Shell => "there is no sqlite3 on PATH; install Debian's package sqlite3",
            Need::Litestream => "Litestream is not there; run `make tools`",
            Need::Root => "the tests do not run as root; run them as root",
        }
    }
}

/// Where the program of Litestream is, if it is there.
#[must_use]
pub fn litestream() -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let installed = || PathBuf::from(root).join("target/litestream/bin/litestream");
    env::var_os("WAL_LITESTREAM").map_or_else(installed, PathBuf::from)
}

fn answers(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

/// Tells that `unchecked` is left out, and why; panics where everything is
/// required.
fn leave_out(unchecked: &str, why: &str) {
    let line = format!("not checked: {unchecked}: {why}\n");
    assert!(!all_is_required(), "{line}");
    // The harness captures what the macros print, but not this.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(list) = env::var_os("WAL_UNCHECKED") {
        let list = OpenOptions::new().append(true).create(true).open(list);
        let _ = list.and_then(|mut list| list.write_all(line.as_bytes()));
    }
}

/// `WAL_REQUIRE_ALL` decides if it is set, and `CI` otherwise.
fn all_is_required() -> bool {
    let set = env::var("WAL_REQUIRE_ALL").or_else(|_| env::var("CI"));
    set.is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}
