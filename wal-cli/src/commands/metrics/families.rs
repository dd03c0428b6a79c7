//! The metrics: their names, what they are, and their values.
//!
//! docs/metrics.md has the same table; a test compares it with the output.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::figures::LogFigures;
use crate::sampler::{Sample, Sampler};

type Labels = Vec<(&'static str, String)>;
/// The values of a metric of one database, each with its labels.
type Values = Vec<(Labels, f64)>;

/// The type of a metric.
#[derive(Clone, Copy)]
enum Kind {
    /// A count that goes up and down.
    Gauge,
    /// A figure with decimals that goes up and down.
    Decimal,
    /// A count that goes up.
    Counter,
}

struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// What of the sample it is; `None` if the database is not there.
    values: fn(Option<&Sample>) -> Values,
}

/// One value without further labels.
fn one(value: impl Into<f64>) -> Values {
    vec![(Vec::new(), value.into())]
}

/// A value of the log.
fn of_log(sample: Option<&Sample>, value: impl Fn(&LogFigures) -> f64) -> Values {
    let log = sample.and_then(|sample| sample.figures.log.as_ref());
    log.map(value).map(one).unwrap_or_default()
}

/// A value of the sample.
fn of(sample: Option<&Sample>, value: impl Fn(&Sample) -> f64) -> Values {
    sample.map(value).map(one).unwrap_or_default()
}

macro_rules! metrics {
    ($(($name:literal, $kind:ident, $help:literal, $values:expr),)*) => {
        &[$(Metric { name: $name, help: $help, kind: Kind::$kind, values: $values },)*]
    };
}

/// A name of a counter gets `_total` in the output.
const METRICS: &[Metric] = metrics![
    (
        "up",
        Gauge,
        "1 if the database was read, 0 if it is not there or cannot be read",
        |sample| one(u8::from(sample.is_some()))
    ),
    (
        "look_seconds",
        Decimal,
        "How long the look at the database took",
        |sample| of(sample, |sample| sample.look_s)
    ),
    (
        "census_age_seconds",
        Decimal,
        "How old the list of lock holders is",
        |sample| of(sample, |sample| sample.census_age_s)
    ),
    (
        "database_bytes",
        Gauge,
        "Length of the database file",
        |sample| of(sample, |sample| sample.figures.database.bytes as f64)
    ),
    (
        "database_pages",
        Gauge,
        "Pages of the newest committed state",
        |sample| {
            let pages = sample.and_then(|sample| sample.figures.database.pages);
            pages.map(|pages| one(pages as f64)).unwrap_or_default()
        }
    ),
    ("database_page_bytes", Gauge, "Size of a page", |sample| {
        let size = sample.and_then(|sample| sample.figures.database.page_size);
        size.map(one).unwrap_or_default()
    }),
    ("log_bytes", Gauge, "Length of the log file", |sample| {
        of_log(sample, |log| log.bytes as f64)
    }),
    (
        "log_frames",
        Gauge,
        "Committed frames of the present generation of the log",
        |sample| of_log(sample, |log| log.frames.into())
    ),
    (
        "log_backfilled_frames",
        Gauge,
        "Frames of the log that are in the database file",
        |sample| of_log(sample, |log| log.backfilled.into())
    ),
    (
        "log_capacity_frames",
        Gauge,
        "Frames that the log file has room for",
        |sample| of_log(sample, |log| log.frames_on_disk as f64)
    ),
    (
        "commits",
        Counter,
        "Commits since the last recovery before the first look",
        |sample| of(sample, |sample| sample.totals.commits as f64)
    ),
    (
        "committed_frames",
        Counter,
        "Frames of commits since the log restarted before the first look",
        |sample| of(sample, |sample| sample.totals.frames as f64)
    ),
    (
        "log_restarts",
        Counter,
        "Restarts of the log since it was made, before the first look too",
        |sample| of(sample, |sample| sample.totals.restarts as f64)
    ),
    (
        "recoveries",
        Counter,
        "Recoveries of the index since the first look",
        |sample| of(sample, |sample| sample.totals.recoveries as f64)
    ),
    (
        "read_mark_frame",
        Gauge,
        "Frame up to which readers of the slot read the log",
        |sample| by_slot(sample, |slot| slot.frame.map(f64::from))
    ),
    (
        "read_slot_held",
        Gauge,
        "1 if the read slot is held",
        |sample| by_slot(sample, |slot| Some(u8::from(slot.held.is_some()).into()))
    ),
    (
        "read_slot_holders",
        Gauge,
        "Processes known to hold the read slot",
        |sample| by_slot(sample, |slot| Some(slot.holders.len() as f64))
    ),
    (
        "oldest_reader_lag_frames",
        Gauge,
        "Frames between the oldest reader of the log and its end",
        |sample| of(sample, |sample| sample.oldest_reader_lag().into())
    ),
    (
        "checkpoint_blocked",
        Gauge,
        "1 if a checkpoint of the mode would not reach its goal now, and by which lock",
        checkpoint_blocked
    ),
    (
        "lock_holders",
        Gauge,
        "Processes that hold a lock on the files",
        |sample| of(sample, |sample| sample.figures.processes.len() as f64)
    ),
    (
        "stopped_lock_holders",
        Gauge,
        "Processes that hold a lock and are stopped",
        |sample| of(sample, |sample| {
            let processes = sample.figures.processes.iter();
            processes.filter(|process| process.is_stopped).count() as f64
        })
    ),
    (
        "writer_queue_length",
        Gauge,
        "Writers of the library wal that wait for WRITE in its queue",
        |sample| of(sample, |sample| sample.queue.len() as f64)
    ),
    (
        "writer_queue_longest_wait_seconds",
        Decimal,
        "How long the writer that waits longest has waited",
        |sample| of(sample, |sample| {
            sample
                .queue
                .iter()
                .map(|writer| writer.waited_s)
                .fold(0.0, f64::max)
        })
    ),
    (
        "unseen",
        Gauge,
        "Kinds of holders that could not be seen",
        |sample| of(sample, |sample| sample.figures.unseen.len() as f64)
    ),
];

