//! Sizes, durations and times, for people.

use std::time::{Duration, SystemTime};

/// A size in bytes: `4.0 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).display().iec().to_string()
}

/// A count, with its thousands apart: `1,234,567`.
pub(crate) fn count(count: impl Into<u64>) -> String {
    indicatif::HumanCount(count.into()).to_string()
}

/// A count of things, whose `noun` takes an `s`: `1 frame`, `2 frames`.
pub(crate) fn counted(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{} {noun}s", count(number)),
    }
}

/// A duration in the two largest of its units: `2days 3h`, `1s 204ms`, `18us`.
pub(crate) fn duration(duration: Duration) -> String {
    let exact = humantime::format_duration(duration).to_string();
    let units: Vec<&str> = exact.split(' ').take(2).collect();
    units.join(" ")
}

/// A time, to the second, in UTC.
pub(crate) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_units_of_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(4096), "4.0 KiB");
        assert_eq!(count(1_234_567_u32), "1,234,567");
        assert_eq!(counted(1_u32, "frame"), "1 frame");
        assert_eq!(counted(1_000_u32, "frame"), "1,000 frames");
        assert_eq!(duration(Duration::from_micros(1_204_300)), "1s 204ms");
        assert_eq!(duration(Duration::from_secs(183_845)), "2days 3h");
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
