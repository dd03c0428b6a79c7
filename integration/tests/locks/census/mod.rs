//! A look from outside names the holder of each lock, and changes nothing.
//!
//! | file | what it shows |
//! |---|---|
//! | `open_files` | files that were replaced, and locks that were lost |
//! | `unseen` | what could not be seen is reported |
//! | `untouched` | a look leaves everything as it is |

mod open_files;
mod unseen;
mod untouched;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use integration::container::Container;
use integration::rights::as_nobody;
use integration::stamped;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Command, Settings, Stamp, WATCHDOG, Worker};
use tempfile::TempDir;
use wal::{CheckpointMode, LockKind};
use wal_core::inspect::{IndexInfo, forecast, read_index};
use wal_core::storage::{ByteLocks, File as _, OpenMode, OsFile, beside};
use wal_core::{Lock, LockMode, ReadSlot};
use wal_shm::inspect::{
    Census, DatabaseFile, FoundBy, HeldLock, LockByte, OpenFiles, SideView, Unseen,
};

struct Scene {
    path: PathBuf,
    pages: std::ops::Range<u32>,
    committed: u64,
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let pages = stamped::create(&path, 1024, 4, "CREATE TABLE t(n)").unwrap();
        Scene {
            path,
            pages,
            committed: 0,
            directory,
        }
    }

    fn worker(&self) -> Worker {
        Worker::open(&Settings::new(&self.path)).unwrap()
    }

    fn stock(&self, kind: StockKind) -> StockSqlite {
        StockSqlite::spawn(kind, &self.path, None).unwrap()
    }

    fn commit(&mut self, worker: &mut Worker) {
        self.committed += 1;
        let stamp = Stamp {
            writer: 1,
            sequence: self.committed,
        };
        worker.commit(self.pages.clone(), stamp).unwrap();
    }

    fn census(&self) -> Census {
        Census::take(&self.path, WATCHDOG).unwrap()
    }

    fn index(&self) -> IndexInfo {
        let shm = OsFile::open_for_locks(&beside(&self.path, "-shm"), OpenMode::Observed).unwrap();
        read_index(&shm).unwrap().unwrap()
    }
}

const READ_0: LockByte = LockByte::Protocol(Lock::Read(ReadSlot::DATABASE));
const WRITE: LockByte = LockByte::Protocol(Lock::Write);

/// What `pid` holds, as `-shm READ(1) Shared`.
fn locks_of(census: &Census, pid: u32) -> Vec<String> {
    let held = census.held().filter(|lock| lock.pid == Some(pid));
    let shown = held.map(|lock| format!("{} {} {:?}", lock.file.suffix(), lock.byte, lock.mode));
    shown.collect()
}

fn holder_of(census: &Census, byte: LockByte) -> &HeldLock {
    let mut held = census.held().filter(|lock| lock.byte == byte);
    let holder = held.next().unwrap();
    assert_eq!(held.next(), None, "{byte} has one holder");
    holder
}

#[test]
fn holders_of_both_kinds_are_named_with_each_lock() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let mut ours = scene.worker();
        let mut stock = scene.stock(kind);
        stock.run("BEGIN; SELECT * FROM t").unwrap().unwrap();
        ours.run(Command::BeginWrite).unwrap();
        let census = scene.census();
        assert_eq!(
            locks_of(&census, stock.pid()),
            [" SHARED Shared", "-shm READ(0) Shared", "-shm DMS Shared"],
            "{kind}"
        );
        assert_eq!(
            locks_of(&census, ours.pid()),
            [
                " SHARED Shared",
                "-shm WRITE Exclusive",
                "-shm DMS Shared",
                "-coord ATTACHED Shared"
            ],
            "{kind}"
        );
        let writer = holder_of(&census, WRITE);
        assert_eq!(writer.kind, LockKind::OpenFileDescription);
        assert_eq!(writer.found_by, FoundBy::Descriptor);
        let reader = holder_of(&census, READ_0);
        assert_eq!(
            (reader.kind, reader.found_by),
            (LockKind::Classic, FoundBy::LockList)
        );
        let command = |pid| census.processes[&pid].command.clone().unwrap();
        assert!(command(ours.pid()).contains("wal-worker"));
        let of_stock = command(stock.pid());
        assert!(
            of_stock.contains("stock-worker") || of_stock.contains("sqlite3"),
            "{of_stock}"
        );
        assert_eq!(census.processes.len(), 2);
        let is_gap = |unseen: &&Unseen| **unseen != Unseen::OtherContainers;
        assert_eq!(census.unseen.iter().find(is_gap), None);
    }
}

