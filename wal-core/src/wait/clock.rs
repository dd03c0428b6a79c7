//! The time by which waiters go, and how often they look again.

use std::time::Duration;

#[cfg(not(loom))]
use nix::time::{ClockId, clock_gettime};

/// How long a waiter that no peer notifies sleeps between two looks. A longer time delays
/// what it waits for, a shorter one takes more of the processor.
pub const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The present moment in microseconds, which wrap, by a clock that all processes of one time
/// namespace share. In another one it is ahead or behind by a constant, so its processes seem
/// to be silent, or to have let their turn pass: they line up again, and a shared sync or the
/// reclaim of a read lock is done once more or later. What a clock says grants nothing, so no
/// commit depends on it.
pub fn now() -> u32 {
    #[cfg(all(feature = "step-points", not(loom)))]
    if let Some(now) = super::manual_clock::now() {
        return now;
    }
    // The low bits; see `Line`.
    u32::try_from(micros() & 0xffff_ffff).unwrap_or(0)
}

/// The same in full.
#[cfg(not(loom))]
pub(super) fn micros() -> u64 {
    // The clock is always there.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return 0;
    };
    let micros = now.tv_sec().wrapping_mul(1_000_000) + now.tv_nsec() / 1000;
    u64::try_from(micros).unwrap_or(0)
}

/// In a model time stands still: each execution is the same each time, a turn never ends and
/// no waiter seems to be dead.
#[cfg(loom)]
pub(super) fn micros() -> u64 {
    0
}

/// The time from one moment to another.
pub(super) fn between(from: u32, to: u32) -> Duration {
    Duration::from_micros(u64::from(to.wrapping_sub(from)))
}
