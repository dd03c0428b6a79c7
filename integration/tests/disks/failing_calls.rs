//! Every system call on the files of a database fails once, with each error
//! that the system may give for it: what is answered is an error and not a
//! panic, no lock stays, nothing that was acknowledged is lost, and others go
//! on. Calls that are interrupted or stop half-way are not even noticed.

#![cfg(target_os = "linux")] // The library that is preloaded knows its calls.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;

use integration::worker::{
    Checkpoint, Command, Refusal, RefusalKind, Settings, Stamp, Synchronous, Worker,
};
use tempfile::TempDir;

const PAGES: Range<u32> = 1..10;

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

/// What the process with the failing call has done.
#[derive(Debug)]
struct Outcome {
    acknowledged: u64,
    /// A commit whose outcome is unknown.
    unknown: Option<u64>,
    refusals: Vec<Refusal>,
}

impl Outcome {
    fn may_be(&self, sequence: u64) -> bool {
        sequence == self.acknowledged || self.unknown == Some(sequence)
    }
}

/// Where a call fails.
#[derive(Clone, Copy)]
struct Scene {
    beside_a_peer: bool,
    group_commit: bool,
    page_size: u32,
}

/// Of these a commit fills a part of the log, with which the disk begins early if
/// the commit is not synced itself.
const LARGE: u32 = 65536;

const SCENES: [Scene; 4] = {
    let alone = Scene {
        beside_a_peer: false,
        group_commit: false,
        page_size: 512,
    };
    let beside_a_peer = Scene {
        beside_a_peer: true,
        ..alone
    };
    let sharing_syncs = Scene {
        group_commit: true,
        ..beside_a_peer
    };
    let large_pages = Scene {
        page_size: LARGE,
        ..beside_a_peer
    };
    [alone, beside_a_peer, sharing_syncs, large_pages]
};

struct Fault<'f> {
    name: &'f str,
    at: usize,
    scene: Scene,
    directory: TempDir,
}

impl Fault<'_> {
    fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.directory.path().join("pages"));
        settings.page_size = self.scene.page_size;
        settings.group_commit = self.scene.group_commit;
        if self.scene.page_size == LARGE {
            settings.synchronous = Synchronous::Normal;
        }
        settings
    }

    fn worker(&self) -> Worker {
        let at = self.at.to_string();
        let variables: [(&str, &OsStr); 5] = [
            ("LD_PRELOAD", OsStr::new(env!("FAILING_CALLS"))),
            ("WAL_FAULT", OsStr::new(self.name)),
            ("WAL_FAULT_AT", OsStr::new(&at)),
            (
                "WAL_FAULT_PREFIX",
                self.directory.path().join("pages").as_os_str(),
            ),
            ("WAL_FAULT_COUNT", self.count().as_os_str()),
        ]
        .map(|(name, value)| {
            (
                name,
                Box::leak(value.to_owned().into_boxed_os_str()) as &OsStr,
            )
        });
        Worker::spawn_with(&variables).unwrap()
    }

    fn count(&self) -> std::path::PathBuf {
        self.directory.path().join("count")
    }

    /// Whether the call was there.
    fn was_hit(&self) -> bool {
        let count = std::fs::read_to_string(self.count()).unwrap();
        count.trim_end().ends_with(" 1")
    }

    /// One of everything, each of which may be refused.
    fn work(&self, worker: &mut Worker) -> Outcome {
        let mut outcome = Outcome {
            acknowledged: 1,
            unknown: None,
            refusals: Vec::new(),
        };
        outcome.run(worker, Command::Open(self.settings()));
        let name = || "read".to_owned();
        outcome.run(worker, Command::BeginRead { name: name() });
        let pages = PAGES;
        outcome.run(
            worker,
            Command::Stamps {
                name: name(),
                pages,
            },
        );
        outcome.run(worker, Command::EndRead { name: name() });
        outcome.commit(worker, 2, None);
        outcome.run(worker, Command::Checkpoint(Checkpoint::Passive));
        // The database file is to grow.
        let stamp = stamp(3);
        outcome.commit(worker, 3, Some(Command::AddPage { stamp }));
        outcome.run(worker, Command::Checkpoint(Checkpoint::Truncate));
        outcome.commit(worker, 4, Some(Command::Spill));
        outcome
    }
}

impl Outcome {
    fn run(&mut self, worker: &mut Worker, command: Command) -> Option<RefusalKind> {
        let refusal = match worker.ask::<serde_json::Value>(command) {
            Ok(_) => return None,
            Err(error) => error.downcast::<Refusal>().unwrap(),
        };
        let kind = refusal.kind;
        self.refusals.push(refusal);
        Some(kind)
    }

