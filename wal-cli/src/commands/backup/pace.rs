//! How fast a backup copies, and what stops it.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wal::Error;

use crate::interrupt::Interrupt;

/// The pace of a copy.
pub(super) struct Pace {
    /// In bytes a second.
    rate: Option<u64>,
    started: Instant,
    interrupt: Interrupt,
    source_changed: bool,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>, interrupt: Interrupt) -> Self {
        Pace {
            rate,
            started: Instant::now(),
            interrupt,
            source_changed: false,
        }
    }

    /// Waits until `bytes` may be copied by the rate.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the command is to end.
    pub(super) fn copied(&self, bytes: u64) -> wal::Result<()> {
        let due = self.rate.map_or(Duration::ZERO, |rate| due(bytes, rate));
        loop {
            if self.interrupt.is_set() {
                return Err(Error::Cancelled);
            }
            let left = due.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            // A signal makes the descriptor readable; any other end of the wait is checked above.
            let signal = self.interrupt.descriptor();
            let mut waited = [PollFd::new(signal.as_fd(), PollFlags::POLLIN)];
            let millis = left.as_millis().saturating_add(1);
            let _ = poll(
                &mut waited,
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX),
            );
        }
    }

    /// Notes that a process began to use the database, and returns the error that ends the copy.
    pub(super) fn set_source_changed(&mut self) -> Error {
        self.source_changed = true;
        Error::Cancelled
    }

    pub(super) fn source_changed(&self) -> bool {
        self.source_changed
    }
}

/// How long after its start a copy at `rate` bytes a second has copied `bytes`.
fn due(bytes: u64, rate: u64) -> Duration {
    let millis = u128::from(bytes) * 1000 / u128::from(rate.max(1));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_due_follows_the_rate() {
        assert_eq!(due(50_000_000, 50_000_000), Duration::from_secs(1));
        assert_eq!(due(1_000, 2_000_000_000), Duration::ZERO);
        assert_eq!(due(u64::MAX, 1), Duration::from_millis(u64::MAX));
    }
}