fn by_slot(
    sample: Option<&Sample>,
    value: impl Fn(&crate::figures::SlotFigures) -> Option<f64>,
) -> Values {
    let slots = sample.into_iter().flat_map(|sample| &sample.figures.slots);
    let all = slots.filter_map(|slot| Some((vec![("slot", slot.slot.to_string())], value(slot)?)));
    all.collect()
}

fn checkpoint_blocked(sample: Option<&Sample>) -> Values {
    let checkpoints = sample
        .into_iter()
        .flat_map(|sample| &sample.figures.checkpoints);
    let all = checkpoints.map(|checkpoint| {
        let blocker = checkpoint.blocked_by.as_ref();
        let lock = blocker.map_or(String::new(), |blocker| blocker.lock.clone());
        let labels = vec![("mode", checkpoint.mode.to_owned()), ("lock", lock)];
        (labels, f64::from(u8::from(blocker.is_some())))
    });
    all.collect()
}

/// Looks at all databases, and returns the metrics as OpenMetrics text.
pub(super) fn text(samplers: &mut [Sampler]) -> anyhow::Result<String> {
    let samples: Vec<(String, Option<Sample>)> = samplers
        .iter_mut()
        .map(|sampler| (sampler.path().display().to_string(), sampler.look().ok()))
        .collect();
    let mut registry = Registry::with_prefix("walctl");
    for metric in METRICS {
        let values = samples.iter().flat_map(|(database, sample)| {
            let values = (metric.values)(sample.as_ref()).into_iter();
            values.map(move |(labels, value)| {
                let database = ("database", database.clone());
                (std::iter::once(database).chain(labels).collect(), value)
            })
        });
        register(&mut registry, metric, values);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Counts of the files.
fn register(registry: &mut Registry, metric: &Metric, values: impl Iterator<Item = (Labels, f64)>) {
    match metric.kind {
        Kind::Gauge => {
            let family = Family::<Labels, Gauge<i64, AtomicI64>>::default();
            for (labels, value) in values {
                family.get_or_create(&labels).set(value as i64);
            }
            registry.register(metric.name, metric.help, family);
        }
        Kind::Decimal => {
            let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
            for (labels, value) in values {
                family.get_or_create(&labels).set(value);
            }
            registry.register(metric.name, metric.help, family);
        }
        Kind::Counter => {
            let family = Family::<Labels, Counter>::default();
            for (labels, value) in values {
                family.get_or_create(&labels).inc_by(value as u64);
            }
            registry.register(metric.name, metric.help, family);
        }
    }
}
