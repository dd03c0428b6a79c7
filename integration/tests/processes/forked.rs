//! A forked child inherits descriptors, mappings and handles. It can neither
//! use nor harm what is its parent's, and opens its own.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(unsafe_code)] // A mapping is sliced.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use integration::worker::{Command, HeldByte, Settings, Stamp, WATCHDOG, Worker, fork};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serial_test::serial;
use tempfile::TempDir;
use wal::{CheckpointMode, Database, Error, PageNo};
use wal_core::Lock;
use wal_core::storage::{File as _, FileSyncType, OpenMode, OsFile, beside, shm_bytes};
use wal_core::testing::{Point, set_hook};

struct Fixture {
    settings: Settings,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        Fixture {
            settings: Settings::new(&directory.path().join("pages")),
            _directory: directory,
        }
    }

    fn open(&self) -> Database {
        open(&self.settings).unwrap()
    }
}

fn open(settings: &Settings) -> Result<Database> {
    Ok(settings.options()?.open(&settings.path)?)
}

fn stamp(writer: u64, sequence: u64) -> Stamp {
    Stamp { writer, sequence }
}

fn commit(database: &Database, stamp: Stamp) -> Result<()> {
    let mut write = database.begin_write()?;
    stamp.write(1, write.page_mut(PageNo::ONE)?);
    write.commit()?;
    Ok(())
}

fn newest(database: &Database) -> Result<Option<Stamp>> {
    Stamp::read(1, &database.begin_read()?.page(PageNo::ONE)?)
}

fn expect_refused<T>(what: &str, result: Result<T, Error>) -> Result<()> {
    match result {
        Err(Error::UsedAfterFork) => Ok(()),
        Err(other) => bail!("{what} gave another error: {other}"),
        Ok(_) => bail!("{what} was done"),
    }
}

#[test]
#[serial]
fn a_childs_inherited_handles_refuse_and_leave_the_parents_locks() {
    let fixture = Fixture::new();
    let database = fixture.open();
    commit(&database, stamp(1, 1)).unwrap();
    let read = database.begin_read().unwrap();
    let slot = read.snapshot().slot().unwrap();
    let mut write = database.begin_write().unwrap();
    stamp(1, 2).write(1, write.page_mut(PageNo::ONE).unwrap());

    // The child gets copies of these; what it drops is not dropped here.
    let mut inherited = Some((read, write, database));
    let child = fork(|| {
        let (read, mut write, database) = inherited.take().context("forked twice")?;
        expect_refused("begin_read", database.begin_read())?;
        expect_refused("begin_write", database.begin_write())?;
        expect_refused("checkpoint", database.checkpoint(CheckpointMode::Passive))?;
        expect_refused("is_stale", read.is_stale())?;
        expect_refused("page_mut", write.page_mut(PageNo::ONE).map(drop))?;
        expect_refused("commit", write.commit())?;
        drop(read);
        Ok(database.close()?)
    });
    child.unwrap().finish(WATCHDOG).unwrap();

    let (read, write, database) = inherited.unwrap();
    let mut onlooker = Worker::spawn().unwrap();
    let shm = beside(&fixture.settings.path, "-shm");
    let mut held = |lock| onlooker.probe(&shm, shm_bytes::of(lock).start).unwrap();
    assert_eq!(held(Lock::Read(slot)), Some(HeldByte::Shared));
    assert_eq!(held(Lock::Write), Some(HeldByte::Exclusive));
    write.commit().unwrap();
    drop(read);
    assert_eq!(newest(&database).unwrap(), Some(stamp(1, 2)));
    database.close().unwrap();
}

