//! What happened in a run, once all members have ended.

use std::time::Duration;

use crate::arguments::BackendName;
use crate::assignment::{Engine, Role};
use crate::ledger::{InFlight, Ledger};
use crate::member::Member;

pub(crate) struct Story {
    pub(crate) backend: BackendName,
    pub(crate) worked: Duration,
    pub(crate) kills: Kills,
    pub(crate) ours: Share,
    pub(crate) stock: Share,
    pub(crate) checkpoints: u64,
}

/// The part that the members with one engine had in it.
pub(crate) struct Share {
    /// Of each writer. The journal has the rows of our writers first.
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) readers: usize,
    /// Snapshots by all readers.
    pub(crate) snapshots: u64,
    /// The longest that any writer waited for its turn.
    pub(crate) longest_wait: Duration,
    /// The longest that any writer was at work without a commit, whether one
    /// came in the end or not.
    pub(crate) longest_without_commit: Duration,
    /// Attempts to become the one writer that were given up and made again.
    pub(crate) refusals: u64,
}

/// The kills, and what became of the transfers that were in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kills {
    pub(crate) all: u32,
    pub(crate) committed: u32,
    pub(crate) rolled_back: u32,
}

impl Kills {
    pub(crate) fn count(&mut self, in_flight: InFlight) {
        match in_flight {
            InFlight::Nothing => {}
            InFlight::Committed => self.committed += 1,
            InFlight::RolledBack => self.rolled_back += 1,
        }
    }
}

impl Story {
    pub(crate) fn new(
        backend: BackendName,
        worked: Duration,
        kills: Kills,
        members: &[Member],
    ) -> Self {
        let checkpointers = members.iter().filter(|m| m.role() == Role::Checkpointer);
        Story {
            backend,
            worked,
            kills,
            ours: Share::new(Engine::Ours, members),
            stock: Share::new(Engine::Stock, members),
            checkpoints: checkpointers.map(Member::done).sum(),
        }
    }
}

impl Share {
    fn new(engine: Engine, members: &[Member]) -> Self {
        let having = |role| {
            members
                .iter()
                .filter(move |member| member.role() == role && member.engine() == engine)
        };
        let longest = |of: fn(&Member) -> Duration| having(Role::Writer).map(of).max();
        Share {
            ledgers: having(Role::Writer).map(|writer| writer.ledger).collect(),
            readers: having(Role::Reader).count(),
            snapshots: having(Role::Reader).map(Member::done).sum(),
            longest_wait: longest(|writer| writer.waits().1).unwrap_or_default(),
            longest_without_commit: longest(|writer| writer.longest_without_commit)
                .unwrap_or_default(),
            refusals: having(Role::Writer).map(Member::refusals).sum(),
        }
    }

    pub(crate) fn transfers(&self) -> u64 {
        let each = self.ledgers.iter().map(|ledger| ledger.transfers());
        each.sum::<i64>().cast_unsigned()
    }
}
