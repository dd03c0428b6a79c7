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
    /// Python with its module `sqlite3`, on `PATH`.
    Python,
    /// Python whose SQLite loads extensions, on `PATH` or where Debian installs it.
    ExtensionPython,
    /// Node with better-sqlite3, where `NODE_PATH` names it or `make tools` installs it. It needs
    /// Node 20, newer than Debian 12 has: only `WAL_REQUIRE_ALL=1` requires it.
    NodeDriver,
    /// The program of Litestream, where `WAL_LITESTREAM` or `make tools` puts it.
    Litestream,
    /// The program `strace`, and the right to trace, which not every container has: only
    /// `WAL_REQUIRE_ALL=1` requires it.
    Strace,
    /// The rights of root.
    Root,
    /// Namespaces of a process's own, as these options of `unshare` name them, which not every
    /// container allows: only `WAL_REQUIRE_ALL=1` requires them.
    Namespaces(&'static [&'static str]),
    /// A disk of the test's own, with the file system that this command makes in a file, or a
    /// tmpfs if it is empty. Even root may not mount it in many containers: only
    /// `WAL_REQUIRE_ALL=1` requires it.
    Disk(&'static str),
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
            Need::Shell => answers("sqlite3", &["-version"]),
            Need::Python => answers("python3", &["-c", "import sqlite3"]),
            Need::ExtensionPython => extension_python().is_some(),
            Need::NodeDriver => succeeds(node().args(["-e", "require('better-sqlite3')"])),
            Need::Litestream => litestream().is_file(),
            Need::Strace => answers("strace", &["-qq", "-o", "/dev/null", "true"]),
            Need::Root => nix::unistd::geteuid().is_root(),
            Need::Namespaces(options) => namespaces_can_be_made(options),
            Need::Disk(maker) => disk_can_be_mounted(maker),
        };
        if !met {
            let required = match self {
                Need::Disk(_) | Need::Namespaces(_) | Need::NodeDriver | Need::Strace => {
                    is_set("WAL_REQUIRE_ALL")
                }
                _ => all_is_required(),
            };
            leave_out(unchecked, self.remedy(), required);
        }
        met
    }

    fn remedy(self) -> &'static str {
        match self {
            Need::Shell => "there is no sqlite3 on PATH; install Debian's package sqlite3",
            Need::Python => "there is no python3 on PATH; install Debian's package python3",
            Need::ExtensionPython => {
                "no python3 loads extensions of SQLite; install Debian's package python3"
            }
            Need::NodeDriver => "Node has no better-sqlite3; run `make tools`",
            Need::Litestream => "Litestream is not there; run `make tools`",
            Need::Strace => {
                "there is no strace, or it may not trace; install Debian's package strace"
            }
            Need::Root => "the tests do not run as root; run them as root",
            Need::Namespaces(_) => {
                "`unshare` makes no such namespace; run the tests as root, with CAP_SYS_ADMIN"
            }
            Need::Disk("") => "no tmpfs can be mounted; run the tests as root, with CAP_SYS_ADMIN",
            Need::Disk(_) => {
                "it cannot be made or mounted; install Debian's packages e2fsprogs, dosfstools, \
                 btrfs-progs and xfsprogs, and run the tests as root, with CAP_SYS_ADMIN, on a \
                 kernel that has the file system"
            }
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

/// The first Python whose SQLite loads extensions: one on `PATH` may be built without.
pub(crate) fn extension_python() -> Option<Command> {
    let loads = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)";
    let candidates = ["python3", "/usr/bin/python3"];
    let found = candidates
        .into_iter()
        .find(|python| answers(python, &["-c", loads]));
    found.map(Command::new)
}

/// Node, which finds the driver.
pub(crate) fn node() -> Command {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let installed = || PathBuf::from(root).join("target/node/node_modules");
    let modules = env::var_os("NODE_PATH").map_or_else(installed, PathBuf::from);
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    command
}

/// In a mount namespace of its own, so that nothing else sees it.
fn disk_can_be_mounted(maker: &str) -> bool {
    let mut mounts = "mount -t tmpfs tmpfs /tmp && mountpoint -q /tmp".to_owned();
    if !maker.is_empty() {
        mounts += " && mkdir /tmp/disk && truncate -s 320M /tmp/image && ";
        mounts += maker;
        mounts += " /tmp/image && mount -o loop /tmp/image /tmp/disk && mountpoint -q /tmp/disk";
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &mounts]);
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

fn namespaces_can_be_made(options: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(options).arg("true").stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

fn answers(program: &str, arguments: &[&str]) -> bool {
    succeeds(Command::new(program).args(arguments))
}

fn succeeds(command: &mut Command) -> bool {
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// Tells that `unchecked` is left out, and why; panics if it is `required`.
fn leave_out(unchecked: &str, why: &str, required: bool) {
    let line = format!("not checked: {unchecked}: {why}\n");
    assert!(!required, "{line}");
    // The harness captures what the macros print, but not this.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(list) = env::var_os("WAL_UNCHECKED") {
        let list = OpenOptions::new().append(true).create(true).open(list);
        let _ = list.and_then(|mut list| list.write_all(line.as_bytes()));
    }
}

/// `WAL_REQUIRE_ALL` decides if it is set, and `CI` otherwise.
fn all_is_required() -> bool {
    match env::var_os("WAL_REQUIRE_ALL") {
        Some(_) => is_set("WAL_REQUIRE_ALL"),
        None => is_set("CI"),
    }
}

fn is_set(variable: &str) -> bool {
    let set = env::var(variable);
    set.is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}
