//! What happens is counted, and told to who subscribed.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use wal::{CheckpointMode, DatabaseKind, Options, PageNo};

/// Keeps each event as a line: level, message, fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}").unwrap(),
            "database" => {}
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "wal"
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn what_happens_is_counted_and_told() {
    let lines = Lines::default();
    let _subscribed = tracing::subscriber::set_default(lines.clone());
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .auto_checkpoint(0)
        .busy_timeout(Duration::ZERO)
        .snapshot_age_limit(Duration::ZERO)
        .max_log_frames(3);
    let database = options.open(directory.path().join("pages")).unwrap();
    assert_eq!(database.counters(), wal::Counters::default());

    let mut write = database.begin_write().unwrap();
    write.set_page_count(3).unwrap();
    write.spill().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[0] = 1;
    write.commit().unwrap();
    let read = database.begin_read().unwrap();
    read.page(PageNo::ONE).map(drop).unwrap_err();
    database.begin_write().map(drop).unwrap_err();
    drop(read);
    let writing = database.begin_write().unwrap();
    let other = Options::new()
        .kind(DatabaseKind::RawPages)
        .open(database.path())
        .unwrap();
    other.try_begin_write().map(drop).unwrap_err();
    assert_eq!(other.counters().waits_in_vain, 1);
    drop(writing);
    let report = database.checkpoint(CheckpointMode::Truncate).unwrap();
    assert_eq!(report.log_frames, 0);

    let counted = database.counters();
    let expected = [
        ("reads begun", counted.reads_begun, 1),
        ("commits", counted.commits, 1),
        ("frames committed", counted.frames_committed, 3),
        ("frames spilled", counted.frames_spilled, 2),
        ("held back", counted.checkpoints_held_back, 1),
        // For the limit, and to be cut.
        ("log restarts", counted.log_restarts, 2),
        ("recoveries", counted.recoveries, 1),
        ("failed syncs", counted.failed_syncs, 0),
        ("too old", counted.snapshots_too_old, 1),
        ("log full", counted.log_full, 1),
    ];
    for (name, counted, expected) in expected {
        assert_eq!(counted, expected, "{name}");
    }
    assert!(counted.waits >= counted.waits_in_vain && counted.waits_in_vain > 0);
    assert!(counted.syncs > 2);

    let told = lines.take();
    for line in [
        "INFO index rebuilt from the log frames=0",
        "DEBUG spilled frames=2",
        "DEBUG committed frames=3 log_frames=3",
        "TRACE read begun max_frame=3",
        "WARN a read transaction is too old",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
    for begin in [
        "WARN the log is full frames=3 lock=Read",
        "DEBUG checkpointed mode=Truncate",
    ] {
        let found = told.iter().any(|told| told.starts_with(begin));
        assert!(found, "{begin}: {told:#?}");
    }
    database.close().unwrap();
}
