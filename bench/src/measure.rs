//! Rounds, and how they are timed.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::Sample;

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// For the report.
    Full,
    /// In two minutes.
    Quick,
    /// To see that it runs.
    Tiny,
}

impl Scale {
    /// The scale that the options of a command line name.
    pub(crate) fn of(quick: bool, tiny: bool) -> Self {
        match (quick, tiny) {
            (true, _) => Scale::Quick,
            (_, true) => Scale::Tiny,
            _ => Scale::Full,
        }
    }

    /// One of three.
    pub(crate) fn choose<T>(self, full: T, quick: T, tiny: T) -> T {
        match self {
            Scale::Full => full,
            Scale::Quick => quick,
            Scale::Tiny => tiny,
        }
    }

    /// A number of operations.
    pub(crate) fn count(self, full: u32) -> u32 {
        self.choose(full, full / 4, (full / 200).max(2))
    }

    /// How long processes run.
    pub(crate) fn duration(self) -> Duration {
        self.choose(
            Duration::from_secs(2),
            Duration::from_millis(700),
            Duration::from_millis(50),
        )
    }
}

/// A row on a system, ready to run.
pub(crate) trait Bench {
    /// One round.
    fn round(&mut self) -> Result<Sample>;
}

impl<F: FnMut() -> Result<Sample>> Bench for F {
    fn round(&mut self) -> Result<Sample> {
        self()
    }
}

/// The mean of `count` runs of `act`, in nanoseconds.
pub(crate) fn mean(count: u32, mut act: impl FnMut(u32) -> Result<()>) -> Result<Sample> {
    let started = Instant::now();
    for turn in 0..count {
        act(turn)?;
    }
    let value = nanos(started.elapsed()) / f64::from(count);
    Ok(Sample {
        value,
        ..Sample::default()
    })
}

/// The mean of `count` runs of `act`, in microseconds, with the latency that
/// all but one of `tail` keep.
pub(crate) fn latencies(
    count: u32,
    tail: usize,
    mut act: impl FnMut(u32) -> Result<()>,
) -> Result<Sample> {
    let mut taken = Vec::with_capacity(count as usize);
    let started = Instant::now();
    for turn in 0..count {
        let before = Instant::now();
        act(turn)?;
        taken.push(before.elapsed());
    }
    let value = nanos(started.elapsed()) / 1000.0 / f64::from(count);
    Ok(Sample {
        value,
        ..of_latencies(taken, tail)
    })
}

/// The tail and the worst of `taken`.
pub(crate) fn of_latencies(mut taken: Vec<Duration>, tail: usize) -> Sample {
    taken.sort_unstable();
    let at = taken.len().saturating_sub(1 + taken.len() / tail);
    let micros = |latency: &Duration| nanos(*latency) / 1000.0;
    Sample {
        tail: taken.get(at).map(micros),
        worst: taken.last().map(micros),
        ..Sample::default()
    }
}

/// A duration as a number.
pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// How many megabytes a second `bytes` in `time` are.
pub(crate) fn megabytes_a_second(bytes: u64, time: Duration) -> Sample {
    #[allow(clippy::cast_precision_loss)] // A size, for people to read.
    let value = bytes as f64 / 1e6 / time.as_secs_f64();
    Sample {
        value,
        ..Sample::default()
    }
}