#[test]
#[serial]
fn a_child_opens_the_database_itself_while_its_parent_has_it_open() {
    let fixture = Fixture::new();
    let database = fixture.open();
    commit(&database, stamp(1, 1)).unwrap();
    let child = fork(|| {
        let own = open(&fixture.settings)?;
        ensure!(newest(&own)? == Some(stamp(1, 1)));
        commit(&own, stamp(2, 2))?;
        Ok(own.close()?)
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    assert_eq!(newest(&database).unwrap(), Some(stamp(2, 2)));
    commit(&database, stamp(1, 3)).unwrap();
    database.close().unwrap();
    assert!(!beside(&fixture.settings.path, "-wal").exists());
}

#[test]
#[serial]
fn a_childs_child_opens_the_database_too() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let child = fork(|| {
        let own = open(&fixture.settings)?;
        commit(&own, stamp(2, 1))?;
        let grandchild = fork(|| {
            expect_refused("begin_read", own.begin_read())?;
            commit(&open(&fixture.settings)?, stamp(3, 2))
        })?;
        grandchild.finish(WATCHDOG)?;
        ensure!(newest(&own)? == Some(stamp(3, 2)));
        Ok(())
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    assert_eq!(newest(&database).unwrap(), Some(stamp(3, 2)));
}

#[test]
#[serial]
fn a_killed_parents_locks_are_free_though_its_child_lives() {
    let fixture = Fixture::new();
    let mut parent = Worker::open(&fixture.settings).unwrap();
    parent.commit(1..2, stamp(1, 1)).unwrap();
    parent.begin_read("held").unwrap();
    parent.run(Command::BeginWrite).unwrap();
    let child: i32 = parent.ask(Command::Fork).unwrap();
    parent.kill().unwrap();

    let mut settings = fixture.settings.clone();
    settings.busy_timeout = std::time::Duration::ZERO;
    let mut other = Worker::open(&settings).unwrap();
    other.commit(1..2, stamp(2, 2)).unwrap();
    assert!(other.checkpoint().unwrap());
    other.end().unwrap();
    // SHARED on the database file is free as well: `other` closed last.
    assert!(!beside(&fixture.settings.path, "-wal").exists());
    let alive = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), None);
    assert_eq!(alive, Ok(()), "the child was to outlive all this");
    // Hangs up, so that the child ends.
    drop(parent);
}

/// The points of a commit at which its thread is stopped for a fork. Between
/// the two header copies is not one: whoever reads then has to wait for the
/// writer, as ever.
const WITHIN_A_COMMIT: [Point; 7] = [
    Point::LogHeaderWrite,
    Point::IndexGrow,
    Point::IndexHashStore,
    Point::FramesWrite,
    Point::CommitSync,
    Point::HeaderStoreSecond,
    Point::Unlock,
];

/// The stops of one thread, which is let go by a message.
struct Stops {
    at: Point,
    stopped: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

thread_local! {
    /// What the hook does on this thread.
    static STOPS: Cell<Option<Stops>> = const { Cell::new(None) };
}

fn install_hook() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let hook = |point| {
            let Some(stops) = STOPS.take() else { return };
            if stops.at != point {
                STOPS.set(Some(stops));
                return;
            }
            stops.stopped.send(()).unwrap();
            stops.go.recv_timeout(WATCHDOG).unwrap();
        };
        assert!(set_hook(Box::new(hook)).is_ok());
    });
}

#[test]
#[serial]
fn a_child_forked_in_the_middle_of_another_threads_commit_works() {
    install_hook();
    for point in WITHIN_A_COMMIT {
        let fixture = Fixture::new();
        let database = fixture.open();
        // The index is recovered by this, and not while the thread commits.
        assert_eq!(newest(&database).unwrap(), None);
        let (stopped, was_stopped) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                STOPS.set(Some(Stops {
                    at: point,
                    stopped,
                    go: may_go,
                }));
                let committed = commit(&database, stamp(1, 1));
                assert!(STOPS.take().is_none(), "{point:?} was not passed");
                committed.unwrap();
            });
            was_stopped.recv_timeout(WATCHDOG).unwrap();
            let child = fork(|| {
                expect_refused("begin_read", database.begin_read())?;
                let own = open(&fixture.settings)?;
                ensure!([None, Some(stamp(1, 1))].contains(&newest(&own)?));
                Ok(own.close()?)
            });
            let ended = child.unwrap().finish(WATCHDOG);
            go.send(()).unwrap();
            writer.join().unwrap();
            ended.unwrap_or_else(|error| panic!("forked at {point:?}: {error:#}"));
        });
        assert_eq!(newest(&database).unwrap(), Some(stamp(1, 1)), "{point:?}");
        database.close().unwrap();
    }
}

/// Forks at moments that nobody chose: a lock of the allocator, of the
/// library, or of neither may be held by another thread.
#[test]
#[serial]
fn children_forked_while_a_thread_commits_without_end_all_work() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let own_handle = || {
        let own = open(&fixture.settings)?;
        newest(&own)?;
        Ok(own.close()?)
    };
    let stop = AtomicBool::new(false);
    let (children, last) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut sequence = 0;
            while !stop.load(Ordering::Relaxed) {
                sequence += 1;
                commit(&database, stamp(1, sequence)).unwrap();
            }
            sequence
        });
        let children: Vec<Result<()>> = (0..30)
            .map(|_| fork(own_handle)?.finish(WATCHDOG))
            .collect();
        // Before anything can panic, which would wait for the writer.
        stop.store(true, Ordering::Relaxed);
        (children, writer.join().unwrap())
    });
    for child in children {
        child.unwrap();
    }
    assert_eq!(newest(&database).unwrap(), Some(stamp(1, last)));
    database.close().unwrap();
}

/// The numbers of descriptors that are open in this process.
fn open_numbers() -> Result<BTreeSet<i32>> {
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.insert(entry?.file_name().to_string_lossy().parse()?);
    }
    Ok(numbers)
}

