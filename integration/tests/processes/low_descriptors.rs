//! The numbers 0, 1 and 2 belong to the standard streams, also of a daemon that has closed
//! them: what a library writes to stderr never gets into a file of a database.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Result, ensure};
use integration::worker::{Command, Settings, Stamp, WATCHDOG, Worker, fork};
use tempfile::TempDir;
use wal::{CheckpointMode, Database, DatabaseKind, LockKind, Options, PageNo};
use wal_core::storage::{OpenMode, OsFile};

const STREAMS: [i32; 3] = [0, 1, 2];

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .busy_timeout(WATCHDOG)
        .read_lock_delay(Duration::ZERO)
}

fn commit(database: &Database, byte: u8) -> Result<()> {
    let mut write = database.begin_write()?;
    write.page_mut(PageNo::ONE)?[100] = byte;
    write.commit()?;
    Ok(())
}

fn close_streams(streams: &[i32]) -> Result<()> {
    for stream in streams {
        nix::unistd::close(*stream)?;
    }
    Ok(())
}

/// As a library does that warns, whatever the stream is.
fn write_to_streams() {
    let warning = b"a warning of another library";
    let _ = nix::unistd::write(io::stdin(), warning);
    let _ = nix::unistd::write(io::stdout(), warning);
    let _ = nix::unistd::write(io::stderr(), warning);
}

/// What the standard streams of a process lead to.
fn streams_of(process: &str) -> Vec<(i32, PathBuf)> {
    let link = |number| fs::read_link(format!("/proc/{process}/fd/{number}")).ok();
    let streams = STREAMS.into_iter();
    let links = streams.filter_map(|number| Some((number, link(number)?)));
    links.collect()
}

fn ensure_streams_are_apart(process: &str, directory: &Path) -> Result<()> {
    for (number, link) in streams_of(process) {
        ensure!(
            !link.starts_with(directory),
            "descriptor {number} is {}",
            link.display()
        );
    }
    Ok(())
}

/// Opens each kind of file, and has a look after each.
fn use_everything(directory: &Path) -> Result<()> {
    let path = directory.join("pages");
    let look = || ensure_streams_are_apart("self", directory);
    let database = options().checkpoint_thread(true).open(&path)?;
    commit(&database, 1)?;
    look()?;
    let reader = options().read_only(true).open(&path)?;
    drop(reader.begin_read()?);
    let immutable = options().immutable(true).open(&path)?;
    look()?;
    database.backup(directory.join("copy"), |_| {
        ensure_streams_are_apart("self", directory).map_err(|e| {
            let error = io::Error::other(e.to_string());
            wal::Error::io(directory, "looking at descriptors", error)
        })
    })?;
    database.checkpoint(CheckpointMode::Truncate)?;
    drop((reader, immutable));
    database.close()?;
    // Those that are parked are used again.
    commit(&options().open(&path)?, 2)?;
    look()?;
    let owner = options().open_inproc(directory.join("owned"))?;
    look()?;
    owner.close()?;
    let classic = options().lock_kind(LockKind::Classic);
    commit(&classic.open(directory.join("classic"))?, 1)?;
    let plain = OsFile::open(&directory.join("plain"), OpenMode::Create)?;
    look()?;
    drop(plain);
    write_to_streams();
    look()
}

#[test]
fn closed_streams_are_never_files_of_a_database() {
    for chosen in 1..1 << STREAMS.len() {
        let is_chosen = |stream: &i32| chosen & (1 << stream) != 0;
        let streams: Vec<i32> = STREAMS.into_iter().filter(is_chosen).collect();
        let directory = TempDir::new().unwrap();
        let child = fork(|| {
            close_streams(&streams)?;
            use_everything(directory.path())
        });
        let finished = child.unwrap().finish(WATCHDOG);
        assert!(finished.is_ok(), "without {streams:?}: {finished:?}");
        for name in ["pages", "copy", "owned", "classic"] {
            let database = options().open(directory.path().join(name)).unwrap();
            let read = database.begin_read().unwrap();
            let page = read.page(PageNo::ONE).unwrap();
            assert!(page[..100].iter().all(|byte| *byte == 0), "{name}");
        }
    }
}

/// As after `chroot` into a directory that has nothing but the database.
#[test]
fn closed_streams_are_occupied_where_there_is_no_null_device() {
    if !integration::needs::Need::Root.is_met("closed streams in a jail without devices") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let child = fork(|| {
        nix::unistd::chroot(directory.path())?;
        nix::unistd::chdir("/")?;
        close_streams(&STREAMS)?;
        let database = options().open("/pages")?;
        commit(&database, 1)?;
        write_to_streams();
        drop(database);
        write_to_streams();
        Ok(())
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    let database = options().open(directory.path().join("pages")).unwrap();
    let read = database.begin_read().unwrap();
    let page = read.page(PageNo::ONE).unwrap();
    assert!(
        page[..100].iter().all(|byte| *byte == 0),
        "{:?}",
        &page[..100]
    );
    assert_eq!(page[100], 1);
}

/// True if a file was opened at this position.
fn stream_is_closed_before_open(at: usize) -> bool {
    let stamp = |sequence| Stamp {
        writer: 1,
        sequence,
    };
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pages");
    let count = directory.path().join("count");
    let position = at.to_string();
    let variables: [(&str, &OsStr); 5] = [
        ("LD_PRELOAD", OsStr::new(env!("FAILING_CALLS"))),
        ("WAL_FAULT", OsStr::new("LOW")),
        ("WAL_FAULT_AT", OsStr::new(&position)),
        ("WAL_FAULT_PREFIX", path.as_os_str()),
        ("WAL_FAULT_COUNT", count.as_os_str()),
    ];
    let mut worker = Worker::spawn_with(&variables).unwrap();
    worker.run(Command::Open(Settings::new(&path))).unwrap();
    worker.commit(1..2, stamp(1)).unwrap();
    let process = worker.pid().to_string();
    for (number, link) in streams_of(&process) {
        if link.starts_with(directory.path()) {
            // What is left of the race fails every write for its offset.
            let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap();
            let offset = info.lines().find_map(|line| line.strip_prefix("pos:"));
            let offset: u64 = offset.unwrap().trim().parse().unwrap();
            assert!(offset > 1 << 40, "{} at {offset}", link.display());
        }
    }
    worker.end().unwrap();
    let mut after = Worker::open(&Settings::new(&path)).unwrap();
    assert_eq!(after.newest_stamps(1..2).unwrap(), [Some(stamp(1))]);
    after.commit(1..2, stamp(2)).unwrap();
    after.end().unwrap();
    fs::read_to_string(count)
        .unwrap()
        .trim_end()
        .ends_with(" 1")
}

#[test]
fn stream_closed_between_reservation_and_open_damages_no_file() {
    let positions = (1..)
        .take_while(|at| stream_is_closed_before_open(*at))
        .count();
    assert!(positions >= 4, "only {positions} files were opened");
}
