//! What takes a process that Python can be made into: two copies of SQLite, and forks.

use std::path::Path;

use integration::queue;

/// Runs a script of this folder, which ends with `done`.
fn run(script: &str) {
    let directory = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/queue");
    let Some(mut command) = queue::python(&format!("the script {script}")) else {
        return;
    };
    command.arg(folder.join(script));
    command.arg(queue::library().unwrap()).arg(directory.path());
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    assert_eq!(output.stdout, b"done\n", "{script}: {errors}");
}

#[test]
fn two_copies_of_sqlite_in_a_process_queue_apart() {
    run("two_copies.py");
}

#[test]
fn children_of_a_fork_queue_with_their_parent() {
    run("fork.py");
}
