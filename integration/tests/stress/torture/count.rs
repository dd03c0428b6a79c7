//! What was done in a run.

use std::fmt;
use std::ops::AddAssign;

/// How often each sort of thing was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// Acknowledged commits of ours.
    pub(crate) ours: u64,
    /// Acknowledged commits of stock SQLite.
    pub(crate) stock: u64,
    pub(crate) checkpoints: u64,
    pub(crate) kills: u64,
    /// Refusals because others were at work.
    pub(crate) busy: u64,
    pub(crate) rounds: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.ours += other.ours;
        self.stock += other.stock;
        self.checkpoints += other.checkpoints;
        self.kills += other.kills;
        self.busy += other.busy;
        self.rounds += other.rounds;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds, {} commits of ours, {} of stock SQLite, {} checkpoints, {} kills, \
             {} times busy",
            self.rounds, self.ours, self.stock, self.checkpoints, self.kills, self.busy
        )
    }
}
