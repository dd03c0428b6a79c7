//! `walctl bench`: figures, and what is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use common::{command, reports, text, walctl};
use integration::disk::{FileSystem, with_disk};
use integration::needs::Need;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn bench(directory: &Path, options: &[&str]) -> Output {
    let options: Vec<&str> = ["--seconds", "1"]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    walctl("bench", directory, &options)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Each number in `value` with its name.
fn numbers<'v>(name: &'v str, value: &'v Value) -> Vec<(&'v str, f64)> {
    match value {
        Value::Number(number) => vec![(name, number.as_f64().unwrap())],
        Value::Array(all) => all.iter().flat_map(|value| numbers(name, value)).collect(),
        Value::Object(all) => all
            .iter()
            .flat_map(|(name, value)| numbers(name, value))
            .collect(),
        _ => Vec::new(),
    }
}

#[test]
fn each_figure_is_positive_and_the_folder_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["--json"]);
    assert!(output.status.success(), "{output:?}");
    let [report] = &reports(&output)[..] else {
        panic!("one report: {output:?}")
    };
    let numbers = numbers("", report);
    assert_eq!(numbers.len(), 20, "{report:#}");
    for (name, number) in numbers {
        assert!(number > 0.0 && number.is_finite(), "{name}: {report:#}");
    }
    for times in ["sync_append", "sync_overwrite", "wake_up"] {
        let of = |name: &str| report[times][name].as_f64().unwrap();
        assert!(
            of("median_s") <= of("p99_s") && of("p99_s") <= of("max_s"),
            "{report:#}"
        );
    }
    let levels = report["commits"].as_array().unwrap().iter();
    let levels: Vec<&Value> = levels.map(|rate| &rate["synchronous"]).collect();
    assert_eq!(levels, ["off", "normal", "full"]);
    assert!(is_empty(folder.path()));
}

#[test]
fn text_judges_each_figure() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &[]);
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"(?s)warning: .*", "");
    settings.add_filter(r"^\S+: [^\n]* free", "[folder]: [file system] free");
    settings.add_filter(r" *\d[\d.,]* (s|ms|us|ns)\b", " [time]");
    settings.add_filter(r"takes \d+(\w+( \d+\w+)?) or", "takes [time] or");
    settings.add_filter(r"\d[\d.]* [kMG]?B/s", "[speed]");
    settings.add_filter(r"(FULL, )?\d[\d,]* (times a second|with)", "$1[rate] $2");
    settings.add_filter(r" +median +99 % +longest", "  median 99 % longest");
    settings.bind(|| {
        insta::assert_snapshot!(text(&output), @r"
        [folder]: [file system] free
          median 99 % longest
          append 4 KiB and sync [time] [time] [time]
          overwrite 4 KiB and sync [time] [time] [time]
          commit and wake a waiter [time] [time] [time]
          lock and release a byte [time]
          read transaction of a page [time]
        A sync takes [time]: with synchronous=FULL, one writer commits at most [rate] times a second.
        1 of 100 syncs takes [time] or longer, and so does the commit that waits for it.
        This library commits one page [rate] times a second with FULL, [rate] with NORMAL, [rate] with OFF.
        Writing in sequence gives [speed]: a checkpoint or a copy of 1 GB takes [time] or more.
        A lock takes [time], a read transaction [time], and a commit wakes a waiter in [time].
        ");
    });
}

#[test]
fn memory_is_not_taken_for_a_durable_disk() {
    let media = FileSystem::Tmpfs;
    if !media.need().is_met("bench on a file system in memory") {
        return;
    }
    let checked = with_disk(media, 512 << 20, |disk| {
        let output = bench(disk, &["--json"]);
        assert!(output.status.success(), "{output:?}");
        let report = &reports(&output)[0];
        assert_eq!(report["file_system"], "tmpfs");
        let warnings = report["warnings"].to_string();
        assert!(
            warnings.contains("a restart of the machine loses"),
            "{warnings}"
        );
    });
    checked.unwrap();
}

#[test]
fn interrupted_bench_removes_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(["bench", "--seconds", "600"])
        .arg(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while is_empty(folder.path()) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no folder is made"
        );
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(1));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(is_empty(folder.path()));
}

#[test]
fn directory_that_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    for (path, reason) in [
        (&*file, "it is no directory"),
        (&*folder.path().join("none"), "cannot find the directory"),
    ] {
        let output = bench(path, &[]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(message.contains(reason), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn directory_without_room_is_refused() {
    let media = FileSystem::Tmpfs;
    if !media.need().is_met("bench on a disk without room") {
        return;
    }
    let checked = with_disk(media, 16 << 20, |disk| {
        let output = bench(disk, &[]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(message.contains("256.0 MiB are needed"), "{message}");
        assert!(is_empty(disk));
    });
    checked.unwrap();
}

#[test]
fn directory_that_may_not_be_written_is_refused() {
    if !Need::Root.is_met("bench by a user without rights") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    // The program itself has to be where every user may run it.
    let program = folder.path().join("walctl");
    fs::copy(env!("CARGO_BIN_EXE_walctl"), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.arg("bench").arg(folder.path());
    let output = command.uid(integration::rights::NOBODY).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        message.contains("run as a user that may write there"),
        "{message}"
    );
}
