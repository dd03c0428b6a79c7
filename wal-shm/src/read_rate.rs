//! How often this process reads, as far as its lock calls tell: what decides whether the
//! release of its read locks is delayed.
//!
//! A pair of lock calls costs some microseconds. Kept for the next reader, a lock saves
//! them, and blocks peers for as long as that reader takes to come. So release is delayed
//! only where reads follow each other within a few lock calls' time.

use std::time::{Duration, Instant};

/// So many acquisitions must follow each other closely before release is delayed. A
/// larger number keeps shorter bursts of reads from delaying; it costs a process that
/// reads all the time so many lock calls after each of its pauses.
const STREAK: u32 = 16;
/// Two reads follow each other closely within this part of the delay.
const CLOSE: u32 = 20;
/// The sweeper looks so many times within the delay.
const LOOKS: u32 = 2;
/// A longer time may be too long for the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long a process may keep a lock that it does not use, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay(Duration);

impl Delay {
    /// At most `delay` after the last reader; a day if that is longer. `None` for zero.
    pub(crate) fn new(delay: Duration) -> Option<Self> {
        (!delay.is_zero()).then_some(Delay(delay.min(LONGEST)))
    }

    /// For how long a lock is kept at most.
    pub(crate) fn longest(self) -> Duration {
        self.0
    }

    /// Within what time two reads follow each other closely.
    fn close(self) -> Duration {
        self.0 / CLOSE
    }

    /// How long the sweeper waits between two looks. A lock that was last used just after
    /// a look is found unused by the second look from there, within the delay.
    pub(crate) fn between_looks(self) -> Duration {
        self.0 / LOOKS
    }

    /// How many reads that needed no lock call there are between two looks, at least, where
    /// reads follow each other closely.
    pub(crate) const READS_BETWEEN_LOOKS: u32 = CLOSE / LOOKS;
}

/// The shared acquisitions of read slots from the system.
#[derive(Debug, Default)]
pub(crate) struct ReadRate {
    last: Option<Instant>,
    /// How many of the latest followed each other closely.
    streak: u32,
    /// How many there were; it wraps.
    count: u32,
}

impl ReadRate {
    /// A slot was acquired at `now`; with a `new_mark`, for which no lock that was kept
    /// would have served.
    pub(crate) fn note(&mut self, delay: Delay, now: Instant, new_mark: bool) {
        self.count = self.count.wrapping_add(1);
        if !self.is_recent(delay, now) {
            self.streak = 0;
        } else if !new_mark {
            self.streak = self.streak.saturating_add(1);
        }
        self.last = Some(now);
    }

    /// True if reads have followed each other closely often enough, up to now.
    pub(crate) fn is_high(&self, delay: Delay, now: impl FnOnce() -> Instant) -> bool {
        self.streak >= STREAK && self.is_recent(delay, now())
    }

    fn is_recent(&self, delay: Delay, now: Instant) -> bool {
        let recent = |last| now.saturating_duration_since(last) < delay.close();
        self.last.is_some_and(recent)
    }

    /// Requires a new streak.
    pub(crate) fn reset(&mut self) {
        self.streak = 0;
    }

    /// How many acquisitions there were; it wraps.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const DELAY: Delay = Delay(Duration::from_millis(1));

    /// Acquisitions `gap` apart; whether the rate is high behind each.
    fn after(times: u32, gap: Duration, new_mark: bool) -> Vec<bool> {
        let mut rate = ReadRate::default();
        let mut now = Instant::now();
        let mut next = || {
            rate.note(DELAY, now, new_mark);
            let high = rate.is_high(DELAY, || now);
            now += gap;
            high
        };
        (0..times).map(|_| next()).collect()
    }

    #[test]
    fn rate_is_high_after_a_streak_of_close_reads() {
        let high = after(20, Duration::from_micros(49), false);
        assert_eq!(high.iter().position(|&high| high), Some(16));
        assert!(high[16..].iter().all(|&high| high));
    }

    #[test]
    fn rate_of_distant_reads_or_new_marks_is_not_high() {
        assert_eq!(after(100, Duration::from_micros(50), false), [false; 100]);
        assert_eq!(after(100, Duration::ZERO, true), [false; 100]);
    }

    #[test]
    fn rate_is_not_high_after_a_pause_a_long_read_or_a_reset() {
        let mut rate = ReadRate::default();
        let start = Instant::now();
        let later = start + Duration::from_micros(50);
        (0..=STREAK).for_each(|_| rate.note(DELAY, start, false));
        assert!(rate.is_high(DELAY, || start));
        assert!(!rate.is_high(DELAY, || later), "the read took as long");
        rate.note(DELAY, later, false);
        assert!(!rate.is_high(DELAY, || later), "there was a pause");
        (0..STREAK).for_each(|_| rate.note(DELAY, later, false));
        assert!(rate.is_high(DELAY, || later));
        rate.reset();
        assert!(!rate.is_high(DELAY, || later));
        assert_eq!(rate.count(), 2 * STREAK + 2);
    }

    #[test]
    fn delay_of_any_length_can_be_told() {
        assert!(Delay::new(Duration::ZERO).is_none());
        let longest = Delay::new(Duration::MAX).unwrap();
        assert!(
            Instant::now()
                .checked_add(longest.between_looks())
                .is_some()
        );
    }
}