#[test]
fn reader_pinned_at_a_frame_is_shown_with_it() {
    for kind in StockKind::available() {
        let mut scene = Scene::new();
        let mut writer = scene.worker();
        scene.commit(&mut writer);
        let mut old = scene.stock(kind);
        old.run("BEGIN; SELECT * FROM t").unwrap().unwrap();
        let pinned = scene.index().max_frame();
        scene.commit(&mut writer);
        let mut new = scene.worker();
        let snapshot = new.begin_read("newest").unwrap();
        let (census, index) = (scene.census(), scene.index());
        let slots = census.slots(&index);
        let slot_of = |pid| slots.iter().find(|slot| slot.holders == [pid]).unwrap();
        assert_eq!(slot_of(old.pid()).frame, Some(pinned), "{kind}");
        assert_eq!(slot_of(new.pid()).frame, Some(snapshot.max_frame), "{kind}");
        assert_eq!(Some(slot_of(new.pid()).slot.index()), snapshot.slot);
        let held = slots.iter().filter(|slot| slot.mode.is_some());
        assert_eq!(held.count(), 2, "{kind}: {slots:?}");

        let expected = forecast(&index, &census.held_locks(), CheckpointMode::Passive).unwrap();
        let blocker = expected.blocked_by.unwrap();
        assert_eq!(blocker.lock, Lock::Read(slot_of(old.pid()).slot));
        assert_eq!(blocker.frame, Some(pinned));
        assert!(!writer.checkpoint().unwrap());
        assert_eq!(scene.index().backfilled(), expected.backfilled, "{kind}");
        assert_eq!(expected.backfilled, pinned, "{kind}");
    }
}

#[test]
fn forecast_of_a_free_log_is_what_the_checkpoint_leaves() {
    let mut scene = Scene::new();
    let mut writer = scene.worker();
    scene.commit(&mut writer);
    let (census, index) = (scene.census(), scene.index());
    let expected = forecast(&index, &census.held_locks(), CheckpointMode::Passive).unwrap();
    assert_eq!(
        (expected.backfilled, expected.blocked_by),
        (index.max_frame(), None)
    );
    assert!(writer.checkpoint().unwrap());
    assert_eq!(scene.index().backfilled(), expected.backfilled);
}

#[test]
fn stopped_holder_is_shown_as_stopped() {
    let scene = Scene::new();
    let mut ours = scene.worker();
    ours.run(Command::BeginWrite).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(ours.pid()).unwrap());
    assert!(!scene.census().processes[&ours.pid()].is_stopped);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let deadline = std::time::Instant::now() + WATCHDOG;
    while !scene.census().processes[&ours.pid()].is_stopped {
        assert!(std::time::Instant::now() < deadline, "it did not stop");
    }
    assert_eq!(holder_of(&scene.census(), WRITE).pid, Some(ours.pid()));
}

/// The locks of a child that a holder has forked are those of both.
#[test]
fn child_that_inherited_a_lock_is_named_beside_its_parent() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.db");
    stamped::create(&path, 1024, 4, "CREATE TABLE t(n)").unwrap();
    // Only the child of a program that does not use this library inherits descriptors.
    let script = format!(
        "import fcntl, os, struct, sys\n\
         f = open({path:?}, 'r+b')\n\
         fcntl.fcntl(f, 37, struct.pack('hhqqi4x', 0, 0, 0x40000002, 510, 0))\n\
         child = os.fork()\n\
         child and print(child, flush=True)\n\
         sys.stdin.read()\n"
    );
    if !integration::needs::Need::Python.is_met("a census of inherited locks") {
        return;
    }
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", &script])
        .stdin(std::process::Stdio::piped());
    let mut parent = integration::spawn::spawn({
        command.stdout(std::process::Stdio::piped());
        command
    })
    .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(parent.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    let census = Census::take(&path, WATCHDOG).unwrap();
    let mut holders: Vec<Option<u32>> = census.held().map(|lock| lock.pid).collect();
    let mut expected = [Some(parent.id()), Some(child)];
    expected.sort_unstable();
    holders.sort_unstable();
    assert_eq!(holders, expected);
    drop(parent.stdin.take());
    parent.wait().unwrap();
}

#[test]
fn file_open_by_another_name_has_its_holder_named() {
    let scene = Scene::new();
    let mut settings = Settings::new(&scene.path);
    settings.side_file = false;
    let ours = Worker::open(&settings).unwrap();
    let moved = scene.directory.path().join("moved.db");
    fs::rename(&scene.path, &moved).unwrap();
    fs::hard_link(&moved, &scene.path).unwrap();
    fs::remove_file(&moved).unwrap();
    let census = scene.census();
    let shared = holder_of(&census, LockByte::Shared);
    assert_eq!(
        (shared.pid, shared.found_by),
        (Some(ours.pid()), FoundBy::Descriptor)
    );
}

