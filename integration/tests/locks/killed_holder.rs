//! A process that is killed while it merely holds a lock: what the lock kept
//! from others while it lived is theirs as soon as it is dead.

use std::time::Duration;

use integration::worker::{Command, RefusalKind, Settings, Stamp, Worker};
use tempfile::TempDir;

struct Fixture {
    settings: Settings,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = Settings::new(&directory.path().join("pages"));
        settings.busy_timeout = Duration::ZERO;
        Fixture {
            settings,
            _directory: directory,
        }
    }

    fn worker(&self) -> Worker {
        Worker::open(&self.settings).unwrap()
    }
}

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

#[test]
fn write_is_free_once_its_holder_is_killed() {
    let fixture = Fixture::new();
    let (mut holder, mut other) = (fixture.worker(), fixture.worker());
    holder.run(Command::BeginWrite).unwrap();
    assert_eq!(
        other.refused(Command::BeginWrite).unwrap(),
        RefusalKind::Busy
    );
    holder.kill().unwrap();
    other.commit(1..2, stamp(1)).unwrap();
}

#[test]
#[cfg(feature = "test-points")]
fn checkpoint_is_free_once_its_holder_is_killed() {
    let fixture = Fixture::new();
    let (mut holder, mut other) = (fixture.worker(), fixture.worker());
    other.commit(1..2, stamp(1)).unwrap();
    holder.stop_at("checkpoint-write", 1).unwrap();
    holder
        .send(&Command::Checkpoint(
            integration::worker::Checkpoint::Passive,
        ))
        .unwrap();
    holder.wait_stopped(integration::worker::WATCHDOG).unwrap();
    assert_eq!(
        other
            .refused(Command::Checkpoint(
                integration::worker::Checkpoint::Passive
            ))
            .unwrap(),
        RefusalKind::Busy
    );
    holder.kill().unwrap();
    assert!(other.checkpoint().unwrap());
}

#[test]
fn a_read_mark_holds_no_checkpoint_back_once_its_reader_is_killed() {
    let fixture = Fixture::new();
    let (mut holder, mut other) = (fixture.worker(), fixture.worker());
    other.commit(1..2, stamp(1)).unwrap();
    assert!(!holder.begin_read("held").unwrap().bypasses_log);
    other.commit(1..2, stamp(2)).unwrap();
    assert!(!other.checkpoint().unwrap());
    assert_eq!(holder.stamps("held", 1..2).unwrap(), [Some(stamp(1))]);
    holder.kill().unwrap();
    assert!(other.checkpoint().unwrap());
}

#[test]
fn slot_zero_holds_no_checkpoint_back_once_its_reader_is_killed() {
    let fixture = Fixture::new();
    let (mut holder, mut other) = (fixture.worker(), fixture.worker());
    other.commit(1..2, stamp(1)).unwrap();
    assert!(other.checkpoint().unwrap());
    assert!(holder.begin_read("held").unwrap().bypasses_log);
    other.commit(1..2, stamp(2)).unwrap();
    assert!(!other.checkpoint().unwrap());
    assert_eq!(holder.stamps("held", 1..2).unwrap(), [Some(stamp(1))]);
    holder.kill().unwrap();
    assert!(other.checkpoint().unwrap());
}

#[test]
fn a_read_mark_keeps_the_log_from_restarting_until_its_reader_is_killed() {
    let fixture = Fixture::new();
    let (mut holder, mut other) = (fixture.worker(), fixture.worker());
    other.commit(1..2, stamp(1)).unwrap();
    let held = holder.begin_read("held").unwrap();
    assert!(other.checkpoint().unwrap());
    other.commit(1..2, stamp(2)).unwrap();
    let salts = |worker: &mut Worker| {
        let snapshot = worker.begin_read("look").unwrap();
        worker.end_read("look").unwrap();
        snapshot.salts
    };
    assert_eq!(salts(&mut other), held.salts);
    assert_eq!(holder.stamps("held", 1..2).unwrap(), [Some(stamp(1))]);
    holder.kill().unwrap();
    assert!(other.checkpoint().unwrap());
    other.commit(1..2, stamp(3)).unwrap();
    assert_ne!(salts(&mut other), held.salts);
}