    fn commit(&mut self, worker: &mut Worker, sequence: u64, then: Option<Command>) {
        let pages = PAGES;
        let mut commands = vec![
            Command::BeginWrite,
            Command::Write {
                pages,
                stamp: stamp(sequence),
            },
        ];
        commands.extend(then);
        for command in commands {
            if self.run(worker, command).is_some() {
                self.run(worker, Command::Rollback);
                return;
            }
        }
        match self.run(worker, Command::Commit) {
            None => {
                assert_eq!(self.unknown, None, "it writes on after a failed sync");
                self.acknowledged = sequence;
            }
            Some(RefusalKind::OutcomeUnknown | RefusalKind::DurabilityUnknown) => {
                self.unknown = Some(sequence);
            }
            Some(_) => {}
        }
    }
}

/// The sequence that all pages have.
fn seen(worker: &mut Worker) -> u64 {
    let stamps = worker.newest_stamps(PAGES).unwrap();
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
    stamps[0].unwrap().sequence
}

fn begin(path: &Path, page_size: u32) -> Worker {
    let mut settings = Settings::new(path);
    settings.page_size = page_size;
    let mut worker = Worker::open(&settings).unwrap();
    worker.run(Command::BeginWrite).unwrap();
    for _ in PAGES.skip(1) {
        let added = Command::AddPage { stamp: stamp(1) };
        worker.ask::<u32>(added).unwrap();
    }
    let pages = PAGES;
    let stamp = stamp(1);
    worker.run(Command::Write { pages, stamp }).unwrap();
    worker.run(Command::Commit).unwrap();
    worker
}

/// True if there was such a call, and it failed.
fn try_position(name: &str, at: usize, scene: Scene) -> bool {
    let beside_a_peer = scene.beside_a_peer;
    let fault = Fault {
        name,
        at,
        scene,
        directory: TempDir::new().unwrap(),
    };
    let path = fault.directory.path().join("pages");
    let mut first = begin(&path, scene.page_size);
    let mut peer = match beside_a_peer {
        true => Some(first),
        false => {
            first.run(Command::Close).unwrap();
            None
        }
    };
    let mut worker = fault.worker();
    let outcome = fault.work(&mut worker);
    if ["EINTR", "SHORT", "FREE"].contains(&name) {
        assert_eq!(outcome.refusals, [], "{name} at {at}");
    }
    // While the one with the error is still there.
    let mut sequence = outcome.acknowledged;
    if let Some(peer) = &mut peer {
        sequence = seen(peer);
        assert!(
            outcome.may_be(sequence),
            "{name} at {at}: found {sequence}, {outcome:?}"
        );
        peer.commit(PAGES, stamp(9))
            .unwrap_or_else(|e| panic!("{name} at {at}: {e:?}, {outcome:?}"));
        assert!(
            peer.checkpoint().unwrap(),
            "{name} at {at}: a reader is left, {outcome:?}"
        );
        assert_eq!(seen(peer), 9);
        sequence = 9;
    }
    // It may be refused to close, too.
    let _ = worker.ask::<serde_json::Value>(Command::Close);
    worker.end().unwrap();
    let mut after = match peer {
        Some(peer) => peer,
        None => Worker::open(&fault.settings()).unwrap(),
    };
    let found = seen(&mut after);
    let right = match beside_a_peer {
        true => found == sequence,
        false => outcome.may_be(found),
    };
    assert!(
        right,
        "{name} at {at}: found {found} in the end, {outcome:?}"
    );
    after.commit(PAGES, stamp(10)).unwrap();
    after.end().unwrap();
    let was_hit = fault.was_hit();
    if name == "FULL" && was_hit {
        let refusals = &outcome.refusals;
        let one = refusals.len() == 1 && refusals[0].message.contains("free some space");
        assert!(one, "FULL at {at}: {refusals:?}");
        assert_eq!(outcome.acknowledged, 4, "each commit had room");
    }
    was_hit
}

fn sweep(name: &str) {
    let mut tried = 0;
    for scene in SCENES {
        let hit = |&at: &usize| try_position(name, at, scene);
        let positions = (1..).take_while(hit);
        let positions = positions.count();
        assert!(positions > 0, "there is no call that can fail with {name}");
        tried += positions;
    }
    println!("{name}: {tried} positions");
}

#[test]
fn a_call_that_fails_for_the_disk_costs_no_commit_and_leaves_no_lock() {
    sweep("EIO");
    sweep("ENOSPC");
    sweep("TORN");
}

/// The disk is full, as the system says before anything is written to it.
#[test]
fn operation_without_free_space_is_refused_for_that_alone() {
    sweep("FULL");
}

#[test]
fn free_space_that_is_not_told_is_not_noticed() {
    sweep("FREE");
}

#[test]
fn a_call_that_fails_for_want_of_something_costs_no_commit_and_leaves_no_lock() {
    for name in ["EMFILE", "EACCES", "ENOLCK", "ENOMEM"] {
        sweep(name);
    }
}

#[test]
fn a_call_that_is_interrupted_or_stops_half_way_is_not_noticed() {
    sweep("EINTR");
    sweep("SHORT");
}
