//! What the figures mean for a user of a database.

use std::time::Duration;

use wal_shm::inspect::FileSystemType;

use super::{BenchReport, CommitRate};
use crate::output::units;

/// A sync that is faster has probably not reached a medium that keeps data without power.
const IMPLAUSIBLE_SYNC: f64 = 30e-6;
/// A sync that is slower is felt at each durable commit.
const SLOW_SYNC: f64 = 20e-3;

/// A time in seconds, in the unit that suits it.
pub(super) fn short(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s if s >= 1e-6 => format!("{:.1} us", s * 1e6),
        s => format!("{:.0} ns", s * 1e9),
    }
}

/// A sentence for each figure, from what was measured alone.
pub(super) fn sentences(report: &BenchReport) -> Vec<String> {
    let sync = report.sync_append.median_s;
    let rate = |level: &str| {
        let found = report.commits.iter().find(|rate| rate.synchronous == level);
        round(found.map_or(0.0, |CommitRate { per_s, .. }| *per_s))
    };
    let writing = bytesize::ByteSize::b(whole(report.write_bytes_per_s))
        .display()
        .si();
    let gigabyte = Duration::from_secs_f64((1e9 / report.write_bytes_per_s.max(1.0)).min(1e9));
    vec![
        format!(
            "A sync takes {}: with synchronous=FULL, one writer commits at most {} times a second.",
            short(sync),
            round(1.0 / sync.max(1e-9)),
        ),
        format!(
            "1 of 100 syncs takes {} or longer, and so does the commit that waits for it.",
            short(report.sync_append.p99_s),
        ),
        format!(
            "This library commits one page {} times a second with FULL, {} with NORMAL, {} with OFF.",
            rate("full"),
            rate("normal"),
            rate("off"),
        ),
        format!(
            "Writing in sequence gives {writing}/s: a checkpoint or a copy of 1 GB takes {} or more.",
            units::duration(Duration::from_millis(whole(gigabyte.as_secs_f64() * 1e3))),
        ),
        format!(
            "A lock takes {}, a read transaction {}, and a commit wakes a waiter in {}.",
            short(report.lock_s),
            short(report.read_s),
            short(report.wake_up.median_s),
        ),
    ]
}

/// What is wrong with the place.
pub(super) fn warnings(report: &BenchReport, file_system: FileSystemType) -> Vec<String> {
    let mut warnings = Vec::new();
    if !report.is_shared_memory_sound {
        warnings.push(format!(
            "{file_system}: processes of two machines, or of a host and a guest, corrupt a \
             database in WAL mode there; use a local disk"
        ));
    }
    let sync = report.sync_append.median_s;
    if file_system.is_memory() {
        warnings.push(format!(
            "{file_system} is memory: a restart of the machine loses the database"
        ));
    } else if sync < IMPLAUSIBLE_SYNC {
        warnings.push(format!(
            "a sync takes {}, which is too fast for most disks: a commit is probably lost with \
             the power, unless the disk has a protected cache",
            short(sync),
        ));
    } else if sync > SLOW_SYNC {
        warnings.push(format!(
            "a sync takes {}: commit several changes in one transaction, or use \
             synchronous=NORMAL, which syncs at checkpoints",
            short(sync),
        ));
    }
    warnings
}

/// A figure without the digits that a repetition would not give again.
fn round(figure: f64) -> String {
    let figure = whole(figure);
    let unit = 10_u64.pow(figure.checked_ilog10().unwrap_or(0).saturating_sub(1));
    units::count((figure + unit / 2) / unit * unit)
}

/// The whole number next to a figure that is not negative.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It saturates.
fn whole(figure: f64) -> u64 {
    figure.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_two_digits() {
        assert_eq!(round(0.0), "0");
        assert_eq!(round(7.4), "7");
        assert_eq!(round(1111.0), "1,100");
        assert_eq!(round(98_765.0), "99,000");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!(short(1.5), "1.50 s");
        assert_eq!(short(0.0009), "900.0 us");
        assert_eq!(short(0.004_12), "4.12 ms");
        assert_eq!(short(0.000_000_215), "215 ns");
    }
}