#[test]
fn process_that_waits_in_the_system_is_shown_as_waiting() {
    if !integration::needs::Need::Python.is_met("a lock that is waited for in the system") {
        return;
    }
    let scene = Scene::new();
    let mut stock = scene.stock(StockKind::Bundled);
    stock.run("BEGIN IMMEDIATE").unwrap().unwrap();
    let script = format!(
        "import fcntl\nf = open({:?}, 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX, 1, 120)\n",
        beside(&scene.path, "-shm")
    );
    let mut command = std::process::Command::new("python3");
    command.args(["-c", &script]);
    let mut waiting = integration::spawn::spawn(command).unwrap();
    let deadline = std::time::Instant::now() + WATCHDOG;
    let census = loop {
        let census = scene.census();
        if census.locks.iter().any(|lock| lock.is_waited_for) {
            break census;
        }
        assert!(std::time::Instant::now() < deadline, "it does not wait");
    };
    assert_eq!(holder_of(&census, WRITE).pid, Some(stock.pid()));
    let mut waiters = census.locks.iter().filter(|lock| lock.is_waited_for);
    assert_eq!(waiters.next().unwrap().pid, Some(waiting.id()));
    stock.run("COMMIT").unwrap().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn writers_that_wait_in_the_queue_are_named() {
    let scene = Scene::new();
    let (mut first, mut second) = (scene.worker(), scene.worker());
    first.run(Command::BeginWrite).unwrap();
    second.send(&Command::BeginWrite).unwrap();
    let deadline = std::time::Instant::now() + WATCHDOG;
    let waiting = loop {
        let view = SideView::of(&scene.path).unwrap().unwrap();
        let queue = view.wait_state().writer_queue();
        if let [waiting] = queue.waiting_writers(wal_core::wait::now())[..] {
            break waiting;
        }
        assert!(std::time::Instant::now() < deadline, "it does not queue");
    };
    assert_eq!(waiting.process.pid(), Some(second.pid()));
    assert_eq!(waiting.ahead, 0);
    let view = SideView::of(&scene.path).unwrap().unwrap();
    let processes = view.processes();
    let of = |pid| processes.iter().find(|process| process.pid == pid).unwrap();
    assert_eq!(of(first.pid()).locks, [Lock::Write]);
    assert!(of(second.pid()).locks.is_empty());
    first.run(Command::Rollback).unwrap();
    second.finish::<()>(WATCHDOG).unwrap();
}

/// The system gives a long list in pieces, between which locks of other files come and go.
#[test]
fn holders_are_named_beside_a_long_list_that_changes() {
    const STEADY: u64 = 300;
    let scene = Scene::new();
    let mut ours = scene.worker();
    ours.begin_read("held").unwrap();
    let mut stock = scene.stock(StockKind::Bundled);
    stock.run("BEGIN IMMEDIATE").unwrap().unwrap();
    let elsewhere = tempfile::tempfile().unwrap();
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let lock = |byte| {
        locks
            .try_lock(&elsewhere, byte..byte + 1, LockMode::Exclusive)
            .unwrap()
    };
    // Not side by side: the system would merge them.
    assert!((0..STEADY).all(|n| lock(2 * n)));
    let done = AtomicBool::new(false);
    let wrong = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for n in STEADY..STEADY + 5 {
                    lock(2 * n);
                }
                locks
                    .unlock(&elsewhere, 2 * STEADY..2 * STEADY + 10)
                    .unwrap();
            }
        });
        let expected = |census: &Census| {
            let ours = locks_of(census, ours.pid()).len();
            (
                ours,
                locks_of(census, stock.pid()).len(),
                census.held().count(),
            )
        };
        let looks = (0..100).map(|_| expected(&scene.census()));
        let wrong: Vec<_> = looks.filter(|seen| *seen != (4, 4, 8)).collect();
        done.store(true, Ordering::Relaxed);
        wrong
    });
    assert_eq!(wrong, []);
}

#[test]
fn holder_in_a_container_is_named_by_its_number_outside() {
    let container = Container::Processes;
    if !container.need().is_met("a census of a container") {
        return;
    }
    let scene = Scene::new();
    let mut ours = Worker::spawn_in(container).unwrap();
    ours.run(Command::Open(Settings::new(&scene.path))).unwrap();
    ours.run(Command::BeginWrite).unwrap();
    let census = scene.census();
    let writer = holder_of(&census, WRITE);
    let pid = writer.pid.unwrap();
    assert_ne!(pid, ours.pid(), "that is the process which waits for it");
    let command = census.processes[&pid].command.clone().unwrap();
    assert!(command.contains("wal-worker"), "{command}");
    let view = SideView::of(&scene.path).unwrap().unwrap();
    assert!(view.processes().is_empty(), "its number means nothing here");
}
