//! What takes a process that Python can be made into: two copies of SQLite, a SQLite of another
//! build, and forks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::queue;

/// The folder of the bundled SQLite's source.
const SQLITE: &str = env!("SQLITE_SOURCE");

/// Runs a script of this folder, which ends with `done`. It also gets `arguments`.
fn run(script: &str, arguments: &[&Path]) {
    let directory = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/queue");
    let Some(mut command) = queue::python(&format!("the script {script}")) else {
        return;
    };
    command.arg(folder.join(script));
    command.arg(queue::library().unwrap()).arg(directory.path());
    command.args(arguments);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    assert_eq!(output.stdout, b"done\n", "{script}: {errors}");
}

#[test]
fn two_copies_of_sqlite_in_a_process_queue_apart() {
    run("two_copies.py", &[]);
}

#[test]
fn children_of_a_fork_queue_with_their_parent() {
    run("fork.py", &[]);
}

/// Builds SQLite with locks that wait, unless an earlier run has.
fn sqlite_with_lock_timeout() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = folder.join(format!("setlk-{}.so", rusqlite::version()));
    if !built.exists() {
        let building = folder.join(format!("setlk-{}.so", std::process::id()));
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
        compiler.args(["-shared", "-fPIC", "-O1", "-DSQLITE_ENABLE_SETLK_TIMEOUT=1"]);
        compiler.arg("-o").arg(&building);
        compiler.arg(Path::new(SQLITE).join("sqlite3.c"));
        compiler.args(["-lpthread", "-ldl", "-lm"]);
        let status = compiler.status().unwrap();
        assert!(status.success(), "the C compiler: {status}");
        fs::rename(building, &built).unwrap();
    }
    built
}

#[test]
fn sqlite_that_waits_in_its_locks_queues_and_keeps_timeouts() {
    run("lock_timeout.py", &[&sqlite_with_lock_timeout()]);
}
