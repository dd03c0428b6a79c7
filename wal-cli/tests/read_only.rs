//! Commands that only look store no byte, make no file and acquire no lock.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Python;
use integration::disk::{FileSystem, with_disk};
use integration::folder::FolderState;
use integration::needs::Need;

/// The commands that only look, each with arguments that make it end by itself.
const LOOKING: [&[&str]; 9] = [
    &["info"],
    &["locks"],
    &["doctor"],
    &["verify"],
    &["frames"],
    &["tail"],
    &["wait", "--timeout", "1ms"],
    &["metrics"],
    &["top", "--count", "1"],
];

/// A database in WAL mode with commits in its log, held by two processes.
fn live(folder: &Path) -> (PathBuf, Python, Python) {
    let database = folder.join("app.db");
    let mut writer = Python::connect(&database);
    writer.run("print(db.execute('PRAGMA journal_mode=wal').fetchone())");
    writer.run("db.execute('CREATE TABLE t (x)')");
    let mut reader = Python::connect(&database);
    reader.run("db.execute('BEGIN'); print(db.execute('SELECT count(*) FROM t').fetchone())");
    writer.run("db.execute('INSERT INTO t VALUES (1)')");
    (database, writer, reader)
}

fn run(arguments: &[&str], database: &Path) -> std::process::Output {
    let (name, options) = arguments.split_first().unwrap();
    common::walctl(name, database, options)
}

/// Whether a line of `strace` is a call that changes something outside of its process.
fn changes_something(line: &str, folder: &Path) -> bool {
    let call = line.split('(').next().unwrap_or_default();
    let call = call.rsplit(' ').next().unwrap_or_default();
    let opens_to_write = || {
        ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
            .iter()
            .any(|flag| line.contains(flag))
    };
    match call {
        "open" | "openat" | "openat2" | "creat" => {
            line.contains(&*folder.to_string_lossy()) && (call == "creat" || opens_to_write())
        }
        "mmap" => line.contains("MAP_SHARED") && line.contains("PROT_WRITE"),
        "fcntl" => ["F_SETLK", "F_OFD_SETLK"]
            .iter()
            .any(|lock| line.contains(lock)),
        "flock" | "ftruncate" | "truncate" | "fallocate" | "unlink" | "unlinkat" | "rename"
        | "renameat" | "renameat2" | "mkdir" | "mkdirat" | "link" | "linkat" | "symlink"
        | "symlinkat" | "chmod" | "fchmod" | "fchmodat" | "chown" | "fchown" | "fchownat"
        | "utimensat" | "pwrite64" | "pwritev" | "pwritev2" | "copy_file_range" | "sendfile"
        | "fsync" | "fdatasync" | "msync" | "setxattr" | "fsetxattr" | "kill" | "tgkill"
        | "ptrace" => true,
        _ => false,
    }
}

#[test]
fn command_that_looks_makes_no_call_that_changes_anything() {
    let unchecked = "the system calls of commands that only look";
    if !Need::Python.is_met(unchecked) || !Need::Strace.is_met(unchecked) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, _writer, _reader) = live(folder.path());
    for arguments in LOOKING {
        let trace = folder.path().with_extension("trace");
        let (name, options) = arguments.split_first().unwrap();
        let output = Command::new("strace")
            .args(["-f", "-qq", "-s", "300", "-o"])
            .arg(&trace)
            .arg(env!("CARGO_BIN_EXE_walctl"))
            .arg(name)
            .arg(&database)
            .args(options)
            .output()
            .unwrap();
        let calls = fs::read_to_string(&trace).unwrap();
        fs::remove_file(&trace).unwrap();
        assert!(
            calls.contains("app.db"),
            "{arguments:?} was traced: {output:?}"
        );
        let wrong: Vec<&str> = calls
            .lines()
            .filter(|line| changes_something(line, folder.path()))
            .collect();
        assert_eq!(wrong, [""; 0], "{arguments:?}");
    }
}

#[test]
fn traces_of_changes_are_recognised() {
    let folder = Path::new("/data");
    for line in [
        r#"12 openat(AT_FDCWD, "/data/app.db", O_RDWR|O_CLOEXEC) = 3"#,
        r#"12 openat(AT_FDCWD, "/data/x", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3"#,
        r"12 fcntl(3, F_OFD_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET}) = 0",
        r"12 mmap(NULL, 32768, PROT_READ|PROT_WRITE, MAP_SHARED, 4, 0) = 0x7f",
        r#"12 unlink("/data/app.db-shm") = 0"#,
        r#"12 pwrite64(3, "", 1, 0) = 1"#,
    ] {
        assert!(changes_something(line, folder), "{line}");
    }
    for line in [
        r#"12 openat(AT_FDCWD, "/data/app.db", O_RDONLY|O_CLOEXEC) = 3"#,
        r"12 fcntl(3, F_OFD_GETLK, {l_type=F_RDLCK, l_whence=SEEK_SET}) = 0",
        r"12 mmap(NULL, 32768, PROT_READ, MAP_SHARED, 4, 0) = 0x7f",
        r#"12 write(1, "app.db", 6) = 6"#,
    ] {
        assert!(!changes_something(line, folder), "{line}");
    }
}

#[test]
fn command_that_looks_leaves_each_file_as_it_was() {
    if !Need::Python.is_met("files beside Python that must not change") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_database, writer, reader) = live(folder.path());
    // The database is left as a crash leaves it, and no process has it open.
    drop((writer, reader));
    let before = FolderState::of(folder.path()).unwrap();
    for arguments in LOOKING {
        run(arguments, &folder.path().join("app.db"));
        let after = FolderState::of(folder.path()).unwrap();
        assert_eq!(before.changes(&after), [""; 0], "{arguments:?}");
    }
}

#[test]
fn command_works_on_media_that_cannot_be_written() {
    let media = FileSystem::Tmpfs;
    if !media.need().is_met("commands on read-only media")
        || !Need::Python.is_met("commands on read-only media")
    {
        return;
    }
    let checked = with_disk(media, 0, |disk| {
        let (database, writer, reader) = live(disk);
        drop((writer, reader));
        let remount = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(disk)
            .status()
            .unwrap();
        assert!(remount.success());
        assert!(
            fs::write(disk.join("x"), b"x").is_err(),
            "it cannot be written"
        );
        for arguments in LOOKING {
            let output = run(arguments, &database);
            let code = output.status.code();
            // `wait` ends with 3, and `doctor` may have a warning.
            assert!(matches!(code, Some(0 | 3 | 4)), "{arguments:?}: {output:?}");
        }
    });
    checked.unwrap();
}

#[test]
fn file_that_may_not_be_read_is_named_in_one_sentence() {
    if !Need::Root.is_met("files of another user") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let database = folder.path().join("app.db");
    wal::Database::open_pages(&database)
        .unwrap()
        .close()
        .unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();
    // The program itself has to be where every user may run it.
    let program = folder.path().join("walctl");
    fs::copy(env!("CARGO_BIN_EXE_walctl"), &program).unwrap();
    for arguments in LOOKING {
        use std::os::unix::process::CommandExt as _;
        let (name, options) = arguments.split_first().unwrap();
        let mut command = Command::new(&program);
        command.arg(name).arg(&database).args(options);
        let output = command.uid(integration::rights::NOBODY).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        if *name == "metrics" {
            assert!(
                output.status.success(),
                "a missing figure is one: {output:?}"
            );
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(message.contains("app.db"), "{arguments:?}: {message}");
        assert!(
            message.contains("ermission denied"),
            "{arguments:?}: {message}"
        );
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    }
}