/// More than a table of fixed size would hold.
#[test]
#[serial]
fn thousands_of_descriptors_with_locks_are_closed_in_a_child() {
    const FILES: usize = 5000;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit.1, limit.1).unwrap();
    assert!(limit.1 > 2 * FILES as u64, "a limit of {} files", limit.1);
    let directory = TempDir::new().unwrap();
    let open = |number: usize| {
        let path = directory.path().join(number.to_string());
        let file = OsFile::open_for_locks(&path, OpenMode::Create).unwrap();
        file.set_close_on_drop(true);
        file
    };
    let before = open_numbers().unwrap();
    let files: Vec<_> = (0..FILES).map(open).collect();
    let with_locks: BTreeSet<_> = files
        .iter()
        .map(|file| file.as_file().unwrap().as_raw_fd())
        .collect();
    assert_eq!(with_locks.len(), FILES);
    let child = fork(|| {
        let left = open_numbers()?.intersection(&with_locks).count();
        // One is that of the list itself.
        ensure!(left <= 1, "{left} descriptors are left");
        Ok(())
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    drop(files);
    assert!(open_numbers().unwrap().len() <= before.len() + 1);
}

/// What a file of ours answers to each call in a child.
fn expect_each_call_refused(file: &OsFile) -> Result<()> {
    expect_refused("as_file", file.as_file())?;
    expect_refused("read_at", file.read_at(&mut [0; 8], 0))?;
    let written = file.write_all_at(&mut [IoSlice::new(b"of the parent")], 0);
    expect_refused("write_all_at", written)?;
    expect_refused("sync", file.sync(FileSyncType::Full))?;
    expect_refused("start_writeback", file.start_writeback(0..4096))?;
    file.forget_failures();
    expect_refused("len", file.len())?;
    expect_refused("is_empty", file.is_empty())?;
    expect_refused("set_len", file.set_len(0))?;
    expect_refused("check_in_place", file.check_in_place())?;
    expect_refused("is_still_at_its_path", file.is_still_at_its_path())?;
    let like = beside(file.path(), "-like");
    for mode in [OpenMode::CreateLike(file), OpenMode::NewLike(file)] {
        expect_refused("a file like it", OsFile::open(&like, mode))?;
    }
    ensure!(!like.exists(), "a file like it was made");
    Ok(())
}

/// The fork handler has closed the descriptor, so that its number is that of the first file
/// which the child opens.
#[test]
#[serial]
fn an_inherited_file_never_touches_the_file_that_has_its_number() {
    const CONTENT: &[u8] = b"what the child wrote";
    let directory = TempDir::new().unwrap();
    let path = |name| directory.path().join(name);
    std::fs::write(path("db"), [7; 8192]).unwrap();
    let with_locks = || OsFile::open_for_locks(&path("db"), OpenMode::Existing).unwrap();
    let plain = OsFile::open(&path("log"), OpenMode::Create).unwrap();
    // Of one nothing is mapped yet, of the other the first page.
    let files = [
        with_locks().with_mapping(true),
        with_locks().with_mapping(true),
        with_locks(),
        plain.with_mapping(true),
    ];
    let page_of = |file: &OsFile| {
        let mapped = file.mapped().context("it is not mapped")?;
        // SAFETY: the slice is not looked at.
        let slice = unsafe { mapped.slice(0, 512) };
        Ok::<_, anyhow::Error>(slice.map(<[u8]>::len))
    };
    assert_eq!(page_of(&files[1]).unwrap().unwrap(), 512);
    let numbers: Vec<_> = files[..3]
        .iter()
        .map(|file| file.as_file().unwrap().as_raw_fd())
        .collect();
    let child = fork(|| {
        // Opened until each number is used again.
        let mut others = Vec::new();
        let is_used =
            |others: &[File], number: &i32| others.iter().any(|other| other.as_raw_fd() == *number);
        while !numbers.iter().all(|number| is_used(&others, number)) {
            ensure!(others.len() < 100, "{numbers:?} are not used again");
            let other = path("child").with_extension(others.len().to_string());
            let mut other = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(other)?;
            other.write_all(CONTENT)?;
            others.push(other);
        }
        for file in &files {
            expect_each_call_refused(file)?;
            if file.mapped().is_some() {
                expect_refused("a page", page_of(file)?)?;
            }
        }
        drop(files);
        for (number, mut other) in others.into_iter().enumerate() {
            let mut content = Vec::new();
            other.seek(SeekFrom::Start(0))?;
            other.read_to_end(&mut content)?;
            ensure!(content == CONTENT, "file {number} was changed");
        }
        Ok(())
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    assert_eq!(std::fs::read(path("db")).unwrap(), [7; 8192]);
}
